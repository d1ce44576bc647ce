/* What all reductions share: the second stage, and how much memory lies between the two. */
#include "kernels/cuda/reduce.cuh"

/* No less than what fewer channels or segments need. */
static size_t most_sums(size_t c, size_t segments)
{
    size_t few = at_most(MOST_PARTS * segments * c, MOST_BLOCKS * at_most(c, MOST_COLS * GROUP));
    size_t many = 4 * segments * c; /* see most_parts() */

    return few > many ? few : many;
}

extern "C" size_t apd_cuda_scratch_bytes(int channels, int segments)
{
    int c = rounded_channels(channels);
    /* Two layers, two sums each. */
    size_t sums = most_sums(size_t(c), size_t(segments)) * 4 * sizeof(double);
    size_t others = size_t(MOST_PARTS) * 4 * sizeof(double) * size_t(segments);
    size_t columns = size_t(COLUMN_PARTS) * size_t(c) * sizeof(double);

    others = others > columns ? others : columns;
    return sums > others ? sums : others;
}

/* As many threads as a block may have: blocks are few, parts many. */
enum { ADD_ROWS = 1024 / PART_COLS };

/* out[segment * stride + k] = sum over parts of parts[segment][part][k], k < width. */
__global__ void __launch_bounds__(PART_COLS *ADD_ROWS)
    k_add_parts(int count, int width, const double *parts, double *out, size_t stride)
{
    DYN_SHARED(double, shared);
    int k = int(blockIdx.x * blockDim.x + threadIdx.x);
    double sum = sum_of_parts(parts + size_t(blockIdx.y) * count * width, count, width, k, shared);

    if (threadIdx.y == 0 && k < width)
        out[blockIdx.y * stride + k] = sum;
}
EMU_KERNEL(k_add_parts)

extern "C" cudaError_t apd_cuda_add_parts(int segments, int parts, int width, const double *from,
                                          double *out, size_t stride, cudaStream_t stream)
{
    return launch(k_add_parts,
                  dim3(unsigned(divide_up(size_t(width), PART_COLS)), unsigned(segments)),
                  dim3(PART_COLS, ADD_ROWS), PART_COLS * ADD_ROWS * sizeof(double), stream, parts,
                  width, from, out, stride);
}
