#include "kernels/ref/ref.h"
#include "kernels/shape.h"

#include <math.h>
#include <string.h>

/* The winner of one window; among equals the first in reading order, a NaN beats numbers. */
static real best_of_window(const real *src, int h, int w, int y, int x, uint8_t *out_which)
{
    real best = 0;
    int found = 0;

    for (int k = 0; k < 9; k++) {
        int sy = 2 * y - 1 + k / 3, sx = 2 * x - 1 + k % 3;
        real v;

        if (sy < 0 || sy >= h || sx < 0 || sx >= w)
            continue;
        v = src[sy * w + sx];
        if (!found || v > best || isnan(v)) {
            best = v;
            *out_which = (uint8_t)k;
            found = 1;
        }
    }
    return best;
}

static enum apd_code ref_maxpool_forward(struct apd_backend *be, struct apd_shape in, int n,
                                         const void *src, void *dst, uint8_t *which,
                                         struct apd_err *err)
{
    struct apd_shape out = apd_maxpool_out(in);
    const real *from = src;
    real *to = dst;

    (void)be;
    (void)err;
    for (int p = 0; p < n * in.c; p++, from += in.h * in.w)
        for (int y = 0; y < out.h; y++)
            for (int x = 0; x < out.w; x++)
                *to++ = best_of_window(from, in.h, in.w, y, x, which++);
    return APD_OK;
}

static enum apd_code ref_maxpool_backward(struct apd_backend *be, struct apd_shape in, int n,
                                          const void *d_dst, const uint8_t *which, void *d_src,
                                          struct apd_err *err)
{
    struct apd_shape out = apd_maxpool_out(in);
    const real *from = d_dst;
    real *to = d_src;

    (void)be;
    (void)err;
    memset(to, 0, (size_t)n * apd_shape_elems(in) * sizeof *to);
    for (int p = 0; p < n * in.c; p++, to += in.h * in.w)
        for (int y = 0; y < out.h; y++)
            for (int x = 0; x < out.w; x++, which++)
                to[(2 * y - 1 + *which / 3) * in.w + 2 * x - 1 + *which % 3] += *from++;
    return APD_OK;
}

static enum apd_code ref_avgpool_forward(struct apd_backend *be, struct apd_shape in, int n,
                                         const void *src, void *dst, struct apd_err *err)
{
    const real *from = src;
    real *to = dst;
    int plane = in.h * in.w;

    (void)be;
    (void)err;
    for (int p = 0; p < n * in.c; p++) {
        double sum = 0;

        for (int k = 0; k < plane; k++)
            sum += *from++;
        *to++ = (real)(sum / plane);
    }
    return APD_OK;
}

static enum apd_code ref_avgpool_backward(struct apd_backend *be, struct apd_shape in, int n,
                                          const void *d_dst, void *d_src, struct apd_err *err)
{
    const real *from = d_dst;
    real *to = d_src;
    int plane = in.h * in.w;

    (void)be;
    (void)err;
    for (int p = 0; p < n * in.c; p++, from++)
        for (int k = 0; k < plane; k++)
            *to++ = (real)(*from / (double)plane);
    return APD_OK;
}

void REF(pool_ops)(struct apd_backend_ops *ops)
{
    ops->maxpool_forward = ref_maxpool_forward;
    ops->maxpool_backward = ref_maxpool_backward;
    ops->avgpool_forward = ref_avgpool_forward;
    ops->avgpool_backward = ref_avgpool_backward;
}
