/* Pooling. A thread has the 8 channels of one pixel; the maximum is 3x3, stride 2, padding 1. */
#include "kernels/cuda/pool.cuh"

enum { MOST_IMAGES = 65535 };

/* Blocks of (groups of channels, pixels); grid: part of the pixels, tile, image. */
static dim3 pool_grid(const Tile &t, size_t pixels, int n, size_t pixels_each)
{
    size_t parts = divide_up(pixels, size_t(t.rows) * pixels_each);

    return dim3(unsigned(at_most(parts, 65535)), unsigned(t.tiles),
                unsigned(at_most(size_t(n), MOST_IMAGES)));
}

static dim3 pool_block(const Tile &t)
{
    return dim3(unsigned(t.cols), unsigned(t.rows));
}

/* ---- maximum ---- */

template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_maxpool_forward(int n, Plane p, const T *src, T *dst, uint8_t *which)
{
    int group = int(blockIdx.y * blockDim.x + threadIdx.x), out_pixels = p.out_h * p.out_w;
    size_t channels = size_t(p.groups) * GROUP, in_pixels = size_t(p.h) * size_t(p.w);

    if (group >= p.groups)
        return;
    for (size_t i = blockIdx.z; i < size_t(n); i += gridDim.z)
        for (int pixel = int(blockIdx.x * blockDim.y + threadIdx.y); pixel < out_pixels;
             pixel += int(gridDim.x * blockDim.y)) {
            const T *from = src + i * in_pixels * channels + group * GROUP;
            size_t to = (i * size_t(out_pixels) + size_t(pixel)) * channels + group * GROUP;
            Winner winner;

            in_window(p, pixel / p.out_w, pixel % p.out_w, [&](size_t at, int place) {
                float v[GROUP];

                load<GROUP>(from + at * channels, v);
                winner.meets(v, place);
            });
            winner.put(dst + to, which + to);
        }
}
EMU_KERNEL(k_maxpool_forward<float>)
EMU_KERNEL(k_maxpool_forward<__half>)
EMU_KERNEL(k_maxpool_forward<__nv_bfloat16>)

template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_maxpool_backward(int n, Plane p, const T *d_dst, const uint8_t *which, T *d_src)
{
    int group = int(blockIdx.y * blockDim.x + threadIdx.x), in_pixels = p.h * p.w;
    size_t channels = size_t(p.groups) * GROUP, out_pixels = size_t(p.out_h) * size_t(p.out_w);

    if (group >= p.groups)
        return;
    for (size_t i = blockIdx.z; i < size_t(n); i += gridDim.z)
        for (int pixel = int(blockIdx.x * blockDim.y + threadIdx.y); pixel < in_pixels;
             pixel += int(gridDim.x * blockDim.y)) {
            size_t image = i * out_pixels * channels + size_t(group) * GROUP;
            float sum[GROUP];

            gather<T>(p, pixel / p.w, pixel % p.w, d_dst + image, NULL, which + image, sum);
            store<GROUP>(d_src + (i * size_t(in_pixels) + size_t(pixel)) * channels +
                             size_t(group) * GROUP,
                         sum);
        }
}
EMU_KERNEL(k_maxpool_backward<float>)
EMU_KERNEL(k_maxpool_backward<__half>)
EMU_KERNEL(k_maxpool_backward<__nv_bfloat16>)

extern "C" cudaError_t apd_cuda_maxpool_forward(enum apd_cuda_type type, struct apd_shape in, int n,
                                                const void *src, void *dst, uint8_t *which,
                                                cudaStream_t stream)
{
    Plane p = plane_of_pool(in);
    Tile t = tile_of(p.groups * GROUP);
    size_t pixels = size_t(p.out_h) * size_t(p.out_w);

    if (n == 0)
        return cudaSuccess;
    FOR_TYPE(type, launch(k_maxpool_forward<T>, pool_grid(t, pixels, n, 1), pool_block(t), 0,
                          stream, n, p, static_cast<const T *>(src), static_cast<T *>(dst), which))
}

extern "C" cudaError_t apd_cuda_maxpool_backward(enum apd_cuda_type type, struct apd_shape in,
                                                 int n, const void *d_dst, const uint8_t *which,
                                                 void *d_src, cudaStream_t stream)
{
    Plane p = plane_of_pool(in);
    Tile t = tile_of(p.groups * GROUP);
    size_t pixels = size_t(p.h) * size_t(p.w);

    if (n == 0)
        return cudaSuccess;
    FOR_TYPE(type,
             launch(k_maxpool_backward<T>, pool_grid(t, pixels, n, 1), pool_block(t), 0, stream, n,
                    p, static_cast<const T *>(d_dst), which, static_cast<T *>(d_src)))
}

/* ---- mean ---- */

/* One block: an image's tile of channels. */
template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_avgpool_forward(int n, int c, int groups, size_t pixels, const T *src, float *dst)
{
    DYN_SHARED(float, shared);
    int group = int(blockIdx.y * blockDim.x + threadIdx.x);
    size_t channels = size_t(groups) * GROUP;

    for (size_t i = blockIdx.z; i < size_t(n); i += gridDim.z) {
        float sum[GROUP] = {};

        for (size_t p = threadIdx.y; group < groups && p < pixels; p += blockDim.y) {
            float v[GROUP];

            load<GROUP>(src + (i * pixels + p) * channels + size_t(group) * GROUP, v);
#pragma unroll
            for (int k = 0; k < GROUP; k++)
                sum[k] += v[k];
        }
        add_rows(shared, sum);
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            if (threadIdx.y == 0 && group * GROUP + k < c)
                dst[i * size_t(c) + size_t(group * GROUP + k)] = sum[k] / float(pixels);
    }
}
EMU_KERNEL(k_avgpool_forward<float>)
EMU_KERNEL(k_avgpool_forward<__half>)
EMU_KERNEL(k_avgpool_forward<__nv_bfloat16>)

template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_avgpool_backward(int n, int c, int groups, size_t pixels, const float *d_dst, T *d_src)
{
    int group = int(blockIdx.y * blockDim.x + threadIdx.x);
    size_t channels = size_t(groups) * GROUP;

    if (group >= groups)
        return;
    for (size_t i = blockIdx.z; i < size_t(n); i += gridDim.z) {
        float v[GROUP];

#pragma unroll
        for (int k = 0; k < GROUP; k++)
            v[k] = group * GROUP + k < c
                       ? d_dst[i * size_t(c) + size_t(group * GROUP + k)] / float(pixels)
                       : 0.0f;
        for (size_t p = blockIdx.x * blockDim.y + threadIdx.y; p < pixels;
             p += size_t(gridDim.x) * blockDim.y)
            store<GROUP>(d_src + (i * pixels + p) * channels + size_t(group) * GROUP, v);
    }
}
EMU_KERNEL(k_avgpool_backward<float>)
EMU_KERNEL(k_avgpool_backward<__half>)
EMU_KERNEL(k_avgpool_backward<__nv_bfloat16>)

extern "C" cudaError_t apd_cuda_avgpool_forward(enum apd_cuda_type type, struct apd_shape in, int n,
                                                const void *src, float *dst, cudaStream_t stream)
{
    Tile t = tile_of(rounded_channels(in.c));
    size_t pixels = size_t(in.h) * size_t(in.w);
    size_t shared = size_t(t.cols) * size_t(t.rows) * GROUP * sizeof(float);

    if (n == 0)
        return cudaSuccess;
    FOR_TYPE(type, launch(k_avgpool_forward<T>, pool_grid(t, 1, n, 1), pool_block(t), shared,
                          stream, n, in.c, t.groups, pixels, static_cast<const T *>(src), dst))
}

extern "C" cudaError_t apd_cuda_avgpool_backward(enum apd_cuda_type type, struct apd_shape in,
                                                 int n, const float *d_dst, void *d_src,
                                                 cudaStream_t stream)
{
    Tile t = tile_of(rounded_channels(in.c));
    size_t pixels = size_t(in.h) * size_t(in.w);

    if (n == 0)
        return cudaSuccess;
    FOR_TYPE(type, launch(k_avgpool_backward<T>, pool_grid(t, pixels, n, 8), pool_block(t), 0,
                          stream, n, in.c, t.groups, pixels, d_dst, static_cast<T *>(d_src)))
}
