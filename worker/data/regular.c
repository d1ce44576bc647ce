#include "worker/data/regular.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

enum apd_code apd_regular_open(const char *path, int *out_fd, struct stat *st, struct apd_err *err)
{
    struct stat own;
    /* O_NONBLOCK: opening a FIFO would wait for a writer. It means nothing to regular files. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    st = st != NULL ? st : &own;
    if (fd < 0)
        return apd_fail_errno(err, "opening %s", path);
    if (fstat(fd, st) != 0)
        (void)apd_fail_errno(err, "%s", path);
    else if (!S_ISREG(st->st_mode))
        (void)apd_fail(err, APD_DATA, "%s is no regular file", path);
    else {
        *out_fd = fd;
        return APD_OK;
    }
    close(fd);
    return err->code;
}

enum apd_code apd_regular_read(int fd, const char *path, uint64_t offset, void *dst, uint64_t size,
                               struct apd_err *err)
{
    for (uint64_t done = 0; done < size;) {
        ssize_t got = pread(fd, (char *)dst + done, size - done, (off_t)(offset + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return apd_fail_errno(err, "reading %s at offset %" PRIu64, path, offset + done);
        if (got == 0)
            return apd_fail(err, APD_DATA,
                            "%s ends at offset %" PRIu64 ", expected %" PRIu64 " more bytes", path,
                            offset + done, size - done);
        done += (uint64_t)got;
    }
    return APD_OK;
}
