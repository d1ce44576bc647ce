#include "kernels/ref/ref.h"

#include <math.h>

static enum apd_code ref_add(struct apd_backend *be, size_t n, const void *src, void *dst,
                             struct apd_err *err)
{
    const real *from = src;
    real *to = dst;

    (void)be;
    (void)err;
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
    return APD_OK;
}

static enum apd_code ref_add_doubles(struct apd_backend *be, size_t n, const double *src,
                                     double *dst, struct apd_err *err)
{
    (void)be;
    (void)err;
    for (size_t i = 0; i < n; i++)
        dst[i] += src[i];
    return APD_OK;
}

static enum apd_code ref_sgd(struct apd_backend *be, size_t n, const struct apd_sgd *sgd,
                             const void *d_w, void *w, void *m, struct apd_err *err)
{
    const real *gradient = d_w;
    real *weight = w, *velocity = m;

    (void)be;
    (void)err;
    for (size_t i = 0; i < n; i++) {
        double g = sgd->grad_scale * gradient[i] + sgd->weight_decay * weight[i];
        double v = sgd->momentum * velocity[i] + g;

        velocity[i] = (real)v;
        weight[i] = (real)(weight[i] - sgd->lr * (sgd->nesterov ? g + sgd->momentum * v : v));
    }
    return APD_OK;
}

static enum apd_code ref_average(struct apd_backend *be, size_t n, double decay, const void *x,
                                 void *a, struct apd_err *err)
{
    const real *value = x;
    real *average = a;

    (void)be;
    (void)err;
    for (size_t i = 0; i < n; i++)
        average[i] = (real)(decay * average[i] + (1 - decay) * value[i]);
    return APD_OK;
}

static enum apd_code ref_nonfinite(struct apd_backend *be, size_t n, const void *x, double *bad,
                                   struct apd_err *err)
{
    const real *src = x;
    int found = 0;

    (void)be;
    (void)err;
    for (size_t i = 0; i < n; i++)
        found |= !isfinite(src[i]);
    *bad = found;
    return APD_OK;
}

void REF(flat_ops)(struct apd_backend_ops *ops)
{
    ops->add = ref_add;
    ops->add_doubles = ref_add_doubles;
    ops->add_activations = ref_add;
    ops->sgd = ref_sgd;
    ops->average = ref_average;
    ops->nonfinite = ref_nonfinite;
}
