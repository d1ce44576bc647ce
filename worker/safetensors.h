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

/* The types of the format. */
enum apd_dtype {
    APD_DTYPE_F64,
    APD_DTYPE_F32,
    APD_DTYPE_F16,
    APD_DTYPE_BF16,
    APD_DTYPE_F8_E4M3,
    APD_DTYPE_F8_E5M2,
    APD_DTYPE_I64,
    APD_DTYPE_I32,
    APD_DTYPE_I16,
    APD_DTYPE_I8,
    APD_DTYPE_U64,
    APD_DTYPE_U32,
    APD_DTYPE_U16,
    APD_DTYPE_U8,
    APD_DTYPE_BOOL,
    APD_DTYPES
};

const char *apd_dtype_name(enum apd_dtype dtype); /* as in the file: "F32" */
unsigned apd_dtype_bytes(enum apd_dtype dtype);   /* of one element */
/* 0: no type of the format has this name. */
int apd_dtype_of(const char *name, enum apd_dtype *out);

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

uint64_t apd_tensor_elems(const struct apd_tensor *tensor);
uint64_t apd_tensor_bytes(const struct apd_tensor *tensor);

#define APD_SHAPE_TEXT (APD_TENSOR_DIMS * 22 + 3)
/* "[64, 3, 7, 7]" */
void apd_shape_text(int dims, const uint64_t *shape, char out[APD_SHAPE_TEXT]);

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
/* All metadata, in the order of the file. Valid until close. */
const struct apd_meta *apd_safetensors_metas(const struct apd_safetensors *file, size_t *out_count);

/* Reads the values of a tensor of this file as they lie in it, apd_tensor_bytes() of them. */
APD_MUST_USE enum apd_code apd_safetensors_read(const struct apd_safetensors *file,
                                                const struct apd_tensor *tensor, void *dst,
                                                struct apd_err *err);

/* Reads a tensor of exactly `elems` elements of this type. APD_DATA: not there, other type or size.
 */
APD_MUST_USE enum apd_code apd_safetensors_read_floats(const struct apd_safetensors *file,
                                                       const char *name, float *dst, uint64_t elems,
                                                       struct apd_err *err);
APD_MUST_USE enum apd_code apd_safetensors_read_u64(const struct apd_safetensors *file,
                                                    const char *name, uint64_t *dst, uint64_t elems,
                                                    struct apd_err *err);

#endif
