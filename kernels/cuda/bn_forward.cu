/* Batch norm, forward: y = act((x - mean) * rstd * gamma + beta + add). */
#include "kernels/cuda/reduce.cuh"

/* Grid: part of the pixels, tile of channels, segment. */
template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_bn_forward(const T *x, Segments seg, size_t plane, int groups, const float *moments,
                 apd_cuda_sets gamma, apd_cuda_sets beta, const T *add, int relu, T *y)
{
    int s = int(blockIdx.z), group = int(blockIdx.y * blockDim.x + threadIdx.x);
    size_t channels = size_t(groups) * GROUP, channel = size_t(group) * GROUP;
    size_t image = plane * channels, at = size_t(seg.first[s]) * image;
    size_t end = at + size_t(seg.images[s]) * image;
    size_t step = size_t(gridDim.x) * blockDim.y * channels;
    float mean[GROUP], scale[GROUP], shift[GROUP];

    if (group >= groups)
        return;
    load<GROUP>(moments + size_t(s) * 2 * channels + channel, mean);
    load<GROUP>(moments + (size_t(s) * 2 + 1) * channels + channel, scale);
    load<GROUP>(of_set(gamma.at, seg.set[s]) + channel, shift);
#pragma unroll
    for (int k = 0; k < GROUP; k++)
        scale[k] *= shift[k];
    load<GROUP>(of_set(beta.at, seg.set[s]) + channel, shift);
    at += (size_t(blockIdx.x) * blockDim.y + threadIdx.y) * channels + channel;
    for (; at < end; at += step) {
        float v[GROUP], more[GROUP];

        load<GROUP>(x + at, v);
        if (add != NULL)
            load<GROUP>(add + at, more);
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            v[k] = fmaf(v[k] - mean[k], scale[k], shift[k]);
            if (add != NULL)
                v[k] += more[k];
            v[k] = relu && v[k] < 0 ? 0.0f : v[k]; /* NaN stays */
        }
        store<GROUP>(y + at, v);
    }
}
EMU_KERNEL(k_bn_forward<float>)
EMU_KERNEL(k_bn_forward<__half>)
EMU_KERNEL(k_bn_forward<__nv_bfloat16>)

template <class T>
static cudaError_t bn_forward(struct apd_shape shape, const struct apd_cuda_segments *seg,
                              const T *x, const float *moments, const struct apd_cuda_sets *gamma,
                              const struct apd_cuda_sets *beta, const T *add, int relu, T *y,
                              cudaStream_t stream)
{
    int channels = rounded_channels(shape.c);
    Tile t = tile_of(channels);
    size_t plane = size_t(shape.h) * size_t(shape.w);
    size_t parts = parts_for(t, seg->count, largest_segment(seg) * plane, 4);

    for (int from = 0; from < seg->count; from += LAUNCH_SEGMENTS) {
        Segments some;
        int count = segments_from(seg, from, NULL, &some);
        cudaError_t status =
            launch(k_bn_forward<T>, dim3(unsigned(parts), unsigned(t.tiles), unsigned(count)),
                   dim3(unsigned(t.cols), unsigned(t.rows)), 0, stream, x, some, plane, t.groups,
                   moments + size_t(from) * 2 * size_t(channels), *gamma, *beta, add, relu, y);

        if (status != cudaSuccess)
            return status;
    }
    return cudaSuccess;
}

extern "C" cudaError_t apd_cuda_bn_forward(enum apd_cuda_type type, struct apd_shape shape,
                                           const struct apd_cuda_segments *seg, const void *x,
                                           const float *moments, const struct apd_cuda_sets *gamma,
                                           const struct apd_cuda_sets *beta, const void *add,
                                           int relu, void *y, cudaStream_t stream)
{
    FOR_TYPE(type, bn_forward(shape, seg, static_cast<const T *>(x), moments, gamma, beta,
                              static_cast<const T *>(add), relu, static_cast<T *>(y), stream))
}
