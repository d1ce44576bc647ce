/* CUDA on a CPU, for tests: what kernels/cuda/launch.cuh includes when CUDA_EMU is defined. The
 * types are CUDA's own (its headers work under g++); here are the words of the language and the
 * operations among the threads of a block. The scheduler is in cuda_emu.cc.
 *
 * There is no static __shared__: arrays come from DYN_SHARED, so that each block gets fresh memory
 * of exactly the asked size, filled with 0xee, and the sanitizers see its ends. */
#ifndef APD_TESTS_CUDA_EMU_H
#define APD_TESTS_CUDA_EMU_H

#include "tests/emu/emu_reg.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_functions.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#undef __global__
#undef __device__
#undef __forceinline__
#undef __shared__
#undef __launch_bounds__
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__      use_DYN_SHARED_instead
#define __launch_bounds__(...)

namespace emu
{

struct Thread {
    uint3 index, block_index;
    dim3 block, grid;
    unsigned lane, warp;
};

const Thread &self();
void barrier(const char *file, int line);
/* The value that lane `from` of the warp gave at the same call. */
uint64_t shuffle(uint32_t mask, uint64_t value, unsigned from, const char *file, int line);
uint32_t ballot(uint32_t mask, bool vote, const char *file, int line);
void *shared_memory();

template <class T> T shuffle_xor(uint32_t mask, T value, unsigned other, const char *file, int line)
{
    uint64_t bits = 0;

    static_assert(sizeof(T) <= sizeof bits, "");
    memcpy(&bits, &value, sizeof value);
    bits = shuffle(mask, bits, self().lane ^ other, file, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}

} // namespace emu

#define threadIdx                (emu::self().index)
#define blockIdx                 (emu::self().block_index)
#define blockDim                 (emu::self().block)
#define gridDim                  (emu::self().grid)
#define __syncthreads()          emu::barrier(__FILE__, __LINE__)
#define __shfl_xor_sync(m, v, x) emu::shuffle_xor(m, v, x, __FILE__, __LINE__)
#define __ballot_sync(m, vote)   emu::ballot(m, vote, __FILE__, __LINE__)
#define DYN_SHARED(T, name)      T *const name = static_cast<T *>(emu::shared_memory())

#endif
