#include "worker/data/sample_read.h"

#include "worker/data/regular.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum apd_code apd_sample_bytes_reserve(struct apd_sample_bytes *bytes, size_t size,
                                       struct apd_err *err)
{
    uint8_t *grown;

    if (size <= bytes->capacity)
        return APD_OK;
    grown = realloc(bytes->data, size);
    if (grown == NULL)
        return apd_fail(err, APD_NOMEM, "%zu bytes for an image", size);
    bytes->data = grown;
    bytes->capacity = size;
    return APD_OK;
}

enum apd_code apd_sample_read(const struct apd_manifest *manifest, uint64_t sample, uint32_t most,
                              struct apd_sample_bytes *out, struct apd_manifest_sample *out_sample,
                              struct apd_err *err)
{
    struct apd_manifest_sample found;
    char path[PATH_MAX];
    enum apd_code rc;
    uint32_t size, crc;
    int fd, n;

    apd_manifest_sample(manifest, sample, &found);
    size = most != 0 && most < found.size ? most : found.size;
    n = snprintf(path, sizeof path, "%s/%s", apd_manifest_info(manifest)->root, found.path);
    if (n < 0 || (size_t)n >= sizeof path)
        return apd_fail(err, APD_DATA, "sample %" PRIu64 ": a path of %d bytes", sample, n);
    APD_TRY(apd_sample_bytes_reserve(out, size, err));
    APD_TRY(apd_regular_open(path, &fd, NULL, err));
    rc = apd_regular_read(fd, path, found.offset, out->data, size, err);
    close(fd);
    if (rc != APD_OK)
        return rc;
    crc = size == found.size ? apd_crc32c(0, out->data, size) : found.crc;
    if (crc != found.crc)
        return apd_fail(err, APD_DATA,
                        "%s: sample %" PRIu64 " (%" PRIu32 " bytes at offset %" PRIu64
                        "): CRC-32C is %08x, expected %08x",
                        path, sample, size, found.offset, crc, found.crc);
    out->size = size;
    if (out_sample != NULL)
        *out_sample = found;
    return APD_OK;
}

void apd_sample_bytes_fini(struct apd_sample_bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct apd_sample_bytes){0};
}
