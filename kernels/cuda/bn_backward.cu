/* Batch norm, backward: first the gradient through ReLU and addition with its two sums, then the
 * gradient of x and of the parameters. The sums are those of the gradient as it is stored, so that
 * the second half, which reads it again, takes out exactly its mean. */
#include "kernels/cuda/bn.cuh"

/* ---- g, sum g, sum g xhat ---- */

/* What is not needed must not take registers: parameters to remake ReLU, sums of a second layer. */
enum { PLAIN, REMADE, TWO };

template <class T> struct Gradient {
    const T *d_y, *d_y2;
    const uint8_t *mask; /* NULL if it is not what says it */

    __device__ __forceinline__ void at(size_t i, float (&g)[GROUP]) const
    {
        load_sum<GROUP>(d_y, d_y2, i, g);
        if (mask != NULL) {
            unsigned passing = mask[i / GROUP];

#pragma unroll
            for (int k = 0; k < GROUP; k++)
                g[k] = passing >> k & 1 ? g[k] : 0.0f;
        }
    }
};

/* parts: [segment][part][2][channels]. d_g NULL: g is d_y, nothing to write. */
template <class T, int Way>
__global__ void __launch_bounds__(BLOCK_THREADS, 2)
    k_bn_backward_sums(Gradient<T> gradient, Norm<T> bn, Norm<T> other, Segments seg, size_t plane,
                       int groups, T *d_g, double *parts, double *parts_other)
{
    DYN_SHARED(double, shared);
    Walk w = walk_over(seg, plane, groups);
    Affine affine = {};
    float mean_other[GROUP] = {};
    LongSum sum, sum_x, sum_other;

    sum.begin(shared, 0);
    sum_x.begin(shared, 1);
    if (Way == TWO)
        sum_other.begin(shared, 2);
    if (w.group < groups && Way == REMADE)
        affine.take(bn, w, seg.set[w.s]);
    else if (w.group < groups)
        load<GROUP>(bn.moments + w.row, affine.mean);
    if (w.group < groups && Way == TWO)
        load<GROUP>(other.moments + w.row, mean_other);
    while (w.group < groups && w.at < w.end) {
#pragma unroll 2
        for (int count = 0; count < RUN && w.at < w.end; count++, w.at += w.step) {
            float g[GROUP], v[GROUP];

            gradient.at(w.at, g);
            load<GROUP>(bn.x + w.at, v);
#pragma unroll
            for (int k = 0; k < GROUP; k++) {
                if (Way == REMADE && !passes<T>(affine.y(v[k], k)))
                    g[k] = 0;
                sum.run[k] += g[k];
                sum_x.run[k] = fmaf(g[k], v[k] - affine.mean[k], sum_x.run[k]);
            }
            if (Way == TWO) {
                load<GROUP>(other.x + w.at, v);
#pragma unroll
                for (int k = 0; k < GROUP; k++)
                    sum_other.run[k] = fmaf(g[k], v[k] - mean_other[k], sum_other.run[k]);
            }
            if (d_g != NULL)
                store<GROUP>(d_g + w.at, g);
        }
        sum.end_run();
        sum_x.end_run();
        if (Way == TWO)
            sum_other.end_run();
    }
    add_rows(sum.all);
    add_rows(sum_x.all);
    if (Way == TWO)
        add_rows(sum_other.all);
    if (threadIdx.y == 0 && w.group < groups) {
        put_sums(bn, w, sum, sum_x, parts);
        if (Way == TWO)
            put_sums(other, w, sum, sum_other, parts_other);
    }
}
EMU_KERNEL(k_bn_backward_sums<float, PLAIN>)
EMU_KERNEL(k_bn_backward_sums<__half, PLAIN>)
EMU_KERNEL(k_bn_backward_sums<__nv_bfloat16, PLAIN>)
EMU_KERNEL(k_bn_backward_sums<float, REMADE>)
EMU_KERNEL(k_bn_backward_sums<__half, REMADE>)
EMU_KERNEL(k_bn_backward_sums<__nv_bfloat16, REMADE>)
EMU_KERNEL(k_bn_backward_sums<float, TWO>)
EMU_KERNEL(k_bn_backward_sums<__half, TWO>)
EMU_KERNEL(k_bn_backward_sums<__nv_bfloat16, TWO>)

template <class T>
static Gradient<T> gradient_of(const struct apd_cuda_relu *relu, const void *d_y, const void *d_y2)
{
    return Gradient<T>{static_cast<const T *>(d_y), static_cast<const T *>(d_y2),
                       relu->by == APD_CUDA_RELU_MASK ? relu->mask : NULL};
}

template <class T>
static cudaError_t bn_backward_sums(const struct apd_cuda_bn *bn, const struct apd_cuda_relu *relu,
                                    const void *d_y, const void *d_y2, void *d_g, double *d_sums,
                                    const struct apd_cuda_bn *other, double *d_sums_other,
                                    double *scratch, cudaStream_t stream)
{
    Layout l = layout_of(bn->shape, bn->seg, plane_of(bn->shape), RUN);
    Gradient<T> gradient = gradient_of<T>(relu, d_y, d_y2);
    bool same = d_g == d_y && d_y2 == NULL && relu->by == APD_CUDA_RELU_NONE;
    double *scratch_other = scratch + size_t(bn->seg->count) * l.parts * l.row;
    auto kernel = other != NULL                      ? k_bn_backward_sums<T, TWO>
                  : relu->by == APD_CUDA_RELU_REMADE ? k_bn_backward_sums<T, REMADE>
                                                     : k_bn_backward_sums<T, PLAIN>;
    auto launch_some = [&](int from, int count, const Segments &some) {
        size_t offset = size_t(from) * l.parts * l.row;

        return launch(kernel, l.grid(count), l.block(), l.sums_bytes(other != NULL ? 3 : 2), stream,
                      gradient, norm_of<T>(bn, from), norm_of<T>(other, from), some, l.plane,
                      l.tile.groups, same ? NULL : static_cast<T *>(d_g), scratch + offset,
                      scratch_other + offset);
    };
    cudaError_t status = for_segments(bn->seg, NULL, launch_some);

    if (status == cudaSuccess)
        status = apd_cuda_add_parts(bn->seg->count, int(l.parts), int(l.row), scratch, d_sums,
                                    l.row, stream);
    if (status == cudaSuccess && other != NULL)
        status = apd_cuda_add_parts(bn->seg->count, int(l.parts), int(l.row), scratch_other,
                                    d_sums_other, l.row, stream);
    return status;
}

extern "C" cudaError_t apd_cuda_bn_backward_sums(const struct apd_cuda_bn *bn,
                                                 const struct apd_cuda_relu *relu, const void *d_y,
                                                 const void *d_y2, void *d_g, double *d_sums,
                                                 const struct apd_cuda_bn *other,
                                                 double *d_sums_other, void *scratch,
                                                 cudaStream_t stream)
{
    if (other != NULL && relu->by == APD_CUDA_RELU_REMADE)
        return cudaErrorInvalidValue;
    FOR_TYPE(bn->type, bn_backward_sums<T>(bn, relu, d_y, d_y2, d_g, d_sums, other, d_sums_other,
                                           static_cast<double *>(scratch), stream))
}

/* ---- d_x ---- */

/* Quotients in double, which are slow: one row of threads makes them for its block. Only with batch
 * statistics; in shared memory, [.][GROUP][columns]. */
enum { MEAN_G, SLOPE, SLOPE_OTHER };

static __device__ __forceinline__ float &shared_quotient(float *quotients, int which, int k)
{
    return quotients[(which * GROUP + k) * int(blockDim.x) + int(threadIdx.x)];
}

static __device__ __forceinline__ void put_mean_g(const Walk &w, const Segments &seg,
                                                  const double *d_sums, float *quotients)
{
#pragma unroll
    for (int k = 0; k < GROUP; k++)
        shared_quotient(quotients, MEAN_G, k) = float(d_sums[w.row + k] / seg.number[w.s]);
}

template <class T>
static __device__ __forceinline__ void put_slope(const Norm<T> &bn, const Walk &w,
                                                 const Segments &seg, const double *d_sums,
                                                 float *quotients, int which)
{
    float rstd[GROUP];

    load<GROUP>(bn.moments + w.row + w.channels, rstd);
#pragma unroll
    for (int k = 0; k < GROUP; k++)
        shared_quotient(quotients, which, k) =
            float(double(rstd[k]) * d_sums[w.row + w.channels + k] / seg.number[w.s]);
}

/* d_x = (g - mean g - (x - mean) * slope) * scale; the mean of g is the same for two layers. */
struct Slope {
    float mean[GROUP], slope[GROUP], scale[GROUP];

    template <class T>
    __device__ __forceinline__ void take(const Norm<T> &bn, const Walk &w, int set,
                                         float *quotients, int which)
    {
        float gamma[GROUP];

        load<GROUP>(bn.moments + w.row, mean);
        load<GROUP>(bn.moments + w.row + w.channels, scale);
        load<GROUP>(of_set(bn.gamma.at, set) + w.channel, gamma);
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            slope[k] = shared_quotient(quotients, which, k);
            scale[k] *= gamma[k];
        }
    }

    __device__ __forceinline__ float d_x(float g, float x, int k) const
    {
        return fmaf(-(x - mean[k]), slope[k], g) * scale[k];
    }
};

template <class T, bool Two>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_bn_backward_data(const T *d_g, Norm<T> bn, Norm<T> other, Segments seg, size_t plane,
                       int groups, const double *d_sums, const double *d_sums_other,
                       int batch_stats, T *d_x, T *d_x_other)
{
    DYN_SHARED(float, quotients);
    Walk w = walk_over(seg, plane, groups);
    Slope slope, slope2;
    float mean_g[GROUP];

    if (threadIdx.y == 0 && w.group < groups && batch_stats) {
        put_mean_g(w, seg, d_sums, quotients);
        put_slope(bn, w, seg, d_sums, quotients, SLOPE);
        if (Two)
            put_slope(other, w, seg, d_sums_other, quotients, SLOPE_OTHER);
    }
    __syncthreads();
    if (w.group >= groups)
        return;
    slope.take(bn, w, seg.set[w.s], quotients, SLOPE);
    if (Two)
        slope2.take(other, w, seg.set[w.s], quotients, SLOPE_OTHER);
#pragma unroll
    for (int k = 0; k < GROUP; k++)
        mean_g[k] = shared_quotient(quotients, MEAN_G, k);
    for (; w.at < w.end; w.at += w.step) {
        float g[GROUP], v[GROUP], v2[GROUP];

        load<GROUP>(d_g + w.at, g);
        if (batch_stats) {
            load<GROUP>(bn.x + w.at, v);
            if (Two)
                load<GROUP>(other.x + w.at, v2);
        }
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            v[k] = batch_stats ? slope.d_x(g[k] - mean_g[k], v[k], k) : g[k] * slope.scale[k];
            if (Two)
                v2[k] =
                    batch_stats ? slope2.d_x(g[k] - mean_g[k], v2[k], k) : g[k] * slope2.scale[k];
        }
        store<GROUP>(d_x + w.at, v);
        if (Two)
            store<GROUP>(d_x_other + w.at, v2);
    }
}
EMU_KERNEL(k_bn_backward_data<float, false>)
EMU_KERNEL(k_bn_backward_data<__half, false>)
EMU_KERNEL(k_bn_backward_data<__nv_bfloat16, false>)
EMU_KERNEL(k_bn_backward_data<float, true>)
EMU_KERNEL(k_bn_backward_data<__half, true>)
EMU_KERNEL(k_bn_backward_data<__nv_bfloat16, true>)

template <class T>
static cudaError_t
bn_backward_data(const struct apd_cuda_bn *bn, const void *d_g, const double *d_sums,
                 const double *count, int batch_stats, void *d_x, const struct apd_cuda_bn *other,
                 const double *d_sums_other, void *d_x_other, cudaStream_t stream)
{
    Layout l = layout_of(bn->shape, bn->seg, plane_of(bn->shape), FEW_PIXELS);
    auto kernel = other != NULL ? k_bn_backward_data<T, true> : k_bn_backward_data<T, false>;
    size_t quotients = size_t(other != NULL ? 3 : 2) * GROUP * size_t(l.tile.cols) * sizeof(float);

    return for_segments(bn->seg, count, [&](int from, int segments, const Segments &some) {
        size_t offset = size_t(from) * l.row;

        return launch(kernel, l.grid(segments), l.block(), quotients, stream,
                      static_cast<const T *>(d_g), norm_of<T>(bn, from), norm_of<T>(other, from),
                      some, l.plane, l.tile.groups, d_sums + offset,
                      other != NULL ? d_sums_other + offset : NULL, batch_stats,
                      static_cast<T *>(d_x), static_cast<T *>(d_x_other));
    });
}

extern "C" cudaError_t apd_cuda_bn_backward_data(const struct apd_cuda_bn *bn, const void *d_g,
                                                 const double *d_sums, const double *count,
                                                 int batch_stats, void *d_x,
                                                 const struct apd_cuda_bn *other,
                                                 const double *d_sums_other, void *d_x_other,
                                                 cudaStream_t stream)
{
    FOR_TYPE(bn->type, bn_backward_data<T>(bn, d_g, d_sums, count, batch_stats, d_x, other,
                                           d_sums_other, d_x_other, stream))
}

/* ---- parameters ---- */

struct ParamGradients {
    float *d_gamma[APD_BN_SETS], *d_beta[APD_BN_SETS];
};

/* Segments in ascending order, each rounded to float, as in kernels/ref. Grid: channels, set. A set
 * that no segment has is not touched. */
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_bn_backward_params(int channels, int count, Segments seg, const double *d_sums,
                         ParamGradients to)
{
    int k = int(blockIdx.x * blockDim.x + threadIdx.x), set = int(blockIdx.y);
    float *d_gamma = of_set(to.d_gamma, set), *d_beta = of_set(to.d_beta, set);
    float gamma = 0, beta = 0;
    bool any = false;

    if (k >= channels)
        return;
    for (int s = 0; s < count; s++, d_sums += 2 * size_t(channels)) {
        if (seg.set[s] != set || seg.images[s] == 0)
            continue;
        gamma = float(double(any ? gamma : d_gamma[k]) + d_sums[channels + k]);
        beta = float(double(any ? beta : d_beta[k]) + d_sums[k]);
        any = true;
    }
    if (any) {
        d_gamma[k] = gamma;
        d_beta[k] = beta;
    }
}
EMU_KERNEL(k_bn_backward_params)

extern "C" cudaError_t apd_cuda_bn_backward_params(int c, const struct apd_cuda_segments *seg,
                                                   const double *d_sums,
                                                   float *const d_gamma[APD_BN_SETS],
                                                   float *const d_beta[APD_BN_SETS],
                                                   cudaStream_t stream)
{
    int channels = rounded_channels(c);
    ParamGradients to;

    for (int set = 0; set < APD_BN_SETS; set++) {
        to.d_gamma[set] = d_gamma[set];
        to.d_beta[set] = d_beta[set];
    }
    for (int from = 0; from < seg->count; from += LAUNCH_SEGMENTS) {
        Segments some;
        int count = segments_from(seg, from, NULL, &some);
        cudaError_t status =
            launch(k_bn_backward_params,
                   dim3(unsigned(divide_up(size_t(channels), BLOCK_THREADS)), APD_BN_SETS),
                   dim3(BLOCK_THREADS), 0, stream, channels, count, some,
                   d_sums + size_t(from) * 2 * size_t(channels), to);

        if (status != cudaSuccess)
            return status;
    }
    return cudaSuccess;
}
