/* Batch norm: sums over segments, and moments from them or from running statistics.
 *
 * Sums. A thread reads RUN values of a channel and sums them about the first of them in float: the
 * differences are exact to their own size, however large the mean. Then double takes over: 6
 * operations in double every RUN values cost nothing even where double runs at 1/64 of the speed.
 * (All sums in double would be bound by conversions on an A100, and hopeless elsewhere.) */
#include "kernels/cuda/reduce.cuh"

/* ---- sums ---- */

/* Sums of one thread: in float about `pivot` over a run, in double over all. */
struct Sums {
    float pivot[GROUP], offset[GROUP], square[GROUP];
    double sum[GROUP], squares[GROUP];
};

static __device__ __forceinline__ void end_run(Sums *s, int count)
{
#pragma unroll
    for (int k = 0; k < GROUP; k++) {
        double p = s->pivot[k], offset = s->offset[k], n = count;

        s->sum[k] += offset + n * p;
        s->squares[k] += double(s->square[k]) + p * (2 * offset + n * p);
    }
}

/* parts: [segment][part][2][channels]. Grid: part, tile, segment. */
template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_bn_sums(const T *x, Segments seg, size_t plane, int groups, double *parts)
{
    DYN_SHARED(double, shared);
    int s = int(blockIdx.z), group = int(blockIdx.y * blockDim.x + threadIdx.x);
    size_t channels = size_t(groups) * GROUP, step = size_t(gridDim.x) * blockDim.y;
    size_t pixel = size_t(seg.first[s]) * plane;
    size_t end = pixel + size_t(seg.images[s]) * plane;
    Sums sums = {};

    pixel += size_t(blockIdx.x) * blockDim.y + threadIdx.y;
    while (group < groups && pixel < end) {
        int count = 1;

        load<GROUP>(x + pixel * channels + size_t(group) * GROUP, sums.pivot);
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            sums.offset[k] = sums.square[k] = 0;
        pixel += step;
#pragma unroll 4
        for (; count < RUN && pixel < end; count++, pixel += step) {
            float v[GROUP];

            load<GROUP>(x + pixel * channels + size_t(group) * GROUP, v);
#pragma unroll
            for (int k = 0; k < GROUP; k++) {
                float d = v[k] - sums.pivot[k];

                sums.offset[k] += d;
                sums.square[k] = fmaf(d, d, sums.square[k]);
            }
        }
        end_run(&sums, count);
    }
    add_rows(shared, sums.sum);
    add_rows(shared, sums.squares);
    if (threadIdx.y == 0 && group < groups) {
        double *out = parts + (size_t(s) * gridDim.x + blockIdx.x) * 2 * channels + group * GROUP;

#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            out[k] = sums.sum[k];
            out[channels + k] = sums.squares[k];
        }
    }
}
EMU_KERNEL(k_bn_sums<float>)
EMU_KERNEL(k_bn_sums<__half>)
EMU_KERNEL(k_bn_sums<__nv_bfloat16>)

template <class T>
static cudaError_t bn_sums(struct apd_shape shape, const struct apd_cuda_segments *seg, const T *x,
                           double *sums, size_t stride, double *scratch, cudaStream_t stream)
{
    int channels = rounded_channels(shape.c);
    Tile t = tile_of(channels);
    size_t plane = size_t(shape.h) * size_t(shape.w);
    size_t parts = parts_for(t, seg->count, largest_segment(seg) * plane, RUN);
    size_t shared = size_t(t.cols) * size_t(t.rows) * GROUP * sizeof(double);

    for (int from = 0; from < seg->count; from += LAUNCH_SEGMENTS) {
        Segments some;
        int count = segments_from(seg, from, NULL, &some);
        double *at = scratch + size_t(from) * parts * 2 * size_t(channels);
        cudaError_t status = launch(
            k_bn_sums<T>, dim3(unsigned(parts), unsigned(t.tiles), unsigned(count)),
            dim3(unsigned(t.cols), unsigned(t.rows)), shared, stream, x, some, plane, t.groups, at);

        if (status != cudaSuccess)
            return status;
    }
    return apd_cuda_add_parts(seg->count, int(parts), 2 * channels, scratch, sums, stride, stream);
}

extern "C" cudaError_t apd_cuda_bn_sums(enum apd_cuda_type type, struct apd_shape shape,
                                        const struct apd_cuda_segments *seg, const void *x,
                                        double *sums, size_t stride, void *scratch,
                                        cudaStream_t stream)
{
    FOR_TYPE(type, bn_sums(shape, seg, static_cast<const T *>(x), sums, stride,
                           static_cast<double *>(scratch), stream))
}

/* ---- moments ---- */

static __device__ __forceinline__ double variance_of(double sum, double squares, double count)
{
    double mean = sum / count, v = squares / count - mean * mean;

    return v < 0 ? 0 : v; /* NaN stays */
}

__global__ void __launch_bounds__(BLOCK_THREADS)
    k_bn_moments(int channels, const double *sums, size_t stride, Segments seg, double eps,
                 float *moments)
{
    double count = seg.number[blockIdx.y];
    const double *from = sums + blockIdx.y * stride;
    float *to = moments + size_t(blockIdx.y) * 2 * channels;
    int k = int(blockIdx.x * blockDim.x + threadIdx.x);

    if (k >= channels || count < 0)
        return;
    if (count == 0) {
        to[k] = to[channels + k] = 0;
        return;
    }
    to[k] = float(from[k] / count);
    to[channels + k] = float(1 / sqrt(variance_of(from[k], from[channels + k], count) + eps));
}
EMU_KERNEL(k_bn_moments)

extern "C" cudaError_t apd_cuda_bn_moments(int c, int segments, const double *sums, size_t stride,
                                           const double *count, double eps, float *moments,
                                           cudaStream_t stream)
{
    int channels = rounded_channels(c);
    unsigned blocks = unsigned(divide_up(size_t(channels), BLOCK_THREADS));

    for (int from = 0; from < segments; from += LAUNCH_SEGMENTS) {
        int some = segments - from < LAUNCH_SEGMENTS ? segments - from : LAUNCH_SEGMENTS;
        Segments seg = {};
        cudaError_t status;

        for (int s = 0; s < some; s++)
            seg.number[s] = count[from + s];
        status = launch(k_bn_moments, dim3(blocks, unsigned(some)), dim3(BLOCK_THREADS), 0, stream,
                        channels, sums + size_t(from) * stride, stride, seg, eps,
                        moments + size_t(from) * 2 * size_t(channels));
        if (status != cudaSuccess)
            return status;
    }
    return cudaSuccess;
}

__global__ void __launch_bounds__(BLOCK_THREADS)
    k_bn_moments_running(int channels, const float *mean, const float *variance, double eps,
                         float *moments)
{
    int k = int(blockIdx.x * blockDim.x + threadIdx.x);

    if (k >= channels)
        return;
    moments[k] = mean[k];
    moments[channels + k] = float(1 / sqrt(double(variance[k]) + eps));
}
EMU_KERNEL(k_bn_moments_running)

extern "C" cudaError_t apd_cuda_bn_moments_running(int c, const float *running_mean,
                                                   const float *running_var, double eps,
                                                   float *moments, cudaStream_t stream)
{
    int channels = rounded_channels(c);

    return launch(k_bn_moments_running, dim3(unsigned(divide_up(size_t(channels), BLOCK_THREADS))),
                  dim3(BLOCK_THREADS), 0, stream, channels, running_mean, running_var, eps,
                  moments);
}

__global__ void __launch_bounds__(BLOCK_THREADS)
    k_bn_update_running(int channels, const double *sums, double count, double momentum,
                        float *mean, float *variance)
{
    int k = int(blockIdx.x * blockDim.x + threadIdx.x);

    if (k >= channels)
        return;
    mean[k] = float((1 - momentum) * double(mean[k]) + momentum * (sums[k] / count));
    if (count >= 2) {
        double v = variance_of(sums[k], sums[channels + k], count);

        variance[k] =
            float((1 - momentum) * double(variance[k]) + momentum * v * count / (count - 1));
    }
}
EMU_KERNEL(k_bn_update_running)

extern "C" cudaError_t apd_cuda_bn_update_running(int c, const double *sums, double count,
                                                  double momentum, float *running_mean,
                                                  float *running_var, cudaStream_t stream)
{
    int channels = rounded_channels(c);

    if (count <= 0)
        return cudaSuccess;
    return launch(k_bn_update_running, dim3(unsigned(divide_up(size_t(channels), BLOCK_THREADS))),
                  dim3(BLOCK_THREADS), 0, stream, channels, sums, count, momentum, running_mean,
                  running_var);
}
