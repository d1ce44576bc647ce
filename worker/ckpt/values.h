/* Single values of a tensor as it lies in a file, whatever its type. */
#ifndef APD_WORKER_CKPT_VALUES_H
#define APD_WORKER_CKPT_VALUES_H

#include "worker/safetensors.h"

/* A type of numbers that have NaN, and that apd_value_at() knows. */
int apd_values_are_real(enum apd_dtype dtype);

/* Element i. Large integers are rounded; the 8-bit floats, which nothing here reads, give their
 * bits as a number. */
double apd_value_at(enum apd_dtype dtype, const void *raw, uint64_t i);

/* How many of n are NaN or infinite. */
uint64_t apd_values_not_finite(enum apd_dtype dtype, const void *raw, uint64_t n);

/* Reads a tensor into fresh memory the caller frees. */
APD_MUST_USE enum apd_code apd_values_read(const struct apd_safetensors *file,
                                           const struct apd_tensor *tensor, void **out,
                                           struct apd_err *err);

#endif
