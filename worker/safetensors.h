/* Checkpoint files in the safetensors format (github.com/huggingface/safetensors, "Format"):
 *
 *   8 bytes  little-endian length of the header
 *   header   JSON object: "__metadata__": {string: string}, name: {"dtype", "shape",
 * "data_offsets"}, padded with spaces to a multiple of 8 data     the tensors, little endian,
 * row-major, without holes
 *
 * The writer makes a file that exists whole or not at all; the reader checks everything before it
 * hands anything out. Blocking; save thread and start-up. Knows nothing about models. */
#ifndef APD_WORKER_SAFETENSORS_H
#define APD_WORKER_SAFETENSORS_H

#include "base/err.h"
#include "base/hash.h"

#include <stddef.h>
#include <stdint.h>

#define APD_TENSOR_DIMS 8

/* What we write and read. Files of others may hold further types; those can be listed, not read. */
enum apd_dtype { APD_DTYPE_F32, APD_DTYPE_U64, APD_DTYPE_I64, APD_DTYPE_OTHER };

struct apd_tensor {
    const char *name;
    enum apd_dtype dtype;
    int dims;                        /* 0: a scalar */
    uint64_t shape[APD_TENSOR_DIMS]; /* slowest first */
    const void *data;                /* for writing; NULL in what the reader hands out */
};

struct apd_meta {
    const char *key, *value;
};

/* Number of elements. */
uint64_t apd_tensor_elems(const struct apd_tensor *tensor);

/* Writes `path` in the order given: temporary name in the same folder, write, fsync, rename, fsync
 * of the folder. On failure nothing new is left under either name, and the message names the
 * failing step. *out_bytes and out_sha256 describe the file. APD_BUG: a name twice, or not UTF-8.
 */
APD_MUST_USE enum apd_code apd_safetensors_write(const char *path, const struct apd_tensor *tensors,
                                                 size_t tensor_count, const struct apd_meta *meta,
                                                 size_t meta_count, uint64_t *out_bytes,
                                                 char out_sha256[APD_SHA256_HEX],
                                                 struct apd_err *err);

struct apd_safetensors; /* an open file */

/* Opens and checks. expected_sha256 (64 hex digits, or NULL): the whole file is hashed first and
 * anything else is refused. APD_IO: cannot be read; APD_DATA: not a sound file. */
APD_MUST_USE enum apd_code apd_safetensors_open(const char *path, const char *expected_sha256,
                                                struct apd_safetensors **out, struct apd_err *err);
/* NULL ok; nulls. */
void apd_safetensors_close(struct apd_safetensors **file);

size_t apd_safetensors_count(const struct apd_safetensors *file);
/* In the order of the data; index < count. Valid until close. */
const struct apd_tensor *apd_safetensors_at(const struct apd_safetensors *file, size_t index);
/* NULL if there is none. */
const struct apd_tensor *apd_safetensors_find(const struct apd_safetensors *file, const char *name);
/* NULL if there is none. Valid until close. */
const char *apd_safetensors_meta(const struct apd_safetensors *file, const char *key);

/* Reads a tensor of exactly `elems` elements of this type. APD_DATA: not there, other type or size.
 */
APD_MUST_USE enum apd_code apd_safetensors_read_floats(const struct apd_safetensors *file,
                                                       const char *name, float *dst, uint64_t elems,
                                                       struct apd_err *err);
APD_MUST_USE enum apd_code apd_safetensors_read_u64(const struct apd_safetensors *file,
                                                    const char *name, uint64_t *dst, uint64_t elems,
                                                    struct apd_err *err);

#endif
