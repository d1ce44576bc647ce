/* Sums of the stand-in libnccl.so.2: in the order of the ranks; 16-bit types in float, rounded once
 * at the end. */
#include "tests/emu/standin_nccl.h"

#include <string.h>

static float bf16_to_float(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* To the nearest, ties to even. */
static uint16_t float_to_bf16(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return 0x7fff;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#define SUM(name, elem, wide, load, store)                                                         \
    static void name(elem *out, const void *const *in, int ranks, size_t n)                        \
    {                                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            wide sum = load(((const elem *)in[0])[i]);                                             \
                                                                                                   \
            for (int r = 1; r < ranks; r++)                                                        \
                sum += load(((const elem *)in[r])[i]);                                             \
            out[i] = store(sum);                                                                   \
        }                                                                                          \
    }
SUM(sum_float, float, float, , )
SUM(sum_double, double, double, , )
SUM(sum_half, _Float16, float, (float), (_Float16))
SUM(sum_bf16, uint16_t, float, bf16_to_float, float_to_bf16)

void standin_nccl_sum(ncclDataType_t type, void *out, const void *const *in, int ranks, size_t n)
{
    switch ((int)type) {
    case ncclFloat32:
        sum_float(out, in, ranks, n);
        break;
    case ncclFloat64:
        sum_double(out, in, ranks, n);
        break;
    case ncclFloat16:
        sum_half(out, in, ranks, n);
        break;
    default:
        sum_bf16(out, in, ranks, n);
        break;
    }
}
