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

            if (count[s] <= 0) {
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

static enum apd_code ref_bn_forward(struct apd_backend *be, struct apd_shape shape,
                                    const struct apd_segment *seg, int segments, const void *x,
                                    const void *moments, const void *const gamma[APD_BN_SETS],
                                    const void *const beta[APD_BN_SETS], const void *add, int relu,
                                    void *y, struct apd_err *err)
{
    const real *src = x, *more = add, *m = moments;
    real *dst = y;

    (void)be;
    (void)err;
    assert(apd_segments_ok(seg, segments, -1));
    for (int s = 0; s < segments; s++)
        for (int i = seg[s].first; i < seg[s].first + seg[s].count; i++)
            for (int c = 0; c < shape.c; c++) {
                double mean = m[row(shape.c, s, 0) + (size_t)c];
                double rstd = m[row(shape.c, s, 1) + (size_t)c];
                double g = ((const real *)gamma[seg[s].set])[c];
                double b = ((const real *)beta[seg[s].set])[c];
                size_t at = place(shape, i, c);

                for (size_t k = at; k < at + plane(shape); k++) {
                    double v = (src[k] - mean) * rstd * g + b;

                    if (more != NULL)
                        v += more[k];
                    dst[k] = (real)(relu && v < 0 ? 0 : v);
                }
            }
    return APD_OK;
}

static enum apd_code ref_bn_backward_sums(struct apd_backend *be, struct apd_shape shape,
                                          const struct apd_segment *seg, int segments,
                                          const void *d_y, const void *d_y2, const void *relu_y,
                                          const void *x, const void *moments, void *d_g,
                                          double *d_sums, struct apd_err *err)
{
    const real *src = x, *m = moments, *first = d_y, *second = d_y2, *y = relu_y;
    real *g_out = d_g;

    (void)be;
    (void)err;
    assert(apd_segments_ok(seg, segments, -1));
    for (int s = 0; s < segments; s++)
        for (int c = 0; c < shape.c; c++) {
            double mean = m[row(shape.c, s, 0) + (size_t)c];
            double rstd = m[row(shape.c, s, 1) + (size_t)c];
            double sum = 0, sum_xhat = 0;

            for (int i = seg[s].first; i < seg[s].first + seg[s].count; i++) {
                size_t at = place(shape, i, c);

                for (size_t k = at; k < at + plane(shape); k++) {
                    double g = first[k];

                    if (second != NULL)
                        g += second[k];
                    if (y != NULL && y[k] <= 0)
                        g = 0;
                    g_out[k] = (real)g;
                    sum += g;
                    sum_xhat += g * (src[k] - mean) * rstd;
                }
            }
            d_sums[row(shape.c, s, 0) + (size_t)c] = sum;
            d_sums[row(shape.c, s, 1) + (size_t)c] = sum_xhat;
        }
    return APD_OK;
}

static enum apd_code ref_bn_backward_data(struct apd_backend *be, struct apd_shape shape,
                                          const struct apd_segment *seg, int segments,
                                          const void *d_g, const void *x, const void *moments,
                                          const void *const gamma[APD_BN_SETS],
                                          const double *d_sums, const double *count,
                                          int batch_stats, void *d_x, struct apd_err *err)
{
    const real *g = d_g, *src = x, *m = moments;
    real *dst = d_x;

    (void)be;
    (void)err;
    assert(apd_segments_ok(seg, segments, -1));
    for (int s = 0; s < segments; s++)
        for (int i = seg[s].first; i < seg[s].first + seg[s].count; i++)
            for (int c = 0; c < shape.c; c++) {
                size_t k0 = row(shape.c, s, 0) + (size_t)c, k1 = row(shape.c, s, 1) + (size_t)c;
                double mean = m[k0], rstd = m[k1];
                double scale = ((const real *)gamma[seg[s].set])[c] * rstd;
                double mean_g = batch_stats ? d_sums[k0] / count[s] : 0;
                double mean_g_xhat = batch_stats ? d_sums[k1] / count[s] : 0;
                size_t at = place(shape, i, c);

                for (size_t k = at; k < at + plane(shape); k++)
                    dst[k] = (real)(scale * (g[k] - mean_g - (src[k] - mean) * rstd * mean_g_xhat));
            }
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
    ops->bn_backward_sums = ref_bn_backward_sums;
    ops->bn_backward_data = ref_bn_backward_data;
    ops->bn_backward_params = ref_bn_backward_params;
    ops->bn_update_running = ref_bn_update_running;
}
