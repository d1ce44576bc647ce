/* The bytes of one sample of a manifest, as they are stored. */
#ifndef APD_WORKER_DATA_SAMPLE_READ_H
#define APD_WORKER_DATA_SAMPLE_READ_H

#include "base/err.h"
#include "worker/data/manifest.h"

#include <stddef.h>

/* Kept and grown from sample to sample. `= {0}` is a valid empty one. */
struct apd_sample_bytes {
    uint8_t *data;
    size_t size, capacity;
};

/* Opens the file, reads, closes. most: read only so many bytes from the first on, 0: all of them,
 * which are then checked against the CRC. *out_sample may be NULL. APD_DATA: the file ends before,
 * or its bytes are others than when it was indexed. Blocks; any thread. */
APD_MUST_USE enum apd_code apd_sample_read(const struct apd_manifest *manifest, uint64_t sample,
                                           uint32_t most, struct apd_sample_bytes *out,
                                           struct apd_manifest_sample *out_sample,
                                           struct apd_err *err);

/* Room for `size` bytes, whose contents are undefined; out->size is left to the caller. */
APD_MUST_USE enum apd_code apd_sample_bytes_reserve(struct apd_sample_bytes *bytes, size_t size,
                                                    struct apd_err *err);
void apd_sample_bytes_fini(struct apd_sample_bytes *bytes);

#endif
