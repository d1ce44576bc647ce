/* Input images: from bytes to [-1, 1] (METHOD: mean = std = 0.5), noise, and the attack. */
#include "base/rng.h"
#include "kernels/ref/ref.h"

#include <string.h>

static enum apd_code ref_input_pack(struct apd_backend *be, int n, size_t pixels,
                                    const uint8_t *bytes, const struct apd_noise *noise, void *x,
                                    void *noisy, struct apd_err *err)
{
    real *clean = x, *dirty = noisy;

    (void)be;
    (void)err;
    for (int i = 0; i < n; i++) {
        struct apd_philox block = {{0}};

        for (size_t p = 0; p < pixels; p++) {
            size_t at = (size_t)i * pixels + p;
            real delta = 0;

            if (noise != NULL) {
                if (p % 4 == 0)
                    block = apd_rng(noise->seed, (enum apd_purpose)noise->purpose, noise->epoch[i],
                                    noise->sample[i], (uint32_t)(p / 4));
                /* 2 u - 1 is exact in float: one rounding, the same in every backend. */
                delta = (real)(2 * apd_uniform(block.v[p % 4]) - 1) * (real)noise->range;
            }
            clean[at] = (real)(bytes[at] / 127.5 - 1);
            if (dirty != NULL)
                dirty[at] = clean[at] + delta;
        }
    }
    return APD_OK;
}

static enum apd_code ref_attack_step(struct apd_backend *be, int n, size_t pixels, const void *x,
                                     const void *at, const void *d_x, double step, double eps,
                                     const int32_t *slot, void *next, struct apd_err *err)
{
    const real *clean = x, *from = at, *gradient = d_x;
    real radius = (real)eps, length = (real)step;

    (void)be;
    (void)err;
    for (int i = 0; i < n; i++) {
        real *dst = (real *)next + (size_t)(slot != NULL ? slot[i] : i) * pixels;

        for (size_t k = 0; k < pixels; k++, clean++, from++, gradient++) {
            real low = *clean - radius > -1 ? *clean - radius : -1;
            real high = *clean + radius < 1 ? *clean + radius : 1;
            real v = *from;

            if (*gradient > 0)
                v += length;
            else if (*gradient < 0)
                v -= length;
            v = v > low ? v : low;
            dst[k] = v < high ? v : high;
        }
    }
    return APD_OK;
}

static enum apd_code ref_mix_images(struct apd_backend *be, int n, struct apd_shape shape,
                                    const void *src, const struct apd_mix *mix, void *dst,
                                    struct apd_err *err)
{
    size_t plane = (size_t)shape.h * (size_t)shape.w, image = (size_t)shape.c * plane;
    real keep = (real)(1 - mix->share), share = (real)mix->share;
    const real *from = src;
    real *to = dst;

    (void)be;
    (void)err;
    for (size_t at = 0; at < (size_t)n * image; at++) {
        size_t i = at / image, p = at % image;
        int y = (int)(p % plane / (size_t)shape.w), x = (int)(p % (size_t)shape.w);
        int inside = y >= mix->top && y < mix->bottom && x >= mix->left && x < mix->right;
        real own = from[at], other = from[(size_t)mix->partner[i] * image + p];

        if (mix->is_box)
            to[at] = inside ? other : own;
        else
            to[at] = keep * own + share * other;
    }
    return APD_OK;
}

static enum apd_code ref_rows_gather(struct apd_backend *be, int rows, size_t row_elems,
                                     const void *src, const int32_t *index, void *dst,
                                     struct apd_err *err)
{
    size_t bytes = row_elems * sizeof(real);

    (void)be;
    (void)err;
    for (int i = 0; i < rows; i++)
        memcpy((char *)dst + (size_t)i * bytes, (const char *)src + (size_t)index[i] * bytes,
               bytes);
    return APD_OK;
}

void REF(image_ops)(struct apd_backend_ops *ops)
{
    ops->input_pack = ref_input_pack;
    ops->attack_step = ref_attack_step;
    ops->mix_images = ref_mix_images;
    ops->rows_gather = ref_rows_gather;
}
