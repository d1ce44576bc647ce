#include "kernels/ref/ref.h"

#include <stddef.h>

static enum apd_code ref_linear_forward(struct apd_backend *be, int n, int in, int out,
                                        const void *x, const void *w, const void *b, void *logits,
                                        struct apd_err *err)
{
    const real *src = x, *weights = w, *bias = b;
    real *dst = logits;

    (void)be;
    (void)err;
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t o = 0; o < out; o++) {
            double sum = bias[o];

            for (ptrdiff_t k = 0; k < in; k++)
                sum += (double)src[i * in + k] * weights[o * in + k];
            dst[i * out + o] = (real)sum;
        }
    return APD_OK;
}

static enum apd_code ref_linear_backward_data(struct apd_backend *be, int n, int in, int out,
                                              const void *d_logits, const void *w, void *d_x,
                                              struct apd_err *err)
{
    const real *g = d_logits, *weights = w;
    real *dst = d_x;

    (void)be;
    (void)err;
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t k = 0; k < in; k++) {
            double sum = 0;

            for (ptrdiff_t o = 0; o < out; o++)
                sum += (double)g[i * out + o] * weights[o * in + k];
            dst[i * in + k] = (real)sum;
        }
    return APD_OK;
}

static enum apd_code ref_linear_backward_weights(struct apd_backend *be, int n, int in, int out,
                                                 const void *x, const void *d_logits, void *d_w,
                                                 void *d_b, struct apd_err *err)
{
    const real *src = x, *g = d_logits;
    real *dw = d_w, *db = d_b;

    (void)be;
    (void)err;
    for (ptrdiff_t o = 0; o < out; o++) {
        double bias = 0;

        for (ptrdiff_t k = 0; k < in; k++) {
            double sum = 0;

            for (ptrdiff_t i = 0; i < n; i++)
                sum += (double)g[i * out + o] * src[i * in + k];
            dw[o * in + k] = (real)(dw[o * in + k] + sum);
        }
        for (ptrdiff_t i = 0; i < n; i++)
            bias += g[i * out + o];
        db[o] = (real)(db[o] + bias);
    }
    return APD_OK;
}

void REF(linear_ops)(struct apd_backend_ops *ops)
{
    ops->linear_forward = ref_linear_forward;
    ops->linear_backward_data = ref_linear_backward_data;
    ops->linear_backward_weights = ref_linear_backward_weights;
}
