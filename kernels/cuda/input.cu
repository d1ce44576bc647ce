/* Images: bytes to [-1, 1] with noise, the attack, mixing, rows by index, and the way between plain
 * images and activations. All float, every rounding as in kernels/cpu and kernels/ref. */
#include "kernels/cuda/philox.cuh"
#include "kernels/cuda/vec.cuh"

enum { QUAD = 4, MOST_ROWS = 65535, COPY_BLOCK = 256 };

/* Blocks along an image or row of `work` units, so that all images together fill the GPU. */
static unsigned blocks_along(size_t work, size_t images)
{
    size_t enough = divide_up(FLAT_MOST_BLOCKS, images);

    return unsigned(at_most(divide_up(work, COPY_BLOCK), enough));
}

static unsigned rows_of_grid(size_t rows)
{
    return unsigned(at_most(rows, MOST_ROWS));
}

/* ---- bytes in ---- */

struct Noise {
    const uint64_t *sample; /* NULL: none */
    const uint32_t *epoch;
    uint64_t seed;
    int purpose;
    float range;
};

/* Pixels of one Philox block, or as many as the image has left. Whole: all four, aligned. */
template <bool Whole>
static __device__ __forceinline__ void load_bytes(const uint8_t *bytes, int count, int (&out)[QUAD])
{
    if constexpr (Whole) {
        uchar4 four = *reinterpret_cast<const uchar4 *>(bytes);

        out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
    } else {
#pragma unroll
        for (int k = 0; k < QUAD; k++)
            out[k] = k < count ? bytes[k] : 0;
    }
}

template <bool Whole>
static __device__ __forceinline__ void store_pixels(float *to, int count, const float (&v)[QUAD])
{
    if constexpr (Whole) {
        store<QUAD>(to, v);
    } else {
#pragma unroll
        for (int k = 0; k < QUAD; k++)
            if (k < count)
                to[k] = v[k];
    }
}

/* Whole: images are a multiple of four pixels. */
template <bool Whole>
__global__ void __launch_bounds__(COPY_BLOCK)
    k_input_pack(int n, size_t pixels, const uint8_t *bytes, Noise noise, float *x, float *noisy)
{
    size_t quads = (pixels + QUAD - 1) / QUAD, step = size_t(gridDim.x) * blockDim.x;

    for (size_t i = blockIdx.y; i < size_t(n); i += gridDim.y)
        for (size_t q = size_t(blockIdx.x) * blockDim.x + threadIdx.x; q < quads; q += step) {
            size_t at = i * pixels + q * QUAD;
            int count = pixels - q * QUAD < QUAD ? int(pixels - q * QUAD) : QUAD, raw[QUAD];
            float v[QUAD];

            load_bytes<Whole>(bytes + at, count, raw);
            /* Equals (float)(raw / 127.5 - 1) for each of the 256 bytes; no double is needed. */
#pragma unroll
            for (int k = 0; k < QUAD; k++)
                v[k] = float(2 * raw[k] - 255) / 255.0f;
            store_pixels<Whole>(x + at, count, v);
            if (noisy == NULL)
                continue;
            if (noise.sample != NULL) {
                uint4 words = sample_block(noise.seed, noise.purpose, noise.epoch[i],
                                           noise.sample[i], uint32_t(q));

                v[0] += signed_uniform(words.x) * noise.range;
                v[1] += signed_uniform(words.y) * noise.range;
                v[2] += signed_uniform(words.z) * noise.range;
                v[3] += signed_uniform(words.w) * noise.range;
            }
            store_pixels<Whole>(noisy + at, count, v);
        }
}
EMU_KERNEL(k_input_pack<true>)
EMU_KERNEL(k_input_pack<false>)

extern "C" cudaError_t apd_cuda_input_pack(int n, size_t pixels, const uint8_t *bytes,
                                           const uint64_t *sample, const uint32_t *epoch,
                                           uint64_t seed, int purpose, double range, float *x,
                                           float *noisy, cudaStream_t stream)
{
    Noise noise = {sample, epoch, seed, purpose, float(range)};
    dim3 grid;

    if (n == 0 || pixels == 0)
        return cudaSuccess;
    grid = dim3(blocks_along(divide_up(pixels, QUAD), size_t(n)), rows_of_grid(size_t(n)));
    return launch(pixels % QUAD == 0 ? k_input_pack<true> : k_input_pack<false>, grid,
                  dim3(COPY_BLOCK), 0, stream, n, pixels, bytes, noise, x, noisy);
}

/* ---- attack ---- */

template <int N>
__global__ void __launch_bounds__(COPY_BLOCK)
    k_attack_step(int n, size_t pixels, const float *x, const float *at, const float *d_x,
                  float step, float eps, const int32_t *slot, float *next)
{
    for (size_t i = blockIdx.y; i < size_t(n); i += gridDim.y) {
        float *to = next + (slot != NULL ? size_t(slot[i]) : i) * pixels;

        for (size_t p = (size_t(blockIdx.x) * blockDim.x + threadIdx.x) * N; p < pixels;
             p += size_t(gridDim.x) * blockDim.x * N) {
            float clean[N], from[N], g[N];

            load<N>(x + i * pixels + p, clean);
            load<N>(at + i * pixels + p, from);
            load<N>(d_x + i * pixels + p, g);
#pragma unroll
            for (int k = 0; k < N; k++) {
                float low = clean[k] - eps, high = clean[k] + eps, v = from[k];

                v += g[k] > 0 ? step : g[k] < 0 ? -step : 0.0f;
                low = low > -1.0f ? low : -1.0f;
                high = high < 1.0f ? high : 1.0f;
                v = v > low ? v : low;
                from[k] = v < high ? v : high;
            }
            store<N>(to + p, from);
        }
    }
}
EMU_KERNEL(k_attack_step<QUAD>)
EMU_KERNEL(k_attack_step<1>)

extern "C" cudaError_t apd_cuda_attack_step(int n, size_t pixels, const float *x, const float *at,
                                            const float *d_x, double step, double eps,
                                            const int32_t *slot, float *next, cudaStream_t stream)
{
    bool whole = pixels % QUAD == 0;
    dim3 grid;

    if (n == 0 || pixels == 0)
        return cudaSuccess;
    grid =
        dim3(blocks_along(divide_up(pixels, whole ? QUAD : 1), size_t(n)), rows_of_grid(size_t(n)));
    return launch(whole ? k_attack_step<QUAD> : k_attack_step<1>, grid, dim3(COPY_BLOCK), 0, stream,
                  n, pixels, x, at, d_x, float(step), float(eps), slot, next);
}

/* ---- mixing ---- */

struct Box {
    int is_box, top, bottom, left, right;

    /* Of a plane of width w. */
    __device__ __forceinline__ bool has(unsigned pixel, int w) const
    {
        int y = int(pixel / unsigned(w)), x = int(pixel % unsigned(w));

        return y >= top && y < bottom && x >= left && x < right;
    }
};

template <int N>
__global__ void __launch_bounds__(COPY_BLOCK)
    k_mix_images(int n, int c, int h, int w, const float *src, Box box, float keep, float share,
                 const int32_t *partner, float *dst)
{
    size_t plane = size_t(h) * w, image = plane * c;

    for (size_t i = blockIdx.y; i < size_t(n); i += gridDim.y) {
        const float *own = src + i * image, *other = src + size_t(partner[i]) * image;

        for (size_t p = (size_t(blockIdx.x) * blockDim.x + threadIdx.x) * N; p < image;
             p += size_t(gridDim.x) * blockDim.x * N) {
            float mine[N], theirs[N];

            load<N>(own + p, mine);
            load<N>(other + p, theirs);
#pragma unroll
            for (int k = 0; k < N; k++) {
                if (box.is_box)
                    mine[k] = box.has(unsigned(p + k) % unsigned(plane), w) ? theirs[k] : mine[k];
                else
                    mine[k] = keep * mine[k] + share * theirs[k];
            }
            store<N>(dst + i * image + p, mine);
        }
    }
}
EMU_KERNEL(k_mix_images<QUAD>)
EMU_KERNEL(k_mix_images<1>)

extern "C" cudaError_t apd_cuda_mix_images(int n, struct apd_shape shape, const float *src,
                                           const struct apd_mix *mix, const int32_t *partner,
                                           float *dst, cudaStream_t stream)
{
    size_t image = size_t(shape.c) * size_t(shape.h) * size_t(shape.w);
    bool whole = image % QUAD == 0;
    Box box = {mix->is_box, mix->top, mix->bottom, mix->left, mix->right};
    dim3 grid;

    if (n == 0 || image == 0)
        return cudaSuccess;
    grid =
        dim3(blocks_along(divide_up(image, whole ? QUAD : 1), size_t(n)), rows_of_grid(size_t(n)));
    return launch(whole ? k_mix_images<QUAD> : k_mix_images<1>, grid, dim3(COPY_BLOCK), 0, stream,
                  n, shape.c, shape.h, shape.w, src, box, float(1 - mix->share), float(mix->share),
                  partner, dst);
}

/* ---- rows ---- */

/* units: of a row, in words of type U. */
template <class U>
__global__ void __launch_bounds__(COPY_BLOCK)
    k_rows_gather(int rows, size_t units, const U *src, const int32_t *index, U *dst)
{
    for (size_t row = blockIdx.y; row < size_t(rows); row += gridDim.y) {
        const U *from = src + size_t(index[row]) * units;

        for (size_t k = size_t(blockIdx.x) * blockDim.x + threadIdx.x; k < units;
             k += size_t(gridDim.x) * blockDim.x)
            dst[row * units + k] = from[k];
    }
}
EMU_KERNEL(k_rows_gather<uint4>)
EMU_KERNEL(k_rows_gather<unsigned>)
EMU_KERNEL(k_rows_gather<unsigned char>)

template <class U>
static cudaError_t gather(int rows, size_t bytes, const void *src, const int32_t *index, void *dst,
                          cudaStream_t stream)
{
    size_t units = bytes / sizeof(U);

    return launch(k_rows_gather<U>,
                  dim3(blocks_along(units, size_t(rows)), rows_of_grid(size_t(rows))),
                  dim3(COPY_BLOCK), 0, stream, rows, units, static_cast<const U *>(src), index,
                  static_cast<U *>(dst));
}

extern "C" cudaError_t apd_cuda_rows_gather(int rows, size_t row_bytes, const void *src,
                                            const int32_t *index, void *dst, cudaStream_t stream)
{
    size_t all = row_bytes | reinterpret_cast<uintptr_t>(src) | reinterpret_cast<uintptr_t>(dst);

    if (rows == 0 || row_bytes == 0)
        return cudaSuccess;
    if (all % sizeof(uint4) == 0)
        return gather<uint4>(rows, row_bytes, src, index, dst, stream);
    if (all % sizeof(unsigned) == 0)
        return gather<unsigned>(rows, row_bytes, src, index, dst, stream);
    return gather<unsigned char>(rows, row_bytes, src, index, dst, stream);
}

/* ---- plain images and activations ---- */

/* One thread: the 8 channels (blockIdx.z) of one pixel. */
template <class T>
__global__ void __launch_bounds__(COPY_BLOCK)
    k_image_to_activation(int n, int c, size_t plane, const float *src, T *dst)
{
    size_t first = size_t(blockIdx.z) * 8, channels = size_t(gridDim.z) * 8;

    for (size_t i = blockIdx.y; i < size_t(n); i += gridDim.y)
        for (size_t p = size_t(blockIdx.x) * blockDim.x + threadIdx.x; p < plane;
             p += size_t(gridDim.x) * blockDim.x) {
            float v[8];

#pragma unroll
            for (int k = 0; k < 8; k++)
                v[k] = first + k < size_t(c) ? src[(i * c + first + k) * plane + p] : 0.0f;
            store<8>(dst + (i * plane + p) * channels + first, v);
        }
}
EMU_KERNEL(k_image_to_activation<float>)
EMU_KERNEL(k_image_to_activation<__half>)
EMU_KERNEL(k_image_to_activation<__nv_bfloat16>)

template <class T>
__global__ void __launch_bounds__(COPY_BLOCK)
    k_activation_to_image(int n, int c, size_t plane, const T *src, float *dst)
{
    size_t first = size_t(blockIdx.z) * 8, channels = size_t(gridDim.z) * 8;

    for (size_t i = blockIdx.y; i < size_t(n); i += gridDim.y)
        for (size_t p = size_t(blockIdx.x) * blockDim.x + threadIdx.x; p < plane;
             p += size_t(gridDim.x) * blockDim.x) {
            float v[8];

            load<8>(src + (i * plane + p) * channels + first, v);
#pragma unroll
            for (int k = 0; k < 8; k++)
                if (first + k < size_t(c))
                    dst[(i * c + first + k) * plane + p] = v[k];
        }
}
EMU_KERNEL(k_activation_to_image<float>)
EMU_KERNEL(k_activation_to_image<__half>)
EMU_KERNEL(k_activation_to_image<__nv_bfloat16>)

static dim3 image_grid(int n, struct apd_shape shape)
{
    size_t groups = divide_up(size_t(shape.c), 8), plane = size_t(shape.h) * size_t(shape.w);

    return dim3(blocks_along(plane, size_t(n) * groups), rows_of_grid(size_t(n)), unsigned(groups));
}

extern "C" cudaError_t apd_cuda_image_to_activation(enum apd_cuda_type type, int n,
                                                    struct apd_shape shape, const float *src,
                                                    void *dst, cudaStream_t stream)
{
    if (n == 0)
        return cudaSuccess;
    FOR_TYPE(type,
             launch(k_image_to_activation<T>, image_grid(n, shape), dim3(COPY_BLOCK), 0, stream, n,
                    shape.c, size_t(shape.h) * size_t(shape.w), src, static_cast<T *>(dst)))
}

extern "C" cudaError_t apd_cuda_activation_to_image(enum apd_cuda_type type, int n,
                                                    struct apd_shape shape, const void *src,
                                                    float *dst, cudaStream_t stream)
{
    if (n == 0)
        return cudaSuccess;
    FOR_TYPE(type,
             launch(k_activation_to_image<T>, image_grid(n, shape), dim3(COPY_BLOCK), 0, stream, n,
                    shape.c, size_t(shape.h) * size_t(shape.w), static_cast<const T *>(src), dst))
}
