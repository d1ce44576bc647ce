#include "worker/data/unzip.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { BUFFER = 64 << 10, DEFLATE_RATIO = 1032 };

struct apd_unzip {
    char *path;
    int fd;
    int packed, inflating; /* inflating: z is to be ended */
    int at_end;            /* of the file */
    int member_open;       /* inside a gzip member: the file must not end here */
    uint64_t file_bytes;
    uint64_t in_offset;  /* file bytes read into the buffer so far */
    uint64_t out_offset; /* content handed out so far */
    z_stream z;          /* next_in, avail_in: what is left in the buffer, packed or not */
    unsigned char buffer[BUFFER];
};

/* Reads the next part of the file if the buffer is empty. */
static enum apd_code fill(struct apd_unzip *unzip, struct apd_err *err)
{
    ssize_t got;

    if (unzip->z.avail_in > 0 || unzip->at_end)
        return APD_OK;
    do
        got = read(unzip->fd, unzip->buffer, BUFFER);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return apd_fail_errno(err, "reading %s at offset %" PRIu64, unzip->path, unzip->in_offset);
    unzip->at_end = got == 0;
    unzip->in_offset += (uint64_t)got;
    unzip->z.next_in = unzip->buffer;
    unzip->z.avail_in = (unsigned)got;
    return APD_OK;
}

static enum apd_code open_file(struct apd_unzip *unzip, struct apd_err *err)
{
    struct stat st;

    unzip->fd = open(unzip->path, O_RDONLY | O_CLOEXEC);
    if (unzip->fd < 0)
        return apd_fail_errno(err, "opening %s", unzip->path);
    if (fstat(unzip->fd, &st) != 0)
        return apd_fail_errno(err, "%s", unzip->path);
    if (!S_ISREG(st.st_mode))
        return apd_fail(err, APD_DATA, "%s is no file", unzip->path);
    unzip->file_bytes = (uint64_t)st.st_size;
    return APD_OK;
}

enum apd_code apd_unzip_open(const char *path, struct apd_unzip **out, struct apd_err *err)
{
    struct apd_unzip *unzip = calloc(1, sizeof *unzip);
    enum apd_code rc;

    if (unzip != NULL) {
        unzip->fd = -1;
        unzip->path = strdup(path);
    }
    if (unzip == NULL || unzip->path == NULL) {
        rc = apd_fail(err, APD_NOMEM, "reading %s", path);
        goto done;
    }
    APD_GO(open_file(unzip, err));
    APD_GO(fill(unzip, err));
    unzip->packed = unzip->z.avail_in >= 2 && unzip->buffer[0] == 0x1f && unzip->buffer[1] == 0x8b;
    if (unzip->packed) {
        if (inflateInit2(&unzip->z, 15 + 16) != Z_OK) { /* 16: gzip wrapping, CRC checked */
            rc = apd_fail(err, APD_NOMEM, "unpacking %s", path);
            goto done;
        }
        unzip->inflating = 1;
        unzip->member_open = 1;
    }
    *out = unzip;
    unzip = NULL;
done:
    apd_unzip_close(&unzip);
    return rc;
}

static void take_plain(struct apd_unzip *unzip, unsigned char *dst, size_t size, size_t *got)
{
    size_t n = unzip->z.avail_in < size ? unzip->z.avail_in : size;

    memcpy(dst, unzip->z.next_in, n);
    unzip->z.next_in += n;
    unzip->z.avail_in -= (unsigned)n;
    *got = n;
}

static enum apd_code take_packed(struct apd_unzip *unzip, unsigned char *dst, size_t size,
                                 size_t *got, struct apd_err *err)
{
    unsigned room = size < (1u << 30) ? (unsigned)size : 1u << 30;
    int status;

    *got = 0;
    if (!unzip->member_open) { /* another member follows the one that ended */
        if (inflateReset(&unzip->z) != Z_OK)
            return apd_fail(err, APD_BUG, "unpacking %s", unzip->path);
        unzip->member_open = 1;
    }
    unzip->z.next_out = dst;
    unzip->z.avail_out = room;
    status = inflate(&unzip->z, Z_NO_FLUSH);
    *got = room - unzip->z.avail_out;
    if (status == Z_STREAM_END)
        unzip->member_open = 0;
    else if (status == Z_MEM_ERROR)
        return apd_fail(err, APD_NOMEM, "unpacking %s", unzip->path);
    else if (status != Z_OK && status != Z_BUF_ERROR)
        return apd_fail(err, APD_DATA, "%s: damaged gzip stream at offset %" PRIu64 ": %s",
                        unzip->path, unzip->in_offset - unzip->z.avail_in,
                        unzip->z.msg != NULL ? unzip->z.msg : "it needs a dictionary");
    return APD_OK;
}

enum apd_code apd_unzip_read(struct apd_unzip *unzip, void *dst, size_t size, size_t *out_got,
                             struct apd_err *err)
{
    unsigned char *at = dst;
    size_t left = size, got;

    while (left > 0) {
        APD_TRY(fill(unzip, err));
        if (unzip->z.avail_in == 0)
            break;
        if (unzip->packed)
            APD_TRY(take_packed(unzip, at, left, &got, err));
        else
            take_plain(unzip, at, left, &got);
        at += got;
        left -= got;
        unzip->out_offset += got;
    }
    if (left > 0 && unzip->member_open)
        return apd_fail(err, APD_DATA,
                        "%s: truncated gzip stream: the file ends at offset %" PRIu64
                        ", after %" PRIu64 " bytes of content, expected more",
                        unzip->path, unzip->in_offset, unzip->out_offset);
    *out_got = size - left;
    return APD_OK;
}

uint64_t apd_unzip_offset(const struct apd_unzip *unzip)
{
    return unzip->out_offset;
}

uint64_t apd_unzip_bound(const struct apd_unzip *unzip)
{
    return unzip->packed ? unzip->file_bytes * DEFLATE_RATIO : unzip->file_bytes;
}

void apd_unzip_close(struct apd_unzip **unzip)
{
    if (*unzip == NULL)
        return;
    if ((*unzip)->inflating)
        (void)inflateEnd(&(*unzip)->z);
    if ((*unzip)->fd >= 0)
        close((*unzip)->fd);
    free((*unzip)->path);
    free(*unzip);
    *unzip = NULL;
}
