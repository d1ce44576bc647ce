/* Sums in a fixed order. Per-channel sums go through blocks of cols x rows threads: thread (x, y)
 * has the 8 channels of group x and every rows-th pixel, so a warp reads contiguous memory and the
 * parameters of a channel stay in registers. Stage one leaves a partial sum per block ("part"),
 * stage two adds the parts in ascending order. How many parts there are follows from the shape. */
#ifndef APD_KERNELS_CUDA_REDUCE_CUH
#define APD_KERNELS_CUDA_REDUCE_CUH

#include "kernels/cuda/vec.cuh"

enum {
    GROUP = APD_CUDA_CHANNELS,
    BLOCK_THREADS = 256,
    MOST_COLS = 32, /* 512 bytes of a 16-bit pixel */
    RUN = 32,       /* values summed in float before double takes over */
    MOST_PARTS = 512,
    FEW_PIXELS = 4,
    MOST_BLOCKS = 1024,  /* of stage one; about 8 for each multiprocessor of the largest GPUs */
    ENOUGH_BLOCKS = 264, /* 2 for each */
    COLUMN_PARTS = 16,
    LAUNCH_SEGMENTS = 64
};

static inline int rounded_channels(int c)
{
    return (c + GROUP - 1) / GROUP * GROUP;
}

/* How `channels` (rounded) are laid over blocks: tiles of `cols` groups, `rows` pixels at a time.
 */
struct Tile {
    int groups, tiles, cols, rows;
};

static inline Tile tile_of(int channels)
{
    Tile t;

    t.groups = channels / GROUP;
    t.tiles = (t.groups + MOST_COLS - 1) / MOST_COLS;
    t.cols = (t.groups + t.tiles - 1) / t.tiles;
    t.rows = BLOCK_THREADS / t.cols;
    return t;
}

/* Parts that a segment's sums may have, in `scratch`. */
static inline size_t most_parts(const Tile &t, int segments)
{
    size_t parts = MOST_BLOCKS / (size_t(segments) * size_t(t.tiles));

    return parts < 4 ? 4 : at_most(parts, MOST_PARTS);
}

/* Blocks that share the pixels of a segment. A thread has pixels_each of them; where the blocks
 * would be too few for a GPU, less, down to FEW_PIXELS. */
static inline size_t parts_for(const Tile &t, int segments, size_t most_pixels, size_t pixels_each)
{
    size_t parts = divide_up(most_pixels, size_t(t.rows) * pixels_each);
    size_t small = divide_up(most_pixels, size_t(t.rows) * FEW_PIXELS);
    size_t enough = divide_up(ENOUGH_BLOCKS, size_t(segments) * size_t(t.tiles));

    parts = at_least(parts, at_most(small, enough));
    return at_least(at_most(parts, most_parts(t, segments)), 1);
}

/* Up to LAUNCH_SEGMENTS segments as kernels get them: by value, with a number each (a count). */
struct Segments {
    int first[LAUNCH_SEGMENTS], images[LAUNCH_SEGMENTS], set[LAUNCH_SEGMENTS];
    double number[LAUNCH_SEGMENTS];
};

static inline int segments_from(const struct apd_cuda_segments *seg, int from, const double *number,
                                Segments *out)
{
    int count = seg->count - from < LAUNCH_SEGMENTS ? seg->count - from : LAUNCH_SEGMENTS;

    *out = Segments();
    for (int s = 0; s < count; s++) {
        out->first[s] = seg->at[from + s].first;
        out->images[s] = seg->at[from + s].count;
        out->set[s] = seg->at[from + s].set;
        out->number[s] = number != NULL ? number[from + s] : 0;
    }
    return count;
}

/* Not by index: a parameter indexed at run time would be copied to local memory. */
template <class P> static __device__ __forceinline__ P of_set(P const (&at)[APD_BN_SETS], int set)
{
    static_assert(APD_BN_SETS == 2, "one choice");
    return set == 0 ? at[0] : at[1];
}

static inline size_t largest_segment(const struct apd_cuda_segments *seg)
{
    int most = 0;

    for (int s = 0; s < seg->count; s++)
        most = seg->at[s].count > most ? seg->at[s].count : most;
    return size_t(most);
}

/* Where this thread's values are among those of a block, [GROUP][threads]. */
static __device__ __forceinline__ unsigned own_place()
{
    return threadIdx.y * blockDim.x + threadIdx.x;
}
static __device__ __forceinline__ unsigned block_threads()
{
    return blockDim.x * blockDim.y;
}

/* Adds the 8 values of the threads of one column: the results are those of the thread with
 * threadIdx.y == 0. A tree over rows: its shape depends on blockDim.y alone. */
template <class V> static __device__ __forceinline__ void add_rows(V *shared)
{
    unsigned reach = 1;

    while (reach < blockDim.y)
        reach *= 2;
    for (reach /= 2; reach > 0; reach /= 2) {
        __syncthreads();
        if (threadIdx.y < reach && threadIdx.y + reach < blockDim.y)
#pragma unroll
            for (int k = 0; k < GROUP; k++) {
                V *at = shared + k * block_threads() + own_place();

                *at += at[reach * blockDim.x];
            }
    }
    __syncthreads();
}

/* The same of what is in registers. */
template <class V> static __device__ __forceinline__ void add_rows(V *shared, V (&v)[GROUP])
{
#pragma unroll
    for (int k = 0; k < GROUP; k++)
        shared[k * block_threads() + own_place()] = v[k];
    add_rows(shared);
#pragma unroll
    for (int k = 0; k < GROUP; k++)
        v[k] = shared[k * block_threads() + own_place()];
}

/* Stage two: sum over the parts of parts[part][k], k < width, in threads with threadIdx.y == 0.
 * Thread (x, y) adds every blockDim.y-th part, then the rows are added in ascending order. */
static __device__ __forceinline__ double sum_of_parts(const double *parts, int count, int width,
                                                      int k, double *shared)
{
    double sum = 0;

    for (int p = int(threadIdx.y); p < count && k < width; p += int(blockDim.y))
        sum += parts[size_t(p) * size_t(width) + size_t(k)];
    shared[threadIdx.y * blockDim.x + threadIdx.x] = sum;
    __syncthreads();
    for (unsigned y = 1; threadIdx.y == 0 && y < blockDim.y; y++)
        sum += shared[y * blockDim.x + threadIdx.x];
    return sum;
}

enum { PART_COLS = 32, PART_ROWS = 8 };

/* reduce.cu: the launch of stage two for all segments. */
extern "C" cudaError_t apd_cuda_add_parts(int segments, int parts, int width, const double *from,
                                          double *out, size_t stride, cudaStream_t stream);

template <class V> static __device__ __forceinline__ V warp_sum(V v)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}

#endif
