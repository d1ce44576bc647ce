/* Batch norm over segments; formulas beside the declarations in kernels/backend.h. eps goes inside
 * the root, here and nowhere else than in bn_moments and bn_moments_running. */
#include "kernels/ref/ref.h"
#include "kernels/shape.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

static size_t plane(struct apd_shape s)
{
    return (size_t)s.h * (size_t)s.w;
}

/* First element of channel c of image i. */
static size_t place(struct apd_shape s, int i, int c)
{
    return ((size_t)i * (size_t)s.c + (size_t)c) * plane(s);
}

/* Row `which` (0 or 1) of segment s in a [segments][2][c] array. */
static size_t row(int c, int s, int which)
{
    return ((size_t)s * 2 + (size_t)which) * (size_t)c;
}

static enum apd_code ref_bn_sums(struct apd_backend *be, struct apd_shape shape,
                                 const struct apd_segment *seg, int segments, const void *x,
                                 double *sums, size_t stride, struct apd_err *err)
{
    const real *src = x;

    (void)be;
    (void)err;
    assert(apd_segments_ok(seg, segments, -1));
    for (int s = 0; s < segments; s++)
        for (int c = 0; c < shape.c; c++) {
            double sum = 0, squares = 0;

            for (int i = seg[s].first; i < seg[s].first + seg[s].count; i++)
                for (size_t k = 0; k < plane(shape); k++) {
                    double v = src[place(shape, i, c) + k];

                    sum += v;
                    squares += v * v;
                }
            sums[(size_t)s * stride + (size_t)c] = sum;
            sums[(size_t)s * stride + (size_t)shape.c + (size_t)c] = squares;
        }
    return APD_OK;
}

static enum apd_code ref_bn_moments(struct apd_backend *be, int c, int segments, const double *sums,
                                    size_t stride, const double *count, double eps, void *moments,
                                    struct apd_err *err)
{
    real *out = moments;

    (void)be;
    (void)err;
    for (int s = 0; s < segments; s++)
        for (int k = 0; k < c; k++) {
            size_t first = row(c, s, 0) + (size_t)k, second = row(c, s, 1) + (size_t)k;
            const double *sum = sums + (size_t)s * stride + k;
            double mean, variance;

            if (count[s] < 0)
                continue;
            if (count[s] == 0) {
                out[first] = out[second] = 0;
                continue;
            }
            mean = sum[0] / count[s];
            variance = fmax(sum[c] / count[s] - mean * mean, 0);
            out[first] = (real)mean;
            out[second] = (real)(1 / sqrt(variance + eps));
        }
    return APD_OK;
}

static enum apd_code ref_bn_moments_running(struct apd_backend *be, int c, const void *running_mean,
                                            const void *running_var, double eps, void *moments,
                                            struct apd_err *err)
{
    const real *mean = running_mean, *variance = running_var;
    real *out = moments;

    (void)be;
    (void)err;
    for (int k = 0; k < c; k++) {
        out[k] = mean[k];
        out[c + k] = (real)(1 / sqrt(variance[k] + eps));
    }
    return APD_OK;
}

static void forward(const struct apd_bn *bn, const real *add, int relu, real *y)
{
    const struct apd_segment *seg = bn->seg;
    const real *src = bn->x, *m = bn->moments;
    struct apd_shape shape = bn->shape;

    assert(apd_segments_ok(seg, bn->segments, -1));
    for (int s = 0; s < bn->segments; s++)
        for (int i = seg[s].first; i < seg[s].first + seg[s].count; i++)
            for (int c = 0; c < shape.c; c++) {
                double mean = m[row(shape.c, s, 0) + (size_t)c];
                double rstd = m[row(shape.c, s, 1) + (size_t)c];
                double g = ((const real *)bn->gamma[seg[s].set])[c];
                double b = ((const real *)bn->beta[seg[s].set])[c];
                size_t at = place(shape, i, c);

                for (size_t k = at; k < at + plane(shape); k++) {
                    double v = (src[k] - mean) * rstd * g + b;

                    if (add != NULL)
                        v += add[k];
                    y[k] = (real)(relu && v < 0 ? 0 : v);
                }
            }
}

static enum apd_code ref_bn_forward(struct apd_backend *be, const struct apd_bn *bn,
                                    const struct apd_bn *other, const void *add, int relu, void *y,
                                    uint8_t *mask, struct apd_err *err)
{
    (void)be;
    (void)mask;
    (void)err;
    if (other != NULL)
        forward(other, NULL, 0, y);
    forward(bn, other != NULL ? y : add, relu, y);
    return APD_OK;
}

static size_t ref_relu_mask_bytes(struct apd_backend *be, struct apd_shape shape, int n)
{
    (void)be;
    (void)shape;
    (void)n;
    return 0;
}

static void backward_sums(const struct apd_bn *bn, const real *d_y, const real *d_y2, const real *y,
                          real *d_g, double *d_sums)
{
    const struct apd_segment *seg = bn->seg;
    const real *src = bn->x, *m = bn->moments;
    struct apd_shape shape = bn->shape;

    assert(apd_segments_ok(seg, bn->segments, -1));
    for (int s = 0; s < bn->segments; s++)
        for (int c = 0; c < shape.c; c++) {
            double mean = m[row(shape.c, s, 0) + (size_t)c];
            double rstd = m[row(shape.c, s, 1) + (size_t)c];
            double sum = 0, sum_xhat = 0;

            for (int i = seg[s].first; i < seg[s].first + seg[s].count; i++) {
                size_t at = place(shape, i, c);

                for (size_t k = at; k < at + plane(shape); k++) {
                    double g = d_y[k];

                    if (d_y2 != NULL)
                        g += d_y2[k];
                    if (y != NULL && y[k] <= 0)
                        g = 0;
                    d_g[k] = (real)g;
                    sum += g;
                    sum_xhat += g * (src[k] - mean) * rstd;
                }
            }
            d_sums[row(shape.c, s, 0) + (size_t)c] = sum;
            d_sums[row(shape.c, s, 1) + (size_t)c] = sum_xhat;
        }
}

static enum apd_code ref_bn_backward_sums(struct apd_backend *be, const struct apd_bn *bn,
                                          const struct apd_bn *other, const struct apd_relu *relu,
                                          const void *d_y, const void *d_y2, void *d_g,
                                          double *d_sums, double *d_sums_other, struct apd_err *err)
{
    (void)be;
    (void)err;
    backward_sums(bn, d_y, d_y2, relu != NULL ? relu->y : NULL, d_g, d_sums);
    if (other != NULL)
        backward_sums(other, d_g, NULL, NULL, d_g, d_sums_other);
    return APD_OK;
}

static void backward_data(const struct apd_bn *bn, const real *d_g, const double *d_sums,
                          const double *count, int batch_stats, real *d_x)
{
    const struct apd_segment *seg = bn->seg;
    const real *src = bn->x, *m = bn->moments;
    struct apd_shape shape = bn->shape;

    assert(apd_segments_ok(seg, bn->segments, -1));
    for (int s = 0; s < bn->segments; s++)
        for (int i = seg[s].first; i < seg[s].first + seg[s].count; i++)
            for (int c = 0; c < shape.c; c++) {
                size_t k0 = row(shape.c, s, 0) + (size_t)c, k1 = row(shape.c, s, 1) + (size_t)c;
                double mean = m[k0], rstd = m[k1];
                double scale = ((const real *)bn->gamma[seg[s].set])[c] * rstd;
                double mean_g = batch_stats ? d_sums[k0] / count[s] : 0;
                double mean_g_xhat = batch_stats ? d_sums[k1] / count[s] : 0;
                size_t at = place(shape, i, c);

                for (size_t k = at; k < at + plane(shape); k++)
                    d_x[k] =
                        (real)(scale * (d_g[k] - mean_g - (src[k] - mean) * rstd * mean_g_xhat));
            }
}

static enum apd_code ref_bn_backward_data(struct apd_backend *be, const struct apd_bn *bn,
                                          const struct apd_bn *other, const void *d_g,
                                          const double *d_sums, const double *d_sums_other,
                                          const double *count, int batch_stats, void *d_x,
                                          void *d_x_other, struct apd_err *err)
{
    int last = d_x == d_g; /* what overwrites d_g comes last */

    (void)be;
    (void)err;
    if (!last)
        backward_data(bn, d_g, d_sums, count, batch_stats, d_x);
    if (other != NULL)
        backward_data(other, d_g, d_sums_other, count, batch_stats, d_x_other);
    if (last)
        backward_data(bn, d_g, d_sums, count, batch_stats, d_x);
    return APD_OK;
}

static enum apd_code ref_bn_backward_params(struct apd_backend *be, int c,
                                            const struct apd_segment *seg, int segments,
                                            const double *d_sums, void *const d_gamma[APD_BN_SETS],
                                            void *const d_beta[APD_BN_SETS], struct apd_err *err)
{
    (void)be;
    (void)err;
    for (int s = 0; s < segments; s++) {
        real *dg = d_gamma[seg[s].set], *db = d_beta[seg[s].set];

        if (seg[s].count == 0)
            continue;
        for (int k = 0; k < c; k++) {
            dg[k] = (real)(dg[k] + d_sums[row(c, s, 1) + (size_t)k]);
            db[k] = (real)(db[k] + d_sums[row(c, s, 0) + (size_t)k]);
        }
    }
    return APD_OK;
}

static enum apd_code ref_bn_update_running(struct apd_backend *be, int c, const double *sums,
                                           double count, double momentum, void *running_mean,
                                           void *running_var, struct apd_err *err)
{
    real *mean = running_mean, *variance = running_var;

    (void)be;
    (void)err;
    if (count <= 0)
        return APD_OK;
    for (int k = 0; k < c; k++) {
        double m = sums[k] / count;
        double v = fmax(sums[c + k] / count - m * m, 0);

        mean[k] = (real)((1 - momentum) * mean[k] + momentum * m);
        if (count >= 2)
            variance[k] = (real)((1 - momentum) * variance[k] + momentum * v * count / (count - 1));
    }
    return APD_OK;
}

void REF(bn_ops)(struct apd_backend_ops *ops)
{
    ops->bn_sums = ref_bn_sums;
    ops->bn_moments = ref_bn_moments;
    ops->bn_moments_running = ref_bn_moments_running;
    ops->bn_forward = ref_bn_forward;
    ops->relu_mask_bytes = ref_relu_mask_bytes;
    ops->bn_backward_sums = ref_bn_backward_sums;
    ops->bn_backward_data = ref_bn_backward_data;
    ops->bn_backward_params = ref_bn_backward_params;
    ops->bn_update_running = ref_bn_update_running;
}
