/* The lock of a run directory: one coordinator at a time, for its whole life. */
#ifndef APD_DAEMON_LOCK_H
#define APD_DAEMON_LOCK_H

#include "base/err.h"

#include <stdint.h>

/* Locks `path` (flock; made if missing) and writes our pid and host into it. Waits for a
 * predecessor that is just ending at most wait_ms, then APD_IO naming the holder. *out_fd is to be
 * kept open; closing it, or the end of the process, unlocks. Blocks. */
APD_MUST_USE enum apd_code apd_lock_take(const char *path, uint64_t wait_ms, int *out_fd,
                                         struct apd_err *err);

#endif
