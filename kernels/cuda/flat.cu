/* Elementwise work on flat arrays: any length, any alignment of its elements. */
#include "kernels/cuda/reduce.cuh"

enum { DOUBLES = 2, FLOATS = 4, ELEMENTS = 8 };

template <class T> struct Cast {
    const float *src;
    T *dst;

    template <int N> __device__ void run(size_t i) const
    {
        float v[N];

        load<N>(src + i, v);
        store<N>(dst + i, v);
    }
};
EMU_KERNEL(k_flat<ELEMENTS, Cast<float>>)
EMU_KERNEL(k_flat<ELEMENTS, Cast<__half>>)
EMU_KERNEL(k_flat<ELEMENTS, Cast<__nv_bfloat16>>)

/* dst += src; S and D are stored, the sum is float. */
template <class S, class D> struct Accumulate {
    const S *src;
    D *dst;

    template <int N> __device__ void run(size_t i) const
    {
        float v[N], sum[N];

        load<N>(src + i, v);
        load<N>(dst + i, sum);
#pragma unroll
        for (int k = 0; k < N; k++)
            sum[k] += v[k];
        store<N>(dst + i, sum);
    }
};
EMU_KERNEL(k_flat<ELEMENTS, Accumulate<float, float>>)
EMU_KERNEL(k_flat<ELEMENTS, Accumulate<__half, float>>)
EMU_KERNEL(k_flat<ELEMENTS, Accumulate<__nv_bfloat16, float>>)
EMU_KERNEL(k_flat<ELEMENTS, Accumulate<__half, __half>>)
EMU_KERNEL(k_flat<ELEMENTS, Accumulate<__nv_bfloat16, __nv_bfloat16>>)

struct Sgd {
    const float *d_w;
    float *w, *m;
    float scale, lr, momentum, weight_decay;
    int nesterov;

    template <int N> __device__ void update(size_t i, float (&weight)[N]) const
    {
        float g[N], v[N];

        load<N>(d_w + i, g);
        load<N>(w + i, weight);
        load<N>(m + i, v);
#pragma unroll
        for (int k = 0; k < N; k++) {
            g[k] = fmaf(weight_decay, weight[k], scale * g[k]);
            v[k] = fmaf(momentum, v[k], g[k]);
            weight[k] = fmaf(-lr, nesterov ? fmaf(momentum, v[k], g[k]) : v[k], weight[k]);
        }
        store<N>(m + i, v);
        store<N>(w + i, weight);
    }

    template <int N> __device__ void run(size_t i) const
    {
        float weight[N];

        update<N>(i, weight);
    }
};
EMU_KERNEL(k_flat<FLOATS, Sgd>)

template <class T> struct SgdCopy {
    Sgd sgd;
    T *copy;

    template <int N> __device__ void run(size_t i) const
    {
        float weight[N];

        sgd.update<N>(i, weight);
        store<N>(copy + i, weight);
    }
};
EMU_KERNEL(k_flat<ELEMENTS, SgdCopy<float>>)
EMU_KERNEL(k_flat<ELEMENTS, SgdCopy<__half>>)
EMU_KERNEL(k_flat<ELEMENTS, SgdCopy<__nv_bfloat16>>)

/* In double: with a decay near 1 the change is far below the value. */
struct Average {
    double decay;
    const float *x;
    float *a;

    template <int N> __device__ void run(size_t i) const
    {
        float v[N], average[N];

        load<N>(x + i, v);
        load<N>(a + i, average);
#pragma unroll
        for (int k = 0; k < N; k++)
            average[k] = float(decay * double(average[k]) + (1 - decay) * double(v[k]));
        store<N>(a + i, average);
    }
};
EMU_KERNEL(k_flat<FLOATS, Average>)

struct AddDoubles {
    const double *src;
    double *dst;

    template <int N> __device__ void run(size_t i) const
    {
        if constexpr (N == 2) {
            double2 v = *reinterpret_cast<const double2 *>(src + i);
            double2 sum = *reinterpret_cast<const double2 *>(dst + i);

            *reinterpret_cast<double2 *>(dst + i) = make_double2(sum.x + v.x, sum.y + v.y);
        } else {
            dst[i] += src[i];
        }
    }
};
EMU_KERNEL(k_flat<DOUBLES, AddDoubles>)

/* ---- anything infinite or NaN ---- */

/* Whether any thread of the block says so; known to thread 0. shared: one int a warp. */
static __device__ bool any_of_block(bool mine, int *shared)
{
    bool any = false;

    mine = __ballot_sync(0xffffffffu, mine) != 0;
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = mine;
    __syncthreads();
    for (unsigned w = 0; threadIdx.x == 0 && w < blockDim.x / 32; w++)
        any |= shared[w] != 0;
    return any;
}

template <int N> static __device__ __forceinline__ bool nonfinite_run(const float *x)
{
    float v[N];
    bool bad = false;

    load<N>(x, v);
#pragma unroll
    for (int k = 0; k < N; k++)
        bad |= !(fabsf(v[k]) <= 3.402823466e38f);
    return bad;
}

__global__ void __launch_bounds__(FLAT_BLOCK) k_nonfinite(const float *x, Span s, int *parts)
{
    DYN_SHARED(int, shared);
    size_t step = size_t(gridDim.x) * blockDim.x;
    size_t first = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    bool bad = false;

    for (size_t r = first; r < s.runs; r += step)
        bad |= nonfinite_run<FLOATS>(x + s.head + r * FLOATS);
    for (size_t k = first; k < s.n - s.runs * FLOATS; k += step)
        bad |= nonfinite_run<1>(x + (k < s.head ? k : k + s.runs * FLOATS));
    bad = any_of_block(bad, shared);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = bad;
}
EMU_KERNEL(k_nonfinite)

__global__ void __launch_bounds__(FLAT_BLOCK)
    k_nonfinite_parts(int count, const int *parts, double *bad)
{
    DYN_SHARED(int, shared);
    bool any = false;

    for (int k = int(threadIdx.x); k < count; k += int(blockDim.x))
        any |= parts[k] != 0;
    any = any_of_block(any, shared);
    if (threadIdx.x == 0)
        *bad = any;
}
EMU_KERNEL(k_nonfinite_parts)

extern "C" cudaError_t apd_cuda_nonfinite(size_t n, const float *x, double *bad, void *scratch,
                                          cudaStream_t stream)
{
    Span s = span_of<FLOATS>(n, array(x));
    size_t blocks = at_most(divide_up(n, FLAT_BLOCK * FLOATS), MOST_PARTS);
    size_t shared = FLAT_BLOCK / 32 * sizeof(int);
    int *parts = static_cast<int *>(scratch);
    cudaError_t status = cudaSuccess;

    if (blocks > 0)
        status = launch(k_nonfinite, dim3(unsigned(blocks)), dim3(FLAT_BLOCK), shared, stream, x, s,
                        parts);
    if (status != cudaSuccess)
        return status;
    return launch(k_nonfinite_parts, dim3(1), dim3(FLAT_BLOCK), shared, stream, int(blocks),
                  static_cast<const int *>(parts), bad);
}

/* ---- launchers ---- */

template <class T> static cudaError_t cast(size_t n, const float *src, T *dst, cudaStream_t stream)
{
    return launch_flat<ELEMENTS>(stream, n, Cast<T>{src, dst}, array(src), array(dst));
}

template <class S, class D>
static cudaError_t accumulate(size_t n, const S *src, D *dst, cudaStream_t stream)
{
    return launch_flat<ELEMENTS>(stream, n, Accumulate<S, D>{src, dst}, array(src), array(dst));
}

template <class T> static cudaError_t sgd_copy(size_t n, Sgd op, T *copy, cudaStream_t stream)
{
    return launch_flat<ELEMENTS>(stream, n, SgdCopy<T>{op, copy}, array(op.d_w), array(op.w),
                                 array(op.m), array(copy));
}

extern "C" cudaError_t apd_cuda_cast(enum apd_cuda_type type, size_t n, const float *src, void *dst,
                                     cudaStream_t stream)
{
    FOR_TYPE(type, cast(n, src, static_cast<T *>(dst), stream))
}

extern "C" cudaError_t apd_cuda_accumulate(enum apd_cuda_type type, size_t n, const void *src,
                                           float *dst, cudaStream_t stream)
{
    FOR_TYPE(type, accumulate(n, static_cast<const T *>(src), dst, stream))
}

extern "C" cudaError_t apd_cuda_add(enum apd_cuda_type type, size_t n, const void *src, void *dst,
                                    cudaStream_t stream)
{
    FOR_TYPE(type, accumulate(n, static_cast<const T *>(src), static_cast<T *>(dst), stream))
}

extern "C" cudaError_t apd_cuda_add_doubles(size_t n, const double *src, double *dst,
                                            cudaStream_t stream)
{
    return launch_flat<DOUBLES>(stream, n, AddDoubles{src, dst}, array(src), array(dst));
}

extern "C" cudaError_t apd_cuda_sgd(enum apd_cuda_type type, size_t n, const struct apd_sgd *sgd,
                                    const float *d_w, float *w, float *m, void *copy,
                                    cudaStream_t stream)
{
    Sgd op = {d_w,
              w,
              m,
              float(sgd->grad_scale),
              float(sgd->lr),
              float(sgd->momentum),
              float(sgd->weight_decay),
              sgd->nesterov};

    if (copy == nullptr)
        return launch_flat<FLOATS>(stream, n, op, array(d_w), array(w), array(m));
    FOR_TYPE(type, sgd_copy(n, op, static_cast<T *>(copy), stream))
}

extern "C" cudaError_t apd_cuda_average(size_t n, double decay, const float *x, float *a,
                                        cudaStream_t stream)
{
    return launch_flat<FLOATS>(stream, n, Average{decay, x, a}, array(x), array(a));
}
