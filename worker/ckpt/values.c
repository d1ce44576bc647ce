#include "worker/ckpt/values.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int apd_values_are_real(enum apd_dtype dtype)
{
    return dtype == APD_DTYPE_F64 || dtype == APD_DTYPE_F32 || dtype == APD_DTYPE_F16 ||
           dtype == APD_DTYPE_BF16;
}

static double half_at(uint64_t bits)
{
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double sign = bits >> 15 ? -1 : 1;

    if (exponent == 31)
        return mantissa != 0 ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, -24);
    return sign * ldexp(mantissa + 1024, exponent - 25);
}

static double float_at(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

double apd_value_at(enum apd_dtype dtype, const void *raw, uint64_t i)
{
    unsigned bytes = apd_dtype_bytes(dtype);
    uint64_t bits = 0;
    double value;

    memcpy(&bits, (const char *)raw + i * bytes, bytes); /* little endian, as the format */
    switch (dtype) {
    case APD_DTYPE_F64:
        memcpy(&value, &bits, sizeof value);
        return value;
    case APD_DTYPE_F32:
        return float_at((uint32_t)bits);
    case APD_DTYPE_F16:
        return half_at(bits);
    case APD_DTYPE_BF16:
        return float_at((uint32_t)bits << 16);
    case APD_DTYPE_I64:
        return (double)(int64_t)bits;
    case APD_DTYPE_I32:
        return (int32_t)bits;
    case APD_DTYPE_I16:
        return (int16_t)bits;
    case APD_DTYPE_I8:
        return (int8_t)bits;
    default:
        return (double)bits;
    }
}

uint64_t apd_values_not_finite(enum apd_dtype dtype, const void *raw, uint64_t n)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < n && apd_values_are_real(dtype); i++)
        count += !isfinite(apd_value_at(dtype, raw, i));
    return count;
}

enum apd_code apd_values_read(const struct apd_safetensors *file, const struct apd_tensor *tensor,
                              void **out, struct apd_err *err)
{
    uint64_t bytes = apd_tensor_bytes(tensor);
    void *raw = malloc(bytes + 1);
    enum apd_code rc;

    if (raw == NULL)
        return apd_fail(err, APD_NOMEM, "%llu bytes of tensor %s", (unsigned long long)bytes,
                        tensor->name);
    rc = apd_safetensors_read(file, tensor, raw, err);
    if (rc == APD_OK)
        *out = raw;
    else
        free(raw);
    return rc;
}
