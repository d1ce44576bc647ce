/* The classifier's rows and the loss. exp and log are CUDA's accurate ones; exp in float, the sums
 * over classes and images in double. */
#include "kernels/cuda/reduce.cuh"

/* ---- rows between float and T ---- */

template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_rows_pack(int n, int c, int groups, const float *src, T *dst)
{
    for (size_t at = size_t(blockIdx.x) * blockDim.x + threadIdx.x; at < size_t(n) * groups;
         at += size_t(gridDim.x) * blockDim.x) {
        size_t row = at / unsigned(groups);
        int first = int(at % unsigned(groups)) * GROUP;
        float v[GROUP];

#pragma unroll
        for (int k = 0; k < GROUP; k++)
            v[k] = first + k < c ? src[row * size_t(c) + size_t(first + k)] : 0.0f;
        store<GROUP>(dst + at * GROUP, v);
    }
}
EMU_KERNEL(k_rows_pack<float>)
EMU_KERNEL(k_rows_pack<__half>)
EMU_KERNEL(k_rows_pack<__nv_bfloat16>)

template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_rows_unpack(int n, int c, int groups, const T *src, const float *bias, int add, float *dst)
{
    for (size_t at = size_t(blockIdx.x) * blockDim.x + threadIdx.x; at < size_t(n) * groups;
         at += size_t(gridDim.x) * blockDim.x) {
        size_t row = at / unsigned(groups);
        int first = int(at % unsigned(groups)) * GROUP;
        float v[GROUP];

        load<GROUP>(src + at * GROUP, v);
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            if (first + k < c) {
                float *to = dst + row * size_t(c) + size_t(first + k);

                if (bias != NULL)
                    v[k] += bias[first + k];
                *to = add ? *to + v[k] : v[k];
            }
    }
}
EMU_KERNEL(k_rows_unpack<float>)
EMU_KERNEL(k_rows_unpack<__half>)
EMU_KERNEL(k_rows_unpack<__nv_bfloat16>)

static dim3 rows_grid(int n, int groups)
{
    return dim3(
        unsigned(at_most(divide_up(size_t(n) * size_t(groups), BLOCK_THREADS), FLAT_MOST_BLOCKS)));
}

extern "C" cudaError_t apd_cuda_rows_pack(enum apd_cuda_type type, int n, int c, const float *src,
                                          void *dst, cudaStream_t stream)
{
    int groups = rounded_channels(c) / GROUP;

    if (n == 0)
        return cudaSuccess;
    FOR_TYPE(type, launch(k_rows_pack<T>, rows_grid(n, groups), dim3(BLOCK_THREADS), 0, stream, n,
                          c, groups, src, static_cast<T *>(dst)))
}

extern "C" cudaError_t apd_cuda_rows_unpack(enum apd_cuda_type type, int n, int c, const void *src,
                                            const float *bias, int add, float *dst,
                                            cudaStream_t stream)
{
    int groups = rounded_channels(c) / GROUP;

    if (n == 0)
        return cudaSuccess;
    FOR_TYPE(type, launch(k_rows_unpack<T>, rows_grid(n, groups), dim3(BLOCK_THREADS), 0, stream, n,
                          c, groups, static_cast<const T *>(src), bias, add, dst))
}

/* ---- softmax cross-entropy: a warp for each row ---- */

enum { LANES = 32, WARPS = 4, RESULTS = 4, MOST_ROW_BLOCKS = 128 };

/* The target of one image: `rest` for most classes, more at one or two labels. */
struct Target {
    double rest;
    int label[2];
    double extra[2];
};

static __device__ __forceinline__ Target target_of(const apd_targets &t, int classes, size_t i)
{
    double rest = t.smoothing / (classes - 1), peak = 1 - t.smoothing - rest;
    double first = t.label2 != NULL ? double(static_cast<const float *>(t.keep)[i]) : 1.0;
    int second = t.label2 != NULL ? t.label2[i] : t.label[i];

    return Target{rest, {t.label[i], second}, {peak * first, peak * (1 - first)}};
}

/* The largest logit; a NaN anywhere makes it NaN. */
static __device__ __forceinline__ float top_of(const float *z, int classes, int lane)
{
    float top = z[0];

    for (int k = lane; k < classes; k += LANES)
        top = z[k] > top || z[k] != z[k] ? z[k] : top;
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, top, step);

        top = other > top || other != other ? other : top;
    }
    return top;
}

static __device__ __forceinline__ double log_sum_exp(const float *z, int classes, int lane)
{
    float top = top_of(z, classes, lane);
    double sum = 0;

    for (int k = lane; k < classes; k += LANES)
        sum += double(expf(z[k] - top));
    return double(top) + log(warp_sum(sum));
}

static __device__ __forceinline__ double cross_entropy(const Target &t, const float *z, int classes,
                                                       double lse, int lane)
{
    double ce = 0;

    for (int k = lane; t.rest != 0 && k < classes; k += LANES)
        ce += t.rest * (lse - double(z[k]));
    ce = warp_sum(ce);
#pragma unroll
    for (int j = 0; j < 2; j++)
        if (t.extra[j] != 0)
            ce += t.extra[j] * (lse - double(z[t.label[j]]));
    return ce;
}

/* Classes that rank before the label; means nothing if its logit is NaN. */
static __device__ __forceinline__ int rank_of(const float *z, int classes, int label, int lane)
{
    float own = z[label];
    int before = 0;

    for (int k = lane; k < classes; k += LANES)
        before += z[k] > own || (z[k] == own && k < label);
    return warp_sum(before);
}

static __device__ __forceinline__ void row_gradient(const Target &t, const float *z, int classes,
                                                    double lse, float weight, float *d_z, int lane)
{
    for (int k = lane; k < classes; k += LANES) {
        float v = weight * (expf(float(double(z[k]) - lse)) - float(t.rest));

#pragma unroll
        for (int j = 0; j < 2; j++)
            if (k == t.label[j])
                v -= weight * float(t.extra[j]);
        d_z[k] = v;
    }
}

/* parts: [segment][part][RESULTS]. Grid: part, segment. A batch has too few rows to fill a GPU, so
 * registers are no concern: with the least of 4 blocks named, ptxas spills none to save some. */
__global__ void __launch_bounds__(WARPS *LANES, 4)
    k_softmax_ce(int classes, const float *logits, apd_targets targets, Segments seg, double *parts,
                 float *d_logits)
{
    DYN_SHARED(double, shared);
    int warp = int(threadIdx.x) / LANES, lane = int(threadIdx.x) % LANES, s = int(blockIdx.y);
    double result[RESULTS] = {};

    for (int k = int(blockIdx.x) * WARPS + warp; k < seg.images[s]; k += int(gridDim.x) * WARPS) {
        size_t i = size_t(seg.first[s] + k), at = i * size_t(classes);
        float weight = static_cast<const float *>(targets.weight)[i];
        const float *z = logits + at;

        if (weight == 0) {
            for (int c = lane; d_logits != NULL && c < classes; c += LANES)
                d_logits[at + size_t(c)] = 0;
            continue;
        }

        Target t = target_of(targets, classes, i);
        double lse = log_sum_exp(z, classes, lane);
        int rank = rank_of(z, classes, t.label[0], lane);
        bool number = z[t.label[0]] == z[t.label[0]]; /* NaN is never right */

        result[0] += cross_entropy(t, z, classes, lse, lane);
        result[1] += 1;
        result[2] += number && rank < 1;
        result[3] += number && rank < 5;
        if (d_logits != NULL)
            row_gradient(t, z, classes, lse, weight, d_logits + at, lane);
    }
    if (lane == 0)
#pragma unroll
        for (int r = 0; r < RESULTS; r++)
            shared[warp * RESULTS + r] = result[r];
    __syncthreads();
    if (threadIdx.x < RESULTS) {
        double sum = 0;

        for (int w = 0; w < WARPS; w++)
            sum += shared[w * RESULTS + int(threadIdx.x)];
        parts[(size_t(s) * gridDim.x + blockIdx.x) * RESULTS + threadIdx.x] = sum;
    }
}
EMU_KERNEL(k_softmax_ce)

extern "C" cudaError_t apd_cuda_softmax_ce(int n, int classes, const float *logits,
                                           const struct apd_targets *targets,
                                           const struct apd_cuda_segments *seg, double *loss,
                                           float *d_logits, void *scratch, cudaStream_t stream)
{
    size_t blocks = divide_up(largest_segment(seg), WARPS);
    unsigned parts = unsigned(blocks < 1 ? 1 : at_most(blocks, MOST_ROW_BLOCKS));
    double *sums = static_cast<double *>(scratch);

    (void)n;
    for (int from = 0; from < seg->count; from += LAUNCH_SEGMENTS) {
        Segments some;
        int count = segments_from(seg, from, NULL, &some);
        cudaError_t status =
            launch(k_softmax_ce, dim3(parts, unsigned(count)), dim3(WARPS * LANES),
                   WARPS * RESULTS * sizeof(double), stream, classes, logits, *targets, some,
                   sums + size_t(from) * parts * RESULTS, d_logits);

        if (status != cudaSuccess)
            return status;
    }
    return apd_cuda_add_parts(seg->count, int(parts), RESULTS, sums, loss, RESULTS, stream);
}

/* ---- sums of columns ---- */

enum { COLUMN_RUN = 8 };

/* parts: [part][c]. Grid: columns, part. */
__global__ void __launch_bounds__(PART_COLS *PART_ROWS)
    k_column_parts(int n, int c, const float *rows, double *parts)
{
    DYN_SHARED(double, shared);
    int k = int(blockIdx.x * blockDim.x + threadIdx.x);
    double sum = 0;

    for (size_t i = blockIdx.y * blockDim.y + threadIdx.y; i < size_t(n) && k < c;
         i += size_t(gridDim.y) * blockDim.y)
        sum += double(rows[i * size_t(c) + size_t(k)]);
    shared[threadIdx.y * blockDim.x + threadIdx.x] = sum;
    __syncthreads();
    for (unsigned y = 1; threadIdx.y == 0 && y < blockDim.y; y++)
        sum += shared[y * blockDim.x + threadIdx.x];
    if (threadIdx.y == 0 && k < c)
        parts[blockIdx.y * size_t(c) + size_t(k)] = sum;
}
EMU_KERNEL(k_column_parts)

__global__ void __launch_bounds__(PART_COLS *PART_ROWS)
    k_column_sums(int count, int c, const double *parts, float *sum)
{
    DYN_SHARED(double, shared);
    int k = int(blockIdx.x * blockDim.x + threadIdx.x);
    double total = sum_of_parts(parts, count, c, k, shared);

    if (threadIdx.y == 0 && k < c)
        sum[k] = float(double(sum[k]) + total);
}
EMU_KERNEL(k_column_sums)

extern "C" cudaError_t apd_cuda_column_sums(int n, int c, const float *rows, float *sum,
                                            void *scratch, cudaStream_t stream)
{
    size_t parts = at_most(divide_up(size_t(n), PART_ROWS * COLUMN_RUN), COLUMN_PARTS);
    dim3 block(PART_COLS, PART_ROWS);
    size_t shared = PART_COLS * PART_ROWS * sizeof(double);
    unsigned columns = unsigned(divide_up(size_t(c), PART_COLS));
    double *sums = static_cast<double *>(scratch);
    cudaError_t status;

    if (n == 0)
        return cudaSuccess;
    status = launch(k_column_parts, dim3(columns, unsigned(parts)), block, shared, stream, n, c,
                    rows, sums);
    if (status != cudaSuccess)
        return status;
    return launch(k_column_sums, dim3(columns), block, shared, stream, int(parts), c,
                  static_cast<const double *>(sums), sum);
}
