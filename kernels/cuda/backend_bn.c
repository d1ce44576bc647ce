/* Batch norm of the CUDA backend: our kernels, one launch (reductions: two) for all segments. */
#include "kernels/cuda/backend.h"
#include "kernels/shape.h"

#include <assert.h>
#include <string.h>

static struct apd_cuda_segments segments_of(const struct apd_segment *seg, int segments)
{
    struct apd_cuda_segments list = {.count = segments};

    assert(apd_segments_ok(seg, segments, -1));
    memcpy(list.at, seg, (size_t)segments * sizeof *seg);
    return list;
}

/* The table's view of a batch norm as the launchers take it, with its place for the segments. */
struct layer {
    struct apd_cuda_segments seg;
    struct apd_cuda_bn bn;
};

static const struct apd_cuda_bn *view(const struct cuda_backend *cuda, const struct apd_bn *bn,
                                      struct layer *out)
{
    if (bn == NULL)
        return NULL;
    out->seg = segments_of(bn->seg, bn->segments);
    out->bn = (struct apd_cuda_bn){.type = cuda->is.type,
                                   .shape = bn->shape,
                                   .seg = &out->seg,
                                   .x = bn->x,
                                   .moments = bn->moments,
                                   .gamma = {{bn->gamma[APD_BN_MAIN], bn->gamma[APD_BN_AUX]}},
                                   .beta = {{bn->beta[APD_BN_MAIN], bn->beta[APD_BN_AUX]}}};
    return &out->bn;
}

/* What was added to a batch norm decides with it where the ReLU was 0; alone it can be asked
 * again. */
static struct apd_cuda_relu relu_of(const struct apd_relu *relu)
{
    if (relu == NULL)
        return (struct apd_cuda_relu){.by = APD_CUDA_RELU_NONE};
    if (relu->mask == NULL)
        return (struct apd_cuda_relu){.by = APD_CUDA_RELU_REMADE};
    return (struct apd_cuda_relu){APD_CUDA_RELU_MASK, relu->mask};
}

static enum apd_code scratch_for(struct cuda_backend *cuda, int c, int segments, void **out,
                                 struct apd_err *err)
{
    return cuda_reserve(cuda, CUDA_SCRATCH, apd_cuda_scratch_bytes(c, segments), out, err);
}

static enum apd_code cuda_bn_sums(struct apd_backend *be, struct apd_shape shape,
                                  const struct apd_segment *seg, int segments, const void *x,
                                  double *sums, size_t stride, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_cuda_segments list = segments_of(seg, segments);
    void *scratch;

    APD_TRY(scratch_for(cuda, shape.c, segments, &scratch, err));
    CUDA_TRY(apd_cuda_bn_sums(cuda->is.type, shape, &list, x, sums, stride, scratch, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_bn_moments(struct apd_backend *be, int c, int segments,
                                     const double *sums, size_t stride, const double *count,
                                     double eps, void *moments, struct apd_err *err)
{
    CUDA_TRY(
        apd_cuda_bn_moments(c, segments, sums, stride, count, eps, moments, cuda_of(be)->stream));
    return APD_OK;
}

static enum apd_code cuda_bn_moments_running(struct apd_backend *be, int c,
                                             const void *running_mean, const void *running_var,
                                             double eps, void *moments, struct apd_err *err)
{
    CUDA_TRY(apd_cuda_bn_moments_running(c, running_mean, running_var, eps, moments,
                                         cuda_of(be)->stream));
    return APD_OK;
}

static enum apd_code cuda_bn_forward(struct apd_backend *be, const struct apd_bn *bn,
                                     const struct apd_bn *other, const void *add, int relu, void *y,
                                     uint8_t *mask, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct layer at[2];

    CUDA_TRY(apd_cuda_bn_forward(view(cuda, bn, &at[0]), view(cuda, other, &at[1]), add, relu, y,
                                 mask, cuda->stream));
    return APD_OK;
}

static size_t cuda_relu_mask_bytes(struct apd_backend *be, struct apd_shape shape, int n)
{
    return (size_t)n * be->ops->image_elems(be, shape) / APD_CUDA_CHANNELS;
}

static enum apd_code cuda_bn_backward_sums(struct apd_backend *be, const struct apd_bn *bn,
                                           const struct apd_bn *other, const struct apd_relu *relu,
                                           const void *d_y, const void *d_y2, void *d_g,
                                           double *d_sums, double *d_sums_other,
                                           struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_cuda_relu by = relu_of(relu);
    struct layer at[2];
    void *scratch;

    APD_TRY(scratch_for(cuda, bn->shape.c, bn->segments, &scratch, err));
    CUDA_TRY(apd_cuda_bn_backward_sums(view(cuda, bn, &at[0]), &by, d_y, d_y2, d_g, d_sums,
                                       view(cuda, other, &at[1]), d_sums_other, scratch,
                                       cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_bn_backward_data(struct apd_backend *be, const struct apd_bn *bn,
                                           const struct apd_bn *other, const void *d_g,
                                           const double *d_sums, const double *d_sums_other,
                                           const double *count, int batch_stats, void *d_x,
                                           void *d_x_other, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct layer at[2];

    CUDA_TRY(apd_cuda_bn_backward_data(view(cuda, bn, &at[0]), d_g, d_sums, count, batch_stats, d_x,
                                       view(cuda, other, &at[1]), d_sums_other, d_x_other,
                                       cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_bn_pool_forward(struct apd_backend *be, const struct apd_bn *bn,
                                          void *pooled, uint8_t *which, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct layer at;

    CUDA_TRY(apd_cuda_bn_pool_forward(view(cuda, bn, &at), pooled, which, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_bn_pool_backward_sums(struct apd_backend *be, const struct apd_bn *bn,
                                                const void *d_y, const void *d_y2,
                                                const uint8_t *which, void *d_g, double *d_sums,
                                                struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct layer at;
    void *scratch;

    APD_TRY(scratch_for(cuda, bn->shape.c, bn->segments, &scratch, err));
    CUDA_TRY(apd_cuda_bn_pool_backward_sums(view(cuda, bn, &at), d_y, d_y2, which, d_g, d_sums,
                                            scratch, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_bn_backward_params(struct apd_backend *be, int c,
                                             const struct apd_segment *seg, int segments,
                                             const double *d_sums, void *const d_gamma[APD_BN_SETS],
                                             void *const d_beta[APD_BN_SETS], struct apd_err *err)
{
    struct apd_cuda_segments list = segments_of(seg, segments);
    float *const gammas[APD_BN_SETS] = {d_gamma[APD_BN_MAIN], d_gamma[APD_BN_AUX]};
    float *const betas[APD_BN_SETS] = {d_beta[APD_BN_MAIN], d_beta[APD_BN_AUX]};

    CUDA_TRY(apd_cuda_bn_backward_params(c, &list, d_sums, gammas, betas, cuda_of(be)->stream));
    return APD_OK;
}

static enum apd_code cuda_bn_update_running(struct apd_backend *be, int c, const double *sums,
                                            double count, double momentum, void *running_mean,
                                            void *running_var, struct apd_err *err)
{
    CUDA_TRY(apd_cuda_bn_update_running(c, sums, count, momentum, running_mean, running_var,
                                        cuda_of(be)->stream));
    return APD_OK;
}

void cuda_bn_ops(struct apd_backend_ops *ops)
{
    ops->bn_sums = cuda_bn_sums;
    ops->bn_moments = cuda_bn_moments;
    ops->bn_moments_running = cuda_bn_moments_running;
    ops->bn_forward = cuda_bn_forward;
    ops->relu_mask_bytes = cuda_relu_mask_bytes;
    ops->bn_pool_forward = cuda_bn_pool_forward;
    ops->bn_pool_backward_sums = cuda_bn_pool_backward_sums;
    ops->bn_backward_sums = cuda_bn_backward_sums;
    ops->bn_backward_data = cuda_bn_backward_data;
    ops->bn_backward_params = cuda_bn_backward_params;
    ops->bn_update_running = cuda_bn_update_running;
}
