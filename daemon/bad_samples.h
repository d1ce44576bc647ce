/* Which samples are known to be bad, so that each is told and recorded once. Pure. */
#ifndef APD_DAEMON_BAD_SAMPLES_H
#define APD_DAEMON_BAD_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

struct apd_bad_samples {
    uint64_t *sample; /* ascending */
    size_t count, capacity;
};

/* Whether it was new. Without memory for it a sample counts as new each time. */
int apd_bad_samples_add(struct apd_bad_samples *bad, uint64_t sample);
void apd_bad_samples_fini(struct apd_bad_samples *bad);

#endif
