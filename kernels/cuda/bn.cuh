/* What the kernels of batch norm share. A thread has the 8 channels of one group in one segment and
 * walks over its pixels. Where the backward pass remakes what ReLU saw, it has to come to the bits
 * of the forward pass: y is computed here and nowhere else. */
#ifndef APD_KERNELS_CUDA_BN_CUH
#define APD_KERNELS_CUDA_BN_CUH

#include "kernels/cuda/reduce.cuh"

/* A layer as kernels get it; moments begin with those of the launch's first segment. */
template <class T> struct Norm {
    const T *x;
    const float *moments;
    apd_cuda_sets gamma, beta;
};

template <class T> static Norm<T> norm_of(const struct apd_cuda_bn *bn, int from)
{
    if (bn == NULL)
        return Norm<T>();
    return Norm<T>{static_cast<const T *>(bn->x),
                   bn->moments + size_t(from) * 2 * size_t(rounded_channels(bn->shape.c)),
                   bn->gamma, bn->beta};
}

/* A thread's elements: 8 from at, at + step, ... below end, of channels `channel` and up. `row`:
 * where those are in vectors of {.. [C], .. [C]} for each segment. */
struct Walk {
    int s, group;
    unsigned channels, channel, row;
    size_t at, step, end;
};

/* plane: pixels of an image. */
static __device__ __forceinline__ Walk walk_over(const Segments &seg, size_t plane, int groups)
{
    Walk w;
    size_t image;

    w.s = int(blockIdx.z);
    w.group = int(blockIdx.y * blockDim.x + threadIdx.x);
    w.channels = unsigned(groups) * GROUP;
    w.channel = unsigned(w.group) * GROUP;
    w.row = unsigned(w.s) * 2 * w.channels + w.channel;
    image = plane * w.channels;
    w.at = size_t(seg.first[w.s]) * image;
    w.end = w.at + size_t(seg.images[w.s]) * image;
    w.at += (size_t(blockIdx.x) * blockDim.y + threadIdx.y) * w.channels + w.channel;
    w.step = size_t(gridDim.x) * blockDim.y * w.channels;
    return w;
}

/* y before addition and ReLU. */
struct Affine {
    float mean[GROUP], scale[GROUP], shift[GROUP];

    template <class T>
    __device__ __forceinline__ void take(const Norm<T> &bn, const Walk &w, int set)
    {
        load<GROUP>(bn.moments + w.row, mean);
        load<GROUP>(bn.moments + w.row + w.channels, scale);
        load<GROUP>(of_set(bn.gamma.at, set) + w.channel, shift);
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            scale[k] *= shift[k];
        load<GROUP>(of_set(bn.beta.at, set) + w.channel, shift);
    }

    __device__ __forceinline__ float y(float x, int k) const
    {
        return fmaf(x - mean[k], scale[k], shift[k]);
    }
};

/* Whether ReLU lets y, as it is stored, through. NaN passes. */
template <class T> static __device__ __forceinline__ bool passes(float y)
{
    return !(rounded<T>(y) <= 0);
}

/* A sum for each channel: in float over a run of RUN values, in double over all. The latter is in
 * shared memory: it is asked for so rarely that registers would be wasted on it. */
struct LongSum {
    float run[GROUP] = {};
    double *all = NULL; /* [GROUP][threads] */

    /* As number n of the block's sums. */
    __device__ __forceinline__ void begin(double *shared, int n)
    {
        all = shared + n * GROUP * block_threads();
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            of(k) = 0;
    }

    __device__ __forceinline__ double &of(int k) const
    {
        return all[k * block_threads() + own_place()];
    }

    __device__ __forceinline__ void end_run()
    {
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            of(k) += double(run[k]);
            run[k] = 0;
        }
    }
};

/* {sum g, sum g xhat} of a block from the sums of g and g (x - mean). */
template <class T>
static __device__ __forceinline__ void
put_sums(const Norm<T> &bn, const Walk &w, const LongSum &sum, const LongSum &sum_x, double *parts)
{
    double *out = parts + (size_t(w.s) * gridDim.x + blockIdx.x) * 2 * w.channels + w.channel;
    float rstd[GROUP];

    load<GROUP>(bn.moments + w.row + w.channels, rstd);
#pragma unroll
    for (int k = 0; k < GROUP; k++) {
        out[k] = sum.of(k);
        out[w.channels + k] = sum_x.of(k) * double(rstd[k]);
    }
}

/* ---- host ---- */

/* How the pixels of a batch are laid over blocks. Grid: part of the pixels, tile of channels,
 * segment. */
struct Layout {
    Tile tile;
    size_t plane, row, parts; /* row: of {.. [C], .. [C]} */

    dim3 grid(int segments) const
    {
        return dim3(unsigned(parts), unsigned(tile.tiles), unsigned(segments));
    }
    dim3 block() const
    {
        return dim3(unsigned(tile.cols), unsigned(tile.rows));
    }
    size_t sums_bytes(int sums) const /* shared: see LongSum */
    {
        return size_t(sums) * GROUP * size_t(tile.cols) * size_t(tile.rows) * sizeof(double);
    }
};

static inline Layout layout_of(struct apd_shape shape, const struct apd_cuda_segments *seg,
                               size_t plane, size_t pixels_each)
{
    Layout l;

    l.row = 2 * size_t(rounded_channels(shape.c));
    l.tile = tile_of(int(l.row / 2));
    l.plane = plane;
    l.parts = parts_for(l.tile, seg->count, largest_segment(seg) * plane, pixels_each);
    return l;
}

static inline size_t plane_of(struct apd_shape shape)
{
    return size_t(shape.h) * size_t(shape.w);
}

/* Calls launch_some(first segment, how many, the segments) until all have had their turn. */
template <class F>
static cudaError_t for_segments(const struct apd_cuda_segments *seg, const double *number,
                                F launch_some)
{
    cudaError_t status = cudaSuccess;

    for (int from = 0; from < seg->count && status == cudaSuccess; from += LAUNCH_SEGMENTS) {
        Segments some;
        int count = segments_from(seg, from, number, &some);

        status = launch_some(from, count, some);
    }
    return status;
}

#endif
