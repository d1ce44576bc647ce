/* Batch norm, backward: first the gradient through ReLU and addition with its two sums, then the
 * gradient of x and of the parameters. The sums are those of the gradient as it is stored, so that
 * the second half, which reads it again, takes out exactly its mean. */
#include "kernels/cuda/reduce.cuh"

/* ---- g, sum g, sum g xhat ---- */

template <class T> struct Gradient {
    const T *d_y, *d_y2, *relu_y;

    __device__ __forceinline__ void at(size_t i, float (&g)[GROUP]) const
    {
        float other[GROUP];

        load<GROUP>(d_y + i, g);
        if (d_y2 != NULL) {
            load<GROUP>(d_y2 + i, other);
#pragma unroll
            for (int k = 0; k < GROUP; k++)
                g[k] = rounded<T>(g[k] + other[k]);
        }
        if (relu_y != NULL) {
            load<GROUP>(relu_y + i, other);
#pragma unroll
            for (int k = 0; k < GROUP; k++)
                g[k] = other[k] <= 0 ? 0.0f : g[k];
        }
    }
};

/* parts: [segment][part][2][channels]. d_g NULL: g is d_y, nothing to write. */
template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_bn_backward_sums(Gradient<T> gradient, const T *x, Segments seg, size_t plane, int groups,
                       const float *moments, T *d_g, double *parts)
{
    DYN_SHARED(double, shared);
    int s = int(blockIdx.z), group = int(blockIdx.y * blockDim.x + threadIdx.x);
    size_t channels = size_t(groups) * GROUP, step = size_t(gridDim.x) * blockDim.y;
    size_t pixel = size_t(seg.first[s]) * plane;
    size_t end = pixel + size_t(seg.images[s]) * plane, channel = size_t(group) * GROUP;
    float mean[GROUP] = {};
    double sum[GROUP] = {}, sum_xhat[GROUP] = {};

    if (group < groups)
        load<GROUP>(moments + size_t(s) * 2 * channels + channel, mean);
    pixel += size_t(blockIdx.x) * blockDim.y + threadIdx.y;
    while (group < groups && pixel < end) {
        float a[GROUP] = {}, b[GROUP] = {};

#pragma unroll 2
        for (int count = 0; count < RUN && pixel < end; count++, pixel += step) {
            size_t at = pixel * channels + channel;
            float g[GROUP], v[GROUP];

            gradient.at(at, g);
            load<GROUP>(x + at, v);
#pragma unroll
            for (int k = 0; k < GROUP; k++) {
                a[k] += g[k];
                b[k] = fmaf(g[k], v[k] - mean[k], b[k]);
            }
            if (d_g != NULL)
                store<GROUP>(d_g + at, g);
        }
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            sum[k] += double(a[k]);
            sum_xhat[k] += double(b[k]);
        }
    }
    add_rows(shared, sum);
    add_rows(shared, sum_xhat);
    if (threadIdx.y == 0 && group < groups) {
        double *out = parts + (size_t(s) * gridDim.x + blockIdx.x) * 2 * channels + channel;
        float rstd[GROUP];

        load<GROUP>(moments + (size_t(s) * 2 + 1) * channels + channel, rstd);
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            out[k] = sum[k];
            out[channels + k] = sum_xhat[k] * double(rstd[k]);
        }
    }
}
EMU_KERNEL(k_bn_backward_sums<float>)
EMU_KERNEL(k_bn_backward_sums<__half>)
EMU_KERNEL(k_bn_backward_sums<__nv_bfloat16>)

template <class T>
static cudaError_t bn_backward_sums(struct apd_shape shape, const struct apd_cuda_segments *seg,
                                    const Gradient<T> &gradient, const T *x, const float *moments,
                                    T *d_g, double *d_sums, double *scratch, cudaStream_t stream)
{
    int channels = rounded_channels(shape.c);
    Tile t = tile_of(channels);
    size_t plane = size_t(shape.h) * size_t(shape.w), row = 2 * size_t(channels);
    size_t parts = parts_for(t, seg->count, largest_segment(seg) * plane, RUN);
    size_t shared = size_t(t.cols) * size_t(t.rows) * GROUP * sizeof(double);
    bool same = d_g == gradient.d_y && gradient.d_y2 == NULL && gradient.relu_y == NULL;

    for (int from = 0; from < seg->count; from += LAUNCH_SEGMENTS) {
        Segments some;
        int count = segments_from(seg, from, NULL, &some);
        cudaError_t status =
            launch(k_bn_backward_sums<T>, dim3(unsigned(parts), unsigned(t.tiles), unsigned(count)),
                   dim3(unsigned(t.cols), unsigned(t.rows)), shared, stream, gradient, x, some,
                   plane, t.groups, moments + size_t(from) * row, same ? NULL : d_g,
                   scratch + size_t(from) * parts * row);

        if (status != cudaSuccess)
            return status;
    }
    return apd_cuda_add_parts(seg->count, int(parts), int(row), scratch, d_sums, row, stream);
}

extern "C" cudaError_t apd_cuda_bn_backward_sums(enum apd_cuda_type type, struct apd_shape shape,
                                                 const struct apd_cuda_segments *seg,
                                                 const void *d_y, const void *d_y2,
                                                 const void *relu_y, const void *x,
                                                 const float *moments, void *d_g, double *d_sums,
                                                 void *scratch, cudaStream_t stream)
{
    FOR_TYPE(type,
             bn_backward_sums(shape, seg,
                              Gradient<T>{static_cast<const T *>(d_y), static_cast<const T *>(d_y2),
                                          static_cast<const T *>(relu_y)},
                              static_cast<const T *>(x), moments, static_cast<T *>(d_g), d_sums,
                              static_cast<double *>(scratch), stream))
}

/* ---- d_x ---- */

template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_bn_backward_data(const T *d_g, const T *x, Segments seg, size_t plane, int groups,
                       const float *moments, apd_cuda_sets gamma, const double *d_sums,
                       int batch_stats, T *d_x)
{
    int s = int(blockIdx.z), group = int(blockIdx.y * blockDim.x + threadIdx.x);
    size_t channels = size_t(groups) * GROUP, channel = size_t(group) * GROUP;
    size_t image = plane * channels, at = size_t(seg.first[s]) * image;
    size_t end = at + size_t(seg.images[s]) * image;
    size_t step = size_t(gridDim.x) * blockDim.y * channels;
    size_t row = size_t(s) * 2 * channels + channel;
    float mean[GROUP], scale[GROUP], mean_g[GROUP] = {}, slope[GROUP] = {};

    if (group >= groups)
        return;
    load<GROUP>(moments + row, mean);
    load<GROUP>(moments + row + channels, scale);
    if (batch_stats)
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            mean_g[k] = float(d_sums[row + k] / seg.number[s]);
            slope[k] = float(double(scale[k]) * d_sums[row + channels + k] / seg.number[s]);
        }
#pragma unroll
    for (int k = 0; k < GROUP; k++)
        scale[k] *= of_set(gamma.at, seg.set[s])[channel + k];
    at += (size_t(blockIdx.x) * blockDim.y + threadIdx.y) * channels + channel;
    for (; at < end; at += step) {
        float g[GROUP], v[GROUP];

        load<GROUP>(d_g + at, g);
        if (batch_stats) {
            load<GROUP>(x + at, v);
#pragma unroll
            for (int k = 0; k < GROUP; k++)
                g[k] = fmaf(-(v[k] - mean[k]), slope[k], g[k] - mean_g[k]);
        }
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            g[k] *= scale[k];
        store<GROUP>(d_x + at, g);
    }
}
EMU_KERNEL(k_bn_backward_data<float>)
EMU_KERNEL(k_bn_backward_data<__half>)
EMU_KERNEL(k_bn_backward_data<__nv_bfloat16>)

template <class T>
static cudaError_t bn_backward_data(struct apd_shape shape, const struct apd_cuda_segments *seg,
                                    const T *d_g, const T *x, const float *moments,
                                    const struct apd_cuda_sets *gamma, const double *d_sums,
                                    const double *count, int batch_stats, T *d_x,
                                    cudaStream_t stream)
{
    int channels = rounded_channels(shape.c);
    Tile t = tile_of(channels);
    size_t plane = size_t(shape.h) * size_t(shape.w), row = 2 * size_t(channels);
    size_t parts = parts_for(t, seg->count, largest_segment(seg) * plane, 4);

    for (int from = 0; from < seg->count; from += LAUNCH_SEGMENTS) {
        Segments some;
        int segments = segments_from(seg, from, count, &some);
        cudaError_t status = launch(
            k_bn_backward_data<T>, dim3(unsigned(parts), unsigned(t.tiles), unsigned(segments)),
            dim3(unsigned(t.cols), unsigned(t.rows)), 0, stream, d_g, x, some, plane, t.groups,
            moments + size_t(from) * row, *gamma, d_sums + size_t(from) * row, batch_stats, d_x);

        if (status != cudaSuccess)
            return status;
    }
    return cudaSuccess;
}

extern "C" cudaError_t apd_cuda_bn_backward_data(
    enum apd_cuda_type type, struct apd_shape shape, const struct apd_cuda_segments *seg,
    const void *d_g, const void *x, const float *moments, const struct apd_cuda_sets *gamma,
    const double *d_sums, const double *count, int batch_stats, void *d_x, cudaStream_t stream)
{
    FOR_TYPE(type, bn_backward_data(shape, seg, static_cast<const T *>(d_g),
                                    static_cast<const T *>(x), moments, gamma, d_sums, count,
                                    batch_stats, static_cast<T *>(d_x), stream))
}

/* ---- parameters ---- */

struct ParamGradients {
    float *d_gamma[APD_BN_SETS], *d_beta[APD_BN_SETS];
};

/* Segments in ascending order, each rounded to float, as in kernels/ref. */
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_bn_backward_params(int channels, int count, Segments seg, const double *d_sums,
                         ParamGradients to)
{
    int k = int(blockIdx.x * blockDim.x + threadIdx.x);

    if (k >= channels)
        return;
    for (int s = 0; s < count; s++, d_sums += 2 * size_t(channels)) {
        float *d_gamma = of_set(to.d_gamma, seg.set[s]), *d_beta = of_set(to.d_beta, seg.set[s]);

        if (seg.images[s] == 0)
            continue;
        d_gamma[k] = float(double(d_gamma[k]) + d_sums[channels + k]);
        d_beta[k] = float(double(d_beta[k]) + d_sums[k]);
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
            launch(k_bn_backward_params, dim3(unsigned(divide_up(size_t(channels), BLOCK_THREADS))),
                   dim3(BLOCK_THREADS), 0, stream, channels, count, some,
                   d_sums + size_t(from) * 2 * size_t(channels), to);

        if (status != cudaSuccess)
            return status;
    }
    return cudaSuccess;
}
