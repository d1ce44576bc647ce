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

static struct apd_cuda_sets sets_of(const void *const sets[APD_BN_SETS])
{
    return (struct apd_cuda_sets){{sets[APD_BN_MAIN], sets[APD_BN_AUX]}};
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

static enum apd_code cuda_bn_forward(struct apd_backend *be, struct apd_shape shape,
                                     const struct apd_segment *seg, int segments, const void *x,
                                     const void *moments, const void *const gamma[APD_BN_SETS],
                                     const void *const beta[APD_BN_SETS], const void *add, int relu,
                                     void *y, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_cuda_segments list = segments_of(seg, segments);
    struct apd_cuda_bn bn = {.type = cuda->is.type,
                             .shape = shape,
                             .seg = &list,
                             .x = x,
                             .moments = moments,
                             .gamma = sets_of(gamma),
                             .beta = sets_of(beta)};

    CUDA_TRY(apd_cuda_bn_forward(&bn, NULL, add, relu, y, NULL, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_bn_backward_sums(struct apd_backend *be, struct apd_shape shape,
                                           const struct apd_segment *seg, int segments,
                                           const void *d_y, const void *d_y2, const void *relu_y,
                                           const void *x, const void *moments, void *d_g,
                                           double *d_sums, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_cuda_segments list = segments_of(seg, segments);
    struct apd_cuda_bn bn = {
        .type = cuda->is.type, .shape = shape, .seg = &list, .x = x, .moments = moments};
    struct apd_cuda_relu relu = {relu_y != NULL ? APD_CUDA_RELU_OF_Y : APD_CUDA_RELU_NONE, relu_y};
    void *scratch;

    APD_TRY(scratch_for(cuda, shape.c, segments, &scratch, err));
    CUDA_TRY(apd_cuda_bn_backward_sums(&bn, &relu, d_y, d_y2, d_g, d_sums, NULL, NULL, scratch,
                                       cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_bn_backward_data(struct apd_backend *be, struct apd_shape shape,
                                           const struct apd_segment *seg, int segments,
                                           const void *d_g, const void *x, const void *moments,
                                           const void *const gamma[APD_BN_SETS],
                                           const double *d_sums, const double *count,
                                           int batch_stats, void *d_x, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_cuda_segments list = segments_of(seg, segments);
    struct apd_cuda_bn bn = {.type = cuda->is.type,
                             .shape = shape,
                             .seg = &list,
                             .x = x,
                             .moments = moments,
                             .gamma = sets_of(gamma)};

    CUDA_TRY(apd_cuda_bn_backward_data(&bn, d_g, d_sums, count, batch_stats, d_x, NULL, NULL, NULL,
                                       cuda->stream));
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
    ops->bn_backward_sums = cuda_bn_backward_sums;
    ops->bn_backward_data = cuda_bn_backward_data;
    ops->bn_backward_params = cuda_bn_backward_params;
    ops->bn_update_running = cuda_bn_update_running;
}
