/* Elementwise work on flat arrays, shared out in strips of a fixed size. */
#include "kernels/cpu/cpu.h"

#define STRIP 4096u

static size_t strip(size_t n, size_t from)
{
    return n - from < STRIP ? n - from : STRIP;
}

static enum apd_code cpu_add(struct apd_backend *be, size_t n, const void *src, void *dst,
                             struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);

    (void)err;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, n))
    for (size_t k = 0; k < n; k += STRIP)
        cpu->simd->add(strip(n, k), (const float *)src + k, (float *)dst + k);
    return APD_OK;
}

static enum apd_code cpu_add_doubles(struct apd_backend *be, size_t n, const double *src,
                                     double *dst, struct apd_err *err)
{
    (void)be;
    (void)err;
    for (size_t k = 0; k < n; k++)
        dst[k] += src[k];
    return APD_OK;
}

static enum apd_code cpu_sgd(struct apd_backend *be, size_t n, const struct apd_sgd *sgd,
                             const void *d_w, void *w, void *m, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);

    (void)err;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, n))
    for (size_t k = 0; k < n; k += STRIP)
        cpu->simd->sgd(strip(n, k), sgd, (const float *)d_w + k, (float *)w + k, (float *)m + k);
    cpu->weights_version++;
    return APD_OK;
}

/* In double: with a decay near 1 the change is far below the value. */
static enum apd_code cpu_average(struct apd_backend *be, size_t n, double decay, const void *x,
                                 void *a, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    const float *value = x;
    float *average = a;

    (void)err;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, n))
    for (size_t k = 0; k < n; k++)
        average[k] = (float)(decay * average[k] + (1 - decay) * value[k]);
    return APD_OK;
}

static enum apd_code cpu_nonfinite(struct apd_backend *be, size_t n, const void *x, double *bad,
                                   struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    int found = 0;

    (void)err;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, n)) reduction(| : found)
    for (size_t k = 0; k < n; k += STRIP)
        found |= cpu->simd->nonfinite(strip(n, k), (const float *)x + k);
    *bad = found;
    return APD_OK;
}

void cpu_flat_ops(struct apd_backend_ops *ops)
{
    ops->add = cpu_add;
    ops->add_doubles = cpu_add_doubles;
    ops->add_activations = cpu_add;
    ops->sgd = cpu_sgd;
    ops->average = cpu_average;
    ops->nonfinite = cpu_nonfinite;
}
