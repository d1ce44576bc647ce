/* Failing system calls. A test program linked with fault.c and
 * -Wl,--wrap=write,--wrap=fsync,--wrap=rename,--wrap=ftruncate (fault_args in
 * tests/unit/meson.build) can let the n-th of these calls fail. */
#ifndef APD_TESTS_SUPPORT_FAULT_H
#define APD_TESTS_SUPPORT_FAULT_H

/* The n-th wrapped call from now on (from 1) and `more` after it fail with `code`. A failing write
 * puts half of its bytes into the file first. 0: none. */
void fault_arm(int nth, int more, int code);

/* Name of the call that failed first since fault_arm, or NULL; disarms. */
const char *fault_fired(void);

#endif
