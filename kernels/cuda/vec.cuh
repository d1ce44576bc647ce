/* Elements in runs of N: arithmetic is float (or double), storage T. A run that fills 16 bytes
 * moves in accesses of 16 bytes, so it has to be aligned to them; a run of one is an ordinary
 * access. Conversion to 16 bits rounds to nearest even, beyond the range to infinity; NaN stays
 * NaN. */
#ifndef APD_KERNELS_CUDA_VEC_CUH
#define APD_KERNELS_CUDA_VEC_CUH

#include "kernels/cuda/launch.cuh"

static __device__ __forceinline__ float to_float(float v)
{
    return v;
}
static __device__ __forceinline__ float to_float(__half v)
{
    return __half2float(v);
}
static __device__ __forceinline__ float to_float(__nv_bfloat16 v)
{
    return __bfloat162float(v);
}

static __device__ __forceinline__ void from_float(float v, float *out)
{
    *out = v;
}
static __device__ __forceinline__ void from_float(float v, __half *out)
{
    *out = __float2half_rn(v);
}
static __device__ __forceinline__ void from_float(float v, __nv_bfloat16 *out)
{
    *out = __float2bfloat16_rn(v);
}

/* What v is after it was stored as T. */
template <class T> static __device__ __forceinline__ float rounded(float v)
{
    T stored;

    from_float(v, &stored);
    return to_float(stored);
}

template <int N, class T> static __device__ __forceinline__ void load(const T *p, float (&out)[N])
{
    if constexpr (N * sizeof(T) % 16 == 0) {
#pragma unroll
        for (int part = 0; part < int(N * sizeof(T) / 16); part++) {
            uint4 raw = reinterpret_cast<const uint4 *>(p)[part];
            const T *values = reinterpret_cast<const T *>(&raw);

#pragma unroll
            for (int k = 0; k < int(16 / sizeof(T)); k++)
                out[part * int(16 / sizeof(T)) + k] = to_float(values[k]);
        }
    } else {
        static_assert(N == 1, "a run fills 16 bytes or is one element");
        out[0] = to_float(*p);
    }
}

/* a + b from element i on, as it would be stored; b may be NULL. */
template <int N, class T>
static __device__ __forceinline__ void load_sum(const T *a, const T *b, size_t i, float (&out)[N])
{
    float other[N];

    load<N>(a + i, out);
    if (b == NULL)
        return;
    load<N>(b + i, other);
#pragma unroll
    for (int k = 0; k < N; k++)
        out[k] = rounded<T>(out[k] + other[k]);
}

/* Two elements of 16 bits as they lie in memory. */
static __device__ __forceinline__ unsigned pair_of(float low, float high, const __half *)
{
    __half2 pair = __floats2half2_rn(low, high);

    return *reinterpret_cast<unsigned *>(&pair);
}
static __device__ __forceinline__ unsigned pair_of(float low, float high, const __nv_bfloat16 *)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);

    return *reinterpret_cast<unsigned *>(&pair);
}

/* In so many words: nvcc 13 takes an assignment apart into four stores in some kernels. */
static __device__ __forceinline__ void store_words(void *p, uint4 words)
{
#ifdef CUDA_EMU
    *static_cast<uint4 *>(p) = words;
#else
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
                 "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
                 : "memory");
#endif
}

template <int N, class T> static __device__ __forceinline__ void store(T *p, const float (&v)[N])
{
    if constexpr (N == 1) {
        from_float(v[0], p);
    } else if constexpr (sizeof(T) == 4) {
        static_assert(N % 4 == 0, "a run fills 16 bytes or is one element");
#pragma unroll
        for (int k = 0; k < N; k += 4)
            *reinterpret_cast<float4 *>(p + k) = make_float4(v[k], v[k + 1], v[k + 2], v[k + 3]);
    } else {
        static_assert(N == 8, "a run fills 16 bytes or is one element");
        store_words(p, make_uint4(pair_of(v[0], v[1], p), pair_of(v[2], v[3], p),
                                  pair_of(v[4], v[5], p), pair_of(v[6], v[7], p)));
    }
}

/* ---- flat arrays of any length and alignment ----
 * [0, head) one by one, then `runs` runs that are aligned in every array, then the rest one by one.
 * Arrays that are never aligned together are all head. */
struct Span {
    size_t n, head, runs;
};

struct Array {
    const void *at;
    size_t elem_bytes;
};

template <int N, class... A> static Span span_of(size_t n, A... arrays)
{
    for (size_t head = 0; head < at_most(n, N); head++)
        if ((((reinterpret_cast<uintptr_t>(arrays.at) + head * arrays.elem_bytes) % 16 == 0) &&
             ...))
            return Span{n, head, (n - head) / N};
    return Span{n, n, 0};
}

template <class T> static Array array(const T *p)
{
    return Array{p, sizeof(T)};
}

/* op.template run<N>(i) for every run of the span; every element is in exactly one. */
template <int N, class Op> __global__ void __launch_bounds__(256) k_flat(Op op, Span s)
{
    size_t step = size_t(gridDim.x) * blockDim.x;
    size_t first = size_t(blockIdx.x) * blockDim.x + threadIdx.x;

    for (size_t r = first; r < s.runs; r += step)
        op.template run<N>(s.head + r * N);
    for (size_t k = first; k < s.n - s.runs * N; k += step)
        op.template run<1>(k < s.head ? k : k + s.runs * N);
}

enum { FLAT_BLOCK = 256, FLAT_MOST_BLOCKS = 2048 };

template <int N, class Op, class... A>
static cudaError_t launch_flat(cudaStream_t stream, size_t n, Op op, A... arrays)
{
    Span s = span_of<N>(n, arrays...);
    size_t work = s.runs > n - s.runs * N ? s.runs : n - s.runs * N;

    if (n == 0)
        return cudaSuccess;
    return launch(k_flat<N, Op>,
                  dim3(unsigned(at_most(divide_up(work, FLAT_BLOCK), FLAT_MOST_BLOCKS))),
                  dim3(FLAT_BLOCK), 0, stream, op, s);
}

#endif
