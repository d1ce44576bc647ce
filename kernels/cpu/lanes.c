/* The inner loops behind simd.h. Compiled three times with APD_SIMD (the table's name) and
 * APD_BLOCK (floats per vector) and the flags of one instruction set; a vector wider than the
 * machine's registers is split by the compiler. Multiplications and additions may fuse in this
 * file. */
#include "kernels/cpu/simd.h"

#include "kernels/shape.h"

#include <stdint.h>
#include <string.h>

#define BLOCK      APD_BLOCK
#define STRETCH    256u /* pixels summed in float before double takes over */
#define GENERATORS 16   /* Philox blocks made side by side */

typedef float vf __attribute__((vector_size(4 * BLOCK)));
typedef int32_t vi __attribute__((vector_size(4 * BLOCK)));
typedef uint8_t vb __attribute__((vector_size(BLOCK)));
typedef float vf_any __attribute__((vector_size(4 * BLOCK), aligned(4), may_alias));

static inline vf load(const float *p)
{
    return *(const vf_any *)p;
}

static inline void store(float *p, vf v)
{
    *(vf_any *)p = v;
}

/* v where the mask is all ones, +0 elsewhere. */
static inline vf keep(vi mask, vf v)
{
    return (vf)(mask & (vi)v);
}

static inline vf choose(vi mask, vf yes, vf no)
{
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* NaN stays NaN, so that it is seen later. */
static inline vf relu_of(vf v)
{
    return keep(~(v < 0.0f), v);
}

/* ---- batch norm ---- */

static void stretch_sums(const float *x, size_t pixels, double *sum, double *squares)
{
    vf a[4] = {{0}}, b[4] = {{0}}, pivot;
    size_t k = 0;

    for (; k + 4 <= pixels; k += 4)
        for (int j = 0; j < 4; j++)
            a[j] += load(x + (k + (size_t)j) * BLOCK);
    for (; k < pixels; k++)
        a[0] += load(x + k * BLOCK);
    pivot = ((a[0] + a[1]) + (a[2] + a[3])) * (1.0f / (float)pixels);

    memset(a, 0, sizeof a);
    for (k = 0; k + 4 <= pixels; k += 4)
        for (int j = 0; j < 4; j++) {
            vf d = load(x + (k + (size_t)j) * BLOCK) - pivot;

            a[j] += d;
            b[j] += d * d;
        }
    for (; k < pixels; k++) {
        vf d = load(x + k * BLOCK) - pivot;

        a[0] += d;
        b[0] += d * d;
    }
    a[0] = (a[0] + a[1]) + (a[2] + a[3]);
    b[0] = (b[0] + b[1]) + (b[2] + b[3]);
    for (int l = 0; l < BLOCK; l++) {
        double p = pivot[l], offsets = a[0][l], n = (double)pixels;

        sum[l] += offsets + n * p;
        squares[l] += b[0][l] + p * (2 * offsets + n * p);
    }
}

static void bn_sums(const float *x, size_t stride, int images, size_t pixels, double *sum,
                    double *squares)
{
    memset(sum, 0, BLOCK * sizeof *sum);
    memset(squares, 0, BLOCK * sizeof *squares);
    for (int i = 0; i < images; i++, x += stride)
        for (size_t k = 0; k < pixels; k += STRETCH)
            stretch_sums(x + k * BLOCK, pixels - k < STRETCH ? pixels - k : STRETCH, sum, squares);
}

static inline __attribute__((always_inline)) void bn_forward_loop(const float *x, const float *add,
                                                                  size_t pixels,
                                                                  struct apd_bn_lanes p, int relu,
                                                                  float *y)
{
    vf mean = load(p.mean), scale = load(p.scale), beta = load(p.beta);

    for (size_t k = 0; k < pixels * BLOCK; k += BLOCK) {
        vf v = (load(x + k) - mean) * scale + beta;

        if (add != NULL)
            v += load(add + k);
        store(y + k, relu ? relu_of(v) : v);
    }
}

static void bn_forward(const float *x, const float *add, size_t pixels, struct apd_bn_lanes p,
                       int relu, float *y)
{
    if (add == NULL && relu)
        bn_forward_loop(x, NULL, pixels, p, 1, y);
    else if (add == NULL)
        bn_forward_loop(x, NULL, pixels, p, 0, y);
    else if (relu)
        bn_forward_loop(x, add, pixels, p, 1, y);
    else
        bn_forward_loop(x, add, pixels, p, 0, y);
}

static inline vf gradient_at(const float *d_y, const float *d_y2, const float *relu_y, size_t k)
{
    vf g = load(d_y + k);

    if (d_y2 != NULL)
        g += load(d_y2 + k);
    if (relu_y != NULL)
        g = keep(~(load(relu_y + k) <= 0.0f), g);
    return g;
}

static inline __attribute__((always_inline)) void
bn_backward_sums_loop(const float *d_y, const float *d_y2, const float *relu_y, const float *x,
                      size_t pixels, const float *lanes_mean, float *g_out, double *sum,
                      double *sum_xc)
{
    vf mean = load(lanes_mean);

    for (size_t from = 0; from < pixels; from += STRETCH) {
        size_t to = pixels - from < STRETCH ? pixels : from + STRETCH, k = from;
        vf a[2] = {{0}}, b[2] = {{0}};

        for (; k + 2 <= to; k += 2)
            for (int j = 0; j < 2; j++) {
                size_t at = (k + (size_t)j) * BLOCK;
                vf g = gradient_at(d_y, d_y2, relu_y, at);

                a[j] += g;
                b[j] += g * (load(x + at) - mean);
                if (g_out != NULL)
                    store(g_out + at, g);
            }
        for (; k < to; k++) {
            vf g = gradient_at(d_y, d_y2, relu_y, k * BLOCK);

            a[0] += g;
            b[0] += g * (load(x + k * BLOCK) - mean);
            if (g_out != NULL)
                store(g_out + k * BLOCK, g);
        }
        a[0] += a[1];
        b[0] += b[1];
        for (int l = 0; l < BLOCK; l++) {
            sum[l] += a[0][l];
            sum_xc[l] += b[0][l];
        }
    }
}

static void bn_backward_sums(const float *d_y, const float *d_y2, const float *relu_y,
                             const float *x, size_t pixels, const float *mean, float *g_out,
                             double *sum, double *sum_xc)
{
    if (relu_y != NULL && d_y2 != NULL)
        bn_backward_sums_loop(d_y, d_y2, relu_y, x, pixels, mean, g_out, sum, sum_xc);
    else if (relu_y != NULL)
        bn_backward_sums_loop(d_y, NULL, relu_y, x, pixels, mean, g_out, sum, sum_xc);
    else
        bn_backward_sums_loop(d_y, d_y2, NULL, x, pixels, mean, g_out, sum, sum_xc);
}

static void bn_backward_data(const float *g, const float *x, size_t pixels,
                             struct apd_bn_gradient_lanes p, float *d_x)
{
    vf mean = load(p.mean), scale = load(p.scale), mean_g = load(p.mean_g), slope = load(p.slope);

    for (size_t k = 0; k < pixels * BLOCK; k += BLOCK)
        store(d_x + k, scale * (load(g + k) - mean_g - (load(x + k) - mean) * slope));
}

/* ---- pooling ---- */

static void maxpool_forward(const float *src, int h, int w, float *dst, uint8_t *which)
{
    int out_h = apd_window_count(h, 3, 2, 1), out_w = apd_window_count(w, 3, 2, 1);

    for (int y = 0; y < out_h; y++)
        for (int x = 0; x < out_w; x++, dst += BLOCK, which += BLOCK) {
            /* The centre (place 4) is always inside; the first in reading order wins among equals.
             */
            int first_y = y == 0, first_x = x == 0;
            vf best = load(src + ((2 * y - 1 + first_y) * w + 2 * x - 1 + first_x) * BLOCK);
            vi place = (first_y * 3 + first_x) - (vi){0};
            vb bytes;

            for (int ky = first_y; ky < 3 && 2 * y - 1 + ky < h; ky++)
                for (int kx = first_x; kx < 3 && 2 * x - 1 + kx < w; kx++) {
                    vf v = load(src + ((2 * y - 1 + ky) * w + 2 * x - 1 + kx) * BLOCK);
                    vi better = (v > best) | (v != v);

                    best = choose(better, v, best);
                    place = (better & (ky * 3 + kx)) | (~better & place);
                }
            store(dst, best);
            bytes = __builtin_convertvector(place, vb);
            memcpy(which, &bytes, sizeof bytes);
        }
}

/* Every source pixel lies in at most 2 x 2 windows: gather from those, nothing is zeroed first. */
static void maxpool_backward(const float *d_dst, const uint8_t *which, int h, int w, float *d_src)
{
    int out_h = apd_window_count(h, 3, 2, 1), out_w = apd_window_count(w, 3, 2, 1);

    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++, d_src += BLOCK) {
            vf sum = {0};

            for (int oy = y / 2; oy <= (y + 1) / 2 && oy < out_h; oy++)
                for (int ox = x / 2; ox <= (x + 1) / 2 && ox < out_w; ox++) {
                    size_t at = (size_t)(oy * out_w + ox) * BLOCK;
                    int place = (y - 2 * oy + 1) * 3 + (x - 2 * ox + 1);
                    vb bytes;

                    memcpy(&bytes, which + at, sizeof bytes);
                    sum += keep(__builtin_convertvector(bytes, vi) == place, load(d_dst + at));
                }
            store(d_src, sum);
        }
}

static void plane_mean(const float *src, size_t pixels, float *lanes)
{
    vf sum = {0};

    for (size_t k = 0; k < pixels; k++)
        sum += load(src + k * BLOCK);
    store(lanes, sum / (float)pixels);
}

static void plane_fill(const float *lanes, size_t pixels, float *dst)
{
    vf v = load(lanes);

    for (size_t k = 0; k < pixels; k++)
        store(dst + k * BLOCK, v);
}

/* ---- images ---- */

/* Philox 4x32-10 as in base/rng.c, for GENERATORS consecutive blocks. out[word][generator]. */
static void philox_side_by_side(struct apd_noise_stream s, uint32_t first,
                                uint32_t out[4][GENERATORS])
{
    uint32_t k0 = (uint32_t)s.key, k1 = (uint32_t)(s.key >> 32);

    for (uint32_t g = 0; g < GENERATORS; g++) {
        out[0][g] = first + g;
        out[1][g] = s.word1;
        out[2][g] = s.word2;
        out[3][g] = s.word3;
    }
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        for (int g = 0; g < GENERATORS; g++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * out[0][g];
            uint64_t p1 = (uint64_t)0xCD9E8D57u * out[2][g];
            uint32_t c1 = out[1][g], c3 = out[3][g];

            out[0][g] = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
            out[1][g] = (uint32_t)p1;
            out[2][g] = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
            out[3][g] = (uint32_t)p0;
        }
}

static void noise(struct apd_noise_stream stream, uint32_t first, size_t blocks, float range,
                  float *out)
{
    uint32_t words[4][GENERATORS];

    for (size_t b = 0; b < blocks; b += GENERATORS) {
        size_t made = blocks - b < GENERATORS ? blocks - b : GENERATORS;

        philox_side_by_side(stream, first + (uint32_t)b, words);
        for (size_t g = 0; g < made; g++)
            for (size_t k = 0; k < 4; k++)
                out[4 * (b + g) + k] =
                    ((float)(int32_t)(words[k][g] >> 8) * 0x1p-23f - 1.0f) * range;
    }
}

static void attack(size_t n, const float *x, const float *at, const float *d_x, float step,
                   float eps, float *next)
{
    for (size_t i = 0; i < n; i++) {
        float low = x[i] - eps, high = x[i] + eps, v = at[i];

        v += d_x[i] > 0 ? step : d_x[i] < 0 ? -step : 0.0f;
        low = low > -1.0f ? low : -1.0f;
        high = high < 1.0f ? high : 1.0f;
        v = v > low ? v : low;
        next[i] = v < high ? v : high;
    }
}

/* ---- flat arrays ---- */

static void add(size_t n, const float *restrict src, float *restrict dst)
{
    for (size_t i = 0; i < n; i++)
        dst[i] += src[i];
}

static void sgd(size_t n, const struct apd_sgd *p, const float *restrict d_w, float *restrict w,
                float *restrict m)
{
    float scale = (float)p->grad_scale, lr = (float)p->lr, mu = (float)p->momentum;
    float wd = (float)p->weight_decay;

    if (p->nesterov)
        for (size_t i = 0; i < n; i++) {
            float g = scale * d_w[i] + wd * w[i], v = mu * m[i] + g;

            m[i] = v;
            w[i] -= lr * (g + mu * v);
        }
    else
        for (size_t i = 0; i < n; i++) {
            float v = mu * m[i] + (scale * d_w[i] + wd * w[i]);

            m[i] = v;
            w[i] -= lr * v;
        }
}

static int nonfinite(size_t n, const float *x)
{
    uint32_t bad = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, x + i, sizeof bits);
        bad |= (bits & 0x7F800000u) == 0x7F800000u;
    }
    return (int)bad;
}

const struct apd_simd APD_SIMD = {
    .block = BLOCK,
    .bn_sums = bn_sums,
    .bn_forward = bn_forward,
    .bn_backward_sums = bn_backward_sums,
    .bn_backward_data = bn_backward_data,
    .maxpool_forward = maxpool_forward,
    .maxpool_backward = maxpool_backward,
    .plane_mean = plane_mean,
    .plane_fill = plane_fill,
    .noise = noise,
    .attack = attack,
    .add = add,
    .sgd = sgd,
    .nonfinite = nonfinite,
};
