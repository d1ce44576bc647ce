/* Philox 4x32-10 as in base/rng.c, bit for bit. */
#ifndef APD_KERNELS_CUDA_PHILOX_CUH
#define APD_KERNELS_CUDA_PHILOX_CUH

#include "kernels/cuda/launch.cuh"

static __device__ __forceinline__ uint4 philox(uint64_t key, uint4 c)
{
    uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);

#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = uint64_t(0xD2511F53u) * c.x, p1 = uint64_t(0xCD9E8D57u) * c.z;

        c = make_uint4(uint32_t(p1 >> 32) ^ c.y ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c.w ^ k1,
                       uint32_t(p0));
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

/* The block of base/rng.h's per-sample streams. */
static __device__ __forceinline__ uint4 sample_block(uint64_t seed, int purpose, uint32_t epoch,
                                                     uint64_t sample, uint32_t block)
{
    return philox(seed, make_uint4(block, uint32_t(purpose) << 24 | (epoch & 0xFFFFFFu),
                                   uint32_t(sample), uint32_t(sample >> 32)));
}

/* Uniform in [-1, 1), exact. */
static __device__ __forceinline__ float signed_uniform(uint32_t x)
{
    return float(int32_t(x >> 8)) * 0x1p-23f - 1.0f;
}

#endif
