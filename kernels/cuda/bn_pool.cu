/* Batch norm, ReLU and the max pool after it, without y ever being stored: pooled values, winners
 * and gradients are, bit for bit, those that the kernels of bn_forward.cu, pool.cu and
 * bn_backward.cu leave one after the other. */
#include "kernels/cuda/bn.cuh"
#include "kernels/cuda/pool.cuh"

/* A pixel that moves on by the same number of pixels each time, through rows and images: division
 * once, not for each of them. */
struct Odometer {
    unsigned image, y, x, h, w, images, rows, columns;

    __device__ __forceinline__ Odometer(unsigned from, unsigned step, int height, int width)
        : h(unsigned(height)), w(unsigned(width))
    {
        image = from / (h * w);
        y = from / w % h;
        x = from % w;
        images = step / (h * w);
        rows = step / w % h;
        columns = step % w;
    }

    __device__ __forceinline__ void move()
    {
        x += columns;
        y += rows;
        image += images;
        if (x >= w) {
            x -= w;
            y++;
        }
        if (y >= h) {
            y -= h;
            image++;
        }
    }
};

/* Over the pixels of the output. */
template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_bn_pool_forward(Norm<T> bn, Segments seg, Plane p, T *pooled, uint8_t *which)
{
    Walk w = walk_over(seg, size_t(p.out_h) * size_t(p.out_w), p.groups);
    Odometer at(blockIdx.x * blockDim.y + threadIdx.y, gridDim.x * blockDim.y, p.out_h, p.out_w);
    size_t image = size_t(p.h) * size_t(p.w) * w.channels;
    const T *x = bn.x + size_t(seg.first[w.s]) * image + w.channel;
    Affine affine;

    if (w.group >= p.groups)
        return;
    affine.take(bn, w, seg.set[w.s]);
    for (; w.at < w.end; w.at += w.step, at.move()) {
        const T *from = x + at.image * image;
        Winner winner;

        in_window(p, int(at.y), int(at.x), [&](size_t pixel, int place) {
            float v[GROUP];

            load<GROUP>(from + pixel * w.channels, v);
#pragma unroll
            for (int k = 0; k < GROUP; k++) {
                v[k] = affine.y(v[k], k);
                v[k] = rounded<T>(v[k] < 0 ? 0.0f : v[k]);
            }
            winner.meets(v, place);
        });
        winner.put(pooled + w.at, which + w.at);
    }
}
EMU_KERNEL(k_bn_pool_forward<float>)
EMU_KERNEL(k_bn_pool_forward<__half>)
EMU_KERNEL(k_bn_pool_forward<__nv_bfloat16>)

template <class T>
static cudaError_t bn_pool_forward(const struct apd_cuda_bn *bn, void *pooled, uint8_t *which,
                                   cudaStream_t stream)
{
    Layout l = layout_of(bn->shape, bn->seg, plane_of(apd_maxpool_out(bn->shape)), FEW_PIXELS);
    Plane p = plane_of_pool(bn->shape);

    return for_segments(bn->seg, NULL, [&](int from, int count, const Segments &some) {
        return launch(k_bn_pool_forward<T>, l.grid(count), l.block(), 0, stream,
                      norm_of<T>(bn, from), some, p, static_cast<T *>(pooled), which);
    });
}

extern "C" cudaError_t apd_cuda_bn_pool_forward(const struct apd_cuda_bn *bn, void *pooled,
                                                uint8_t *which, cudaStream_t stream)
{
    FOR_TYPE(bn->type, bn_pool_forward<T>(bn, pooled, which, stream))
}

/* Over the pixels of x, as k_bn_backward_sums. parts: [segment][part][2][channels]. */
template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS, 2)
    k_bn_pool_backward_sums(Norm<T> bn, Segments seg, Plane p, const T *d_y, const T *d_y2,
                            const uint8_t *which, T *d_g, double *parts)
{
    DYN_SHARED(double, shared);
    Walk w = walk_over(seg, size_t(p.h) * size_t(p.w), p.groups);
    Odometer at(blockIdx.x * blockDim.y + threadIdx.y, gridDim.x * blockDim.y, p.h, p.w);
    size_t image = size_t(p.out_h) * size_t(p.out_w) * w.channels;
    size_t first = size_t(seg.first[w.s]) * image + w.channel;
    Affine affine = {};
    LongSum sum, sum_x;

    sum.begin(shared, 0);
    sum_x.begin(shared, 1);
    if (w.group < p.groups)
        affine.take(bn, w, seg.set[w.s]);
    while (w.group < p.groups && w.at < w.end) {
#pragma unroll 1
        for (int count = 0; count < RUN && w.at < w.end; count++, w.at += w.step, at.move()) {
            size_t windows = first + at.image * image;
            float g[GROUP], v[GROUP];

            load<GROUP>(bn.x + w.at, v);
            gather(p, int(at.y), int(at.x), d_y + windows, d_y2 != NULL ? d_y2 + windows : NULL,
                   which + windows, g);
#pragma unroll
            for (int k = 0; k < GROUP; k++) {
                g[k] = passes<T>(affine.y(v[k], k)) ? rounded<T>(g[k]) : 0.0f;
                sum.run[k] += g[k];
                sum_x.run[k] = fmaf(g[k], v[k] - affine.mean[k], sum_x.run[k]);
            }
            store<GROUP>(d_g + w.at, g);
        }
        sum.end_run();
        sum_x.end_run();
    }
    add_rows(sum.all);
    add_rows(sum_x.all);
    if (threadIdx.y == 0 && w.group < p.groups)
        put_sums(bn, w, sum, sum_x, parts);
}
EMU_KERNEL(k_bn_pool_backward_sums<float>)
EMU_KERNEL(k_bn_pool_backward_sums<__half>)
EMU_KERNEL(k_bn_pool_backward_sums<__nv_bfloat16>)

template <class T>
static cudaError_t bn_pool_backward_sums(const struct apd_cuda_bn *bn, const void *d_y,
                                         const void *d_y2, const uint8_t *which, void *d_g,
                                         double *d_sums, double *scratch, cudaStream_t stream)
{
    Layout l = layout_of(bn->shape, bn->seg, plane_of(bn->shape), RUN);
    Plane p = plane_of_pool(bn->shape);
    auto launch_some = [&](int from, int count, const Segments &some) {
        return launch(k_bn_pool_backward_sums<T>, l.grid(count), l.block(), l.sums_bytes(2), stream,
                      norm_of<T>(bn, from), some, p, static_cast<const T *>(d_y),
                      static_cast<const T *>(d_y2), which, static_cast<T *>(d_g),
                      scratch + size_t(from) * l.parts * l.row);
    };
    cudaError_t status = for_segments(bn->seg, NULL, launch_some);

    if (status != cudaSuccess)
        return status;
    return apd_cuda_add_parts(bn->seg->count, int(l.parts), int(l.row), scratch, d_sums, l.row,
                              stream);
}

extern "C" cudaError_t apd_cuda_bn_pool_backward_sums(const struct apd_cuda_bn *bn, const void *d_y,
                                                      const void *d_y2, const uint8_t *which,
                                                      void *d_g, double *d_sums, void *scratch,
                                                      cudaStream_t stream)
{
    FOR_TYPE(bn->type, bn_pool_backward_sums<T>(bn, d_y, d_y2, which, d_g, d_sums,
                                                static_cast<double *>(scratch), stream))
}
