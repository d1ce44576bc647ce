/* Regular files opened for reading, and nothing else: a FIFO, a device or a folder under the name
 * of an image is told, never waited for. */
#ifndef APD_WORKER_DATA_REGULAR_H
#define APD_WORKER_DATA_REGULAR_H

#include "base/err.h"

#include <stdint.h>
#include <sys/stat.h>

/* APD_IO: cannot be opened (err->sys says why); APD_DATA: no regular file. `st` may be NULL. The
 * caller closes. */
APD_MUST_USE enum apd_code apd_regular_open(const char *path, int *out_fd, struct stat *st,
                                            struct apd_err *err);

/* `size` bytes at `offset`; APD_DATA if the file ends before. `path` is for the message only. */
APD_MUST_USE enum apd_code apd_regular_read(int fd, const char *path, uint64_t offset, void *dst,
                                            uint64_t size, struct apd_err *err);

/* st_mtim as one number. */
static inline int64_t apd_mtime_ns(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

#endif
