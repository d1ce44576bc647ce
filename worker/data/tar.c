#include "worker/data/tar.h"

#include "worker/data/regular.h"
#include "worker/data/tar_fields.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER = 256 << 10, METADATA_CAP = 1 << 20 };

/* Header fields: place and size (POSIX.1-2008, pax, "ustar Interchange Format"). */
enum {
    NAME = 0,
    NAME_SIZE = 100,
    SIZE = 124,
    SIZE_SIZE = 12,
    TYPE = 156,
    MAGIC = 257,
    PREFIX = 345,
    PREFIX_SIZE = 155,
};

struct apd_tar {
    char *path;
    int fd;
    struct apd_sha256 *hash; /* NULL or of the caller */
    uint64_t file_bytes;
    uint64_t at;       /* offset in the file of buffer[begin] */
    size_t begin, end; /* what is in the buffer */
    uint64_t left;     /* bytes of the current member not handed out */
    uint64_t padding;  /* bytes behind them, up to the next block */
    struct apd_tar_extra own, global;
    struct apd_tar_member member;
    char short_name[PREFIX_SIZE + 1 + NAME_SIZE + 1];
    uint8_t buffer[BUFFER];
};

enum apd_code apd_tar_open(const char *path, struct apd_sha256 *hash, struct apd_tar **out,
                           struct apd_err *err)
{
    struct apd_tar *tar = calloc(1, sizeof *tar);
    struct stat st;

    if (tar == NULL)
        return apd_fail(err, APD_NOMEM, "reading %s", path);
    tar->fd = -1;
    tar->hash = hash;
    tar->path = strdup(path);
    if (tar->path == NULL)
        (void)apd_fail(err, APD_NOMEM, "reading %s", path);
    else if (apd_regular_open(path, &tar->fd, &st, err) == APD_OK) {
        tar->file_bytes = (uint64_t)st.st_size;
        *out = tar;
        return APD_OK;
    }
    apd_tar_close(&tar);
    return err->code;
}

void apd_tar_close(struct apd_tar **tar)
{
    if (*tar == NULL)
        return;
    if ((*tar)->fd >= 0)
        close((*tar)->fd);
    apd_tar_extra_fini(&(*tar)->own);
    apd_tar_extra_fini(&(*tar)->global);
    free((*tar)->path);
    free(*tar);
    *tar = NULL;
}

uint64_t apd_tar_bytes(const struct apd_tar *tar)
{
    return tar->file_bytes;
}

/* ---------------------------------------------------------------- bytes */

/* Has at least `want` bytes in the buffer, fewer only at the end of the file. */
static enum apd_code fill(struct apd_tar *tar, size_t want, struct apd_err *err)
{
    if (tar->end - tar->begin >= want)
        return APD_OK;
    memmove(tar->buffer, tar->buffer + tar->begin, tar->end - tar->begin);
    tar->end -= tar->begin;
    tar->begin = 0;
    while (tar->end < want) {
        ssize_t got = read(tar->fd, tar->buffer + tar->end, BUFFER - tar->end);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return apd_fail_errno(err, "reading %s at offset %" PRIu64, tar->path,
                                  tar->at + tar->end);
        if (got == 0)
            break;
        if (tar->hash != NULL)
            APD_TRY(apd_sha256_update(tar->hash, tar->buffer + tar->end, (size_t)got, err));
        tar->end += (size_t)got;
    }
    return APD_OK;
}

/* Hands out up to `most` bytes of the buffer, filling it if it is empty; 0 at the end of the file.
 */
static enum apd_code take(struct apd_tar *tar, uint64_t most, const uint8_t **out, size_t *out_size,
                          struct apd_err *err)
{
    size_t n;

    APD_TRY(fill(tar, 1, err));
    n = tar->end - tar->begin;
    n = n < most ? n : (size_t)most;
    *out = tar->buffer + tar->begin;
    *out_size = n;
    tar->begin += n;
    tar->at += n;
    return APD_OK;
}

static enum apd_code ends_early(const struct apd_tar *tar, uint64_t want, struct apd_err *err)
{
    return apd_fail(err, APD_DATA, "%s ends at offset %" PRIu64 ", expected %" PRIu64 " more bytes",
                    tar->path, tar->at, want);
}

/* Copies `size` bytes to dst, or passes over them if dst is NULL. */
static enum apd_code take_all(struct apd_tar *tar, uint64_t size, char *dst, struct apd_err *err)
{
    while (size > 0) {
        const uint8_t *piece;
        size_t n;

        APD_TRY(take(tar, size, &piece, &n, err));
        if (n == 0)
            return ends_early(tar, size, err);
        if (dst != NULL) {
            memcpy(dst, piece, n);
            dst += n;
        }
        size -= n;
    }
    return APD_OK;
}

static uint64_t padding_of(uint64_t size)
{
    return (APD_TAR_BLOCK - size % APD_TAR_BLOCK) % APD_TAR_BLOCK;
}

/* ---------------------------------------------------------------- headers */

static int is_zero(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (data[i] != 0)
            return 0;
    return 1;
}

/* Behind the end mark: zeros (GNU tar fills up records of 10 KiB), to the end of the file. */
static enum apd_code check_tail(struct apd_tar *tar, struct apd_err *err)
{
    for (;;) {
        uint64_t from = tar->at;
        const uint8_t *piece;
        size_t n;

        APD_TRY(take(tar, BUFFER, &piece, &n, err));
        if (n == 0)
            return APD_OK;
        for (size_t i = 0; i < n; i++)
            if (piece[i] != 0)
                return apd_fail(err, APD_DATA,
                                "%s: trailing bytes at offset %" PRIu64
                                " behind the end mark, expected zeros to the end of the file",
                                tar->path, from + i);
    }
}

/* The next header in *out, good until bytes are taken; NULL at the end of the archive. */
static enum apd_code next_header(struct apd_tar *tar, const uint8_t **out, struct apd_err *err)
{
    const uint8_t *header = NULL;
    size_t n;

    *out = NULL;
    APD_TRY(fill(tar, APD_TAR_BLOCK, err));
    APD_TRY(take(tar, APD_TAR_BLOCK, &header, &n, err));
    if (n == 0)
        return APD_OK;
    if (n < APD_TAR_BLOCK)
        return apd_fail(err, APD_DATA,
                        "%s ends at offset %" PRIu64 " inside a header, expected %zu more bytes",
                        tar->path, tar->at, APD_TAR_BLOCK - n);
    if (is_zero(header, APD_TAR_BLOCK))
        return check_tail(tar, err);
    if (!apd_tar_checksum_ok(header))
        return apd_fail(err, APD_DATA,
                        "%s: wrong checksum of the header at offset %" PRIu64
                        ": damaged, or no tar file",
                        tar->path, tar->at - APD_TAR_BLOCK);
    *out = header;
    return APD_OK;
}

/* The size field, which has to lie in the file. */
static enum apd_code read_size(const struct apd_tar *tar, const uint8_t *header, uint64_t *out,
                               struct apd_err *err)
{
    uint64_t size;

    if (!apd_tar_number(header + SIZE, SIZE_SIZE, &size))
        return apd_fail(err, APD_DATA, "%s: no number in the size field at offset %" PRIu64,
                        tar->path, tar->at - APD_TAR_BLOCK + SIZE);
    *out = size;
    return APD_OK;
}

static enum apd_code check_size(const struct apd_tar *tar, uint64_t size, struct apd_err *err)
{
    if (tar->at <= tar->file_bytes && size <= tar->file_bytes - tar->at)
        return APD_OK;
    return apd_fail(err, APD_DATA,
                    "%s: the header at offset %" PRIu64 " declares %" PRIu64
                    " bytes, found %" PRIu64 " up to the end of the file",
                    tar->path, tar->at - APD_TAR_BLOCK, size,
                    tar->at < tar->file_bytes ? tar->file_bytes - tar->at : 0);
}

/* A member that describes the next one (or, 'g', all that follow). */
static enum apd_code read_metadata(struct apd_tar *tar, char type, uint64_t size,
                                   struct apd_err *err)
{
    struct apd_tar_extra *extra = type == 'g' ? &tar->global : &tar->own;
    uint64_t offset = tar->at;
    const char *wrong = NULL;
    size_t place = 0;
    char *text = NULL;
    enum apd_code rc;

    APD_TRY(check_size(tar, size, err));
    if (size > METADATA_CAP)
        return apd_fail(err, APD_DATA,
                        "%s: extended header of %" PRIu64 " bytes at offset %" PRIu64
                        ", expected at most %d",
                        tar->path, size, offset, METADATA_CAP);
    text = malloc(size + 1);
    if (text == NULL)
        return apd_fail(err, APD_NOMEM, "%" PRIu64 " bytes for %s", size, tar->path);
    APD_GO(take_all(tar, size, text, err));
    APD_GO(take_all(tar, padding_of(size), NULL, err));
    text[size] = '\0';
    if (type == 'L')
        apd_tar_extra_path(extra, text, strlen(text));
    else if (type != 'K')
        wrong = apd_tar_pax(text, size, extra, &place);
    if (extra->no_memory)
        rc = apd_fail(err, APD_NOMEM, "a path in %s", tar->path);
    else if (wrong != NULL)
        rc = apd_fail(err, APD_DATA, "%s: %s in the extended header at offset %" PRIu64, tar->path,
                      wrong, offset + place);
done:
    free(text);
    return rc;
}

/* What a member of this type is, NULL for a regular file. */
static const char *kind_of(char type, const char *name)
{
    size_t n = strlen(name);

    switch (type) {
    case '\0': /* of before POSIX, where a folder is told by its name */
        return n > 0 && name[n - 1] == '/' ? "directory" : NULL;
    case '0':
    case '7':
        return NULL;
    case '1':
        return "hard link";
    case '2':
        return "symbolic link";
    case '3':
    case '4':
        return "device";
    case '5':
        return "directory";
    case '6':
        return "FIFO";
    default:
        return "member of an unknown type";
    }
}

static const char *name_of(struct apd_tar *tar, const uint8_t *header)
{
    size_t used = 0;

    if (tar->own.path != NULL)
        return tar->own.path;
    if (tar->global.path != NULL)
        return tar->global.path;
    /* GNU's own magic, "ustar  ", has other things in the place of the prefix. */
    if (memcmp(header + MAGIC, "ustar", 6) == 0 && header[PREFIX] != '\0') {
        used = strnlen((const char *)header + PREFIX, PREFIX_SIZE);
        memcpy(tar->short_name, header + PREFIX, used);
        tar->short_name[used++] = '/';
    }
    memcpy(tar->short_name + used, header + NAME, NAME_SIZE);
    tar->short_name[used + NAME_SIZE] = '\0';
    return tar->short_name;
}

static enum apd_code begin_member(struct apd_tar *tar, const uint8_t *header, uint64_t size,
                                  struct apd_err *err)
{
    struct apd_tar_member *member = &tar->member;
    char type = (char)header[TYPE];

    if (type == 'S' || type == 'M')
        return apd_fail(err, APD_DATA, "%s: a %s at offset %" PRIu64 ", which is not supported",
                        tar->path, type == 'S' ? "sparse member" : "part of a multi-volume archive",
                        tar->at - APD_TAR_BLOCK);
    if (tar->own.has_size)
        size = tar->own.size;
    else if (tar->global.has_size)
        size = tar->global.size;
    member->name = name_of(tar, header);
    member->skip = kind_of(type, member->name);
    /* Links, devices and folders have no bytes whatever their size field says. */
    if (member->skip != NULL && (type == '\0' || (type >= '1' && type <= '6')))
        size = 0;
    APD_TRY(check_size(tar, size, err));
    member->offset = tar->at;
    member->size = size;
    tar->left = size;
    tar->padding = padding_of(size);
    return APD_OK;
}

enum apd_code apd_tar_next(struct apd_tar *tar, const struct apd_tar_member **out,
                           struct apd_err *err)
{
    const uint8_t *header;
    int described = 0;

    APD_TRY(take_all(tar, tar->left + tar->padding, NULL, err));
    tar->left = tar->padding = 0;
    apd_tar_extra_fini(&tar->own);
    for (;;) {
        uint64_t size = 0;
        char type;

        APD_TRY(next_header(tar, &header, err));
        if (header == NULL)
            break;
        APD_TRY(read_size(tar, header, &size, err));
        type = (char)header[TYPE];
        if (type == '\0' || strchr("LKxgX", type) == NULL) {
            APD_TRY(begin_member(tar, header, size, err));
            *out = &tar->member;
            return APD_OK;
        }
        APD_TRY(read_metadata(tar, type, size, err));
        described = type != 'g';
    }
    if (described)
        return apd_fail(err, APD_DATA,
                        "%s ends at offset %" PRIu64 " behind an extended header, expected the "
                        "member that it describes",
                        tar->path, tar->at);
    *out = NULL;
    return APD_OK;
}

enum apd_code apd_tar_piece(struct apd_tar *tar, const uint8_t **out, size_t *out_size,
                            struct apd_err *err)
{
    *out_size = 0;
    if (tar->left == 0)
        return APD_OK;
    APD_TRY(take(tar, tar->left, out, out_size, err));
    if (*out_size == 0)
        return ends_early(tar, tar->left, err);
    tar->left -= *out_size;
    return APD_OK;
}
