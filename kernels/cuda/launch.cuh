/* One way to launch a kernel, for nvcc and for the emulation on a CPU (CUDA_EMU, tests/emu).
 * Kernels take their shared memory from DYN_SHARED, name themselves with EMU_KERNEL, and use no
 * other feature of CUDA than threads, barriers, warp shuffles and votes. */
#ifndef APD_KERNELS_CUDA_LAUNCH_CUH
#define APD_KERNELS_CUDA_LAUNCH_CUH

#include "kernels/cuda/kernels.h"

#ifdef CUDA_EMU
#include "tests/emu/cuda_emu.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
/* One symbol for all kernels of a file, of whatever type. */
extern __shared__ __align__(16) unsigned char apd_dynamic_shared[];
#define DYN_SHARED(T, name) T *const name = reinterpret_cast<T *>(apd_dynamic_shared)
#define EMU_KERNEL(...)
#endif

/* Sum of the sizes of the arguments: every CUDA takes 4 KiB. */
template <class... P> constexpr size_t argument_bytes()
{
    return (sizeof(P) + ... + 0);
}

template <class... P, class... A>
static cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                          cudaStream_t stream, A... arguments)
{
    static_assert(argument_bytes<P...>() <= 4096 - 8 * sizeof...(P), "too much for a launch");
#ifdef CUDA_EMU
    (void)stream;
    return emu::launch(grid, block, shared_bytes, [=] { kernel(static_cast<P>(arguments)...); });
#else
    auto with_values = [&](P... values) {
        void *args[] = {static_cast<void *>(&values)...};

        return cudaLaunchKernel(reinterpret_cast<const void *>(kernel), grid, block, args,
                                shared_bytes, stream);
    };

    return with_values(static_cast<P>(arguments)...);
#endif
}

/* The operation for one of the types that activations are stored in: `call` with T. */
#define FOR_TYPE(type, call)                                                                       \
    switch (type) {                                                                                \
    case APD_CUDA_F32: {                                                                           \
        typedef float T;                                                                           \
        return call;                                                                               \
    }                                                                                              \
    case APD_CUDA_F16: {                                                                           \
        typedef __half T;                                                                          \
        return call;                                                                               \
    }                                                                                              \
    case APD_CUDA_BF16: {                                                                          \
        typedef __nv_bfloat16 T;                                                                   \
        return call;                                                                               \
    }                                                                                              \
    default:                                                                                       \
        return cudaErrorInvalidValue;                                                              \
    }

static inline size_t divide_up(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static inline size_t at_most(size_t a, size_t most)
{
    return a < most ? a : most;
}

static inline size_t at_least(size_t a, size_t least)
{
    return a > least ? a : least;
}

#endif
