/* Batch norm: sums over segments, and moments from them or from running statistics.
 *
 * Sums. A thread reads RUN values of a channel and sums them about the first of them in float: the
 * differences are exact to their own size, however large the mean. Then double takes over: 6
 * operations in double every RUN values cost nothing even where double runs at 1/64 of the speed.
 * (All sums in double would be bound by conversions on an A100, and hopeless elsewhere.) */
#include "kernels/cuda/bn.cuh"

/* ---- sums ---- */

/* Sums of one thread: in float about `pivot` over a run, in double over all. */
struct Sums {
    float pivot[GROUP];
    LongSum offset, square;

    __device__ __forceinline__ void add(const float (&v)[GROUP])
    {
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            float d = v[k] - pivot[k];

            offset.run[k] += d;
            square.run[k] = fmaf(d, d, square.run[k]);
        }
    }

    __device__ __forceinline__ void end_run(int count)
    {
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            double p = pivot[k], off = offset.run[k], n = count;

            offset.of(k) += off + n * p;
            square.of(k) += double(square.run[k]) + p * (2 * off + n * p);
            offset.run[k] = square.run[k] = 0;
        }
    }
};

/* parts: [segment][part][2][channels]. The loop over a run has one condition, so that the loads of
 * several values are on their way at once. */
template <class T>
__global__ void __launch_bounds__(BLOCK_THREADS, 3)
    k_bn_sums(const T *x, Segments seg, size_t plane, int groups, double *parts)
{
    DYN_SHARED(double, shared);
    Walk w = walk_over(seg, plane, groups);
    /* 2^32 pixels would be 64 GiB of one activation. */
    unsigned pixels = unsigned(seg.images[w.s]) * unsigned(plane);
    unsigned pixel = blockIdx.x * blockDim.y + threadIdx.y, step = gridDim.x * blockDim.y;
    int left = w.group < groups && pixel < pixels ? int((pixels - pixel + step - 1) / step) : 0;
    Sums sums;

    sums.offset.begin(shared, 0);
    sums.square.begin(shared, 1);
    while (left > 0) {
        int run = left < RUN ? left : int(RUN);

        load<GROUP>(x + w.at, sums.pivot);
        w.at += w.step;
#pragma unroll 4
        for (int count = 1; count < run; count++, w.at += w.step) {
            float v[GROUP];

            load<GROUP>(x + w.at, v);
            sums.add(v);
        }
        sums.end_run(run);
        left -= run;
    }
    add_rows(sums.offset.all);
    add_rows(sums.square.all);
    if (threadIdx.y == 0 && w.group < groups) {
        double *out = parts + (size_t(w.s) * gridDim.x + blockIdx.x) * 2 * w.channels + w.channel;

#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            out[k] = sums.offset.of(k);
            out[w.channels + k] = sums.square.of(k);
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
    Layout l = layout_of(shape, seg, plane_of(shape), RUN);
    auto launch_some = [&](int from, int count, const Segments &some) {
        return launch(k_bn_sums<T>, l.grid(count), l.block(), l.sums_bytes(2), stream, x, some,
                      l.plane, l.tile.groups, scratch + size_t(from) * l.parts * l.row);
    };
    cudaError_t status = for_segments(seg, NULL, launch_some);

    if (status != cudaSuccess)
        return status;
    return apd_cuda_add_parts(seg->count, int(l.parts), int(l.row), scratch, sums, stride, stream);
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
