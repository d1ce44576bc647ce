/* The types of the format, one row each; shared by reader and writer. */
#include "worker/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    unsigned bytes;
} types[APD_DTYPES] = {
    [APD_DTYPE_F64] = {"F64", 8},         [APD_DTYPE_F32] = {"F32", 4},
    [APD_DTYPE_F16] = {"F16", 2},         [APD_DTYPE_BF16] = {"BF16", 2},
    [APD_DTYPE_F8_E4M3] = {"F8_E4M3", 1}, [APD_DTYPE_F8_E5M2] = {"F8_E5M2", 1},
    [APD_DTYPE_I64] = {"I64", 8},         [APD_DTYPE_I32] = {"I32", 4},
    [APD_DTYPE_I16] = {"I16", 2},         [APD_DTYPE_I8] = {"I8", 1},
    [APD_DTYPE_U64] = {"U64", 8},         [APD_DTYPE_U32] = {"U32", 4},
    [APD_DTYPE_U16] = {"U16", 2},         [APD_DTYPE_U8] = {"U8", 1},
    [APD_DTYPE_BOOL] = {"BOOL", 1},
};

const char *apd_dtype_name(enum apd_dtype dtype)
{
    return types[dtype].name;
}

unsigned apd_dtype_bytes(enum apd_dtype dtype)
{
    return types[dtype].bytes;
}

int apd_dtype_of(const char *name, enum apd_dtype *out)
{
    for (int dtype = 0; dtype < APD_DTYPES; dtype++)
        if (strcmp(name, types[dtype].name) == 0) {
            *out = (enum apd_dtype)dtype;
            return 1;
        }
    return 0;
}

uint64_t apd_tensor_elems(const struct apd_tensor *tensor)
{
    uint64_t elems = 1;

    for (int d = 0; d < tensor->dims; d++)
        elems *= tensor->shape[d];
    return elems;
}

uint64_t apd_tensor_bytes(const struct apd_tensor *tensor)
{
    return apd_tensor_elems(tensor) * apd_dtype_bytes(tensor->dtype);
}

void apd_shape_text(int dims, const uint64_t *shape, char out[APD_SHAPE_TEXT])
{
    size_t used = 0;

    out[used++] = '[';
    for (int d = 0; d < dims; d++)
        used += (size_t)snprintf(out + used, APD_SHAPE_TEXT - used, "%s%" PRIu64, d > 0 ? ", " : "",
                                 shape[d]);
    (void)snprintf(out + used, APD_SHAPE_TEXT - used, "]");
}
