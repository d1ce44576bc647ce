/* Pooling, classifier and loss of the CUDA backend. The classifier is a 1x1 convolution of one
 * pixel in T; its rows, weights and gradients outside of here are plain float. */
#include "kernels/cuda/backend.h"
#include "kernels/shape.h"

#include <assert.h>
#include <string.h>

static enum apd_code cuda_maxpool_forward(struct apd_backend *be, struct apd_shape in, int n,
                                          const void *src, void *dst, uint8_t *which,
                                          struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);

    CUDA_TRY(apd_cuda_maxpool_forward(cuda->is.type, in, n, src, dst, which, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_maxpool_backward(struct apd_backend *be, struct apd_shape in, int n,
                                           const void *d_dst, const uint8_t *which, void *d_src,
                                           struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);

    CUDA_TRY(apd_cuda_maxpool_backward(cuda->is.type, in, n, d_dst, which, d_src, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_avgpool_forward(struct apd_backend *be, struct apd_shape in, int n,
                                          const void *src, void *dst, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);

    CUDA_TRY(apd_cuda_avgpool_forward(cuda->is.type, in, n, src, dst, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_avgpool_backward(struct apd_backend *be, struct apd_shape in, int n,
                                           const void *d_dst, void *d_src, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);

    CUDA_TRY(apd_cuda_avgpool_backward(cuda->is.type, in, n, d_dst, d_src, cuda->stream));
    return APD_OK;
}

/* ---------------------------------------------------------------- classifier */

static struct apd_dnn_problem product(const struct cuda_backend *cuda, enum apd_dnn_op op, int n,
                                      int in, int out)
{
    return (struct apd_dnn_problem){.op = op,
                                    .type = cuda->is.type,
                                    .tf32 = cuda->is.tf32,
                                    .n = n,
                                    .h = 1,
                                    .w = 1,
                                    .c = (int)cuda_channels(in),
                                    .k = (int)cuda_channels(out),
                                    .kernel = 1,
                                    .stride = 1,
                                    .groups = 1};
}

/* Room for `rows` rows of c columns in T; src, if there is one, is written there. Rows beyond n are
 * zeroed. */
static enum apd_code rows_in(struct cuda_backend *cuda, enum cuda_buffer which, int n, int rows,
                             int c, const float *src, void **out, struct apd_err *err)
{
    size_t row = cuda_channels(c) * cuda->base.act_bytes;

    APD_TRY(cuda_reserve(cuda, which, (size_t)rows * row, out, err));
    if (src == NULL)
        return APD_OK;
    CUDA_TRY(apd_cuda_rows_pack(cuda->is.type, n, c, src, *out, cuda->stream));
    if (rows > n)
        CUDA_TRY(cudaMemsetAsync((char *)*out + (size_t)n * row, 0, (size_t)(rows - n) * row,
                                 cuda->stream));
    return APD_OK;
}

/* Weights w as the product takes them: as the convolutions do where there is nothing to pad. */
static enum apd_code weights_in(struct cuda_backend *cuda, const struct apd_dnn_problem *problem,
                                int in, int out, const void *w, const void **w_t,
                                struct apd_err *err)
{
    void *padded;

    if (problem->c == in && problem->k == out)
        return cuda_weights(cuda, w, w_t, err);
    APD_TRY(rows_in(cuda, CUDA_ROWS_WEIGHTS, out, problem->k, in, w, &padded, err));
    *w_t = padded;
    return APD_OK;
}

static enum apd_code cuda_linear_prepare(struct apd_backend *be, int n, int in, int out, int d_w,
                                         int d_x, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    void *ignored;

    APD_TRY(cuda_make_plans(cuda, product(cuda, APD_DNN_FORWARD, n, in, out), d_w, d_x, err));
    APD_TRY(rows_in(cuda, CUDA_ROWS_IN, n, n, in, NULL, &ignored, err));
    APD_TRY(rows_in(cuda, CUDA_ROWS_OUT, n, n, out, NULL, &ignored, err));
    return rows_in(cuda, CUDA_ROWS_WEIGHTS, out, (int)cuda_channels(out), in, NULL, &ignored, err);
}

static enum apd_code cuda_linear_forward(struct apd_backend *be, int n, int in, int out,
                                         const void *x, const void *w, const void *b, void *logits,
                                         struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_dnn_problem problem = product(cuda, APD_DNN_FORWARD, n, in, out);
    const void *w_t;
    void *x_t, *y_t;

    APD_TRY(rows_in(cuda, CUDA_ROWS_IN, n, n, in, x, &x_t, err));
    APD_TRY(weights_in(cuda, &problem, in, out, w, &w_t, err));
    APD_TRY(rows_in(cuda, CUDA_ROWS_OUT, n, n, out, NULL, &y_t, err));
    APD_TRY(cuda_run_plan(cuda, &problem, x_t, w_t, y_t, err));
    CUDA_TRY(apd_cuda_rows_unpack(cuda->is.type, n, out, y_t, b, 0, logits, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_linear_backward_data(struct apd_backend *be, int n, int in, int out,
                                               const void *d_logits, const void *w, void *d_x,
                                               struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_dnn_problem problem = product(cuda, APD_DNN_BACKWARD_DATA, n, in, out);
    const void *w_t;
    void *x_t, *y_t;

    APD_TRY(rows_in(cuda, CUDA_ROWS_OUT, n, n, out, d_logits, &y_t, err));
    APD_TRY(weights_in(cuda, &problem, in, out, w, &w_t, err));
    APD_TRY(rows_in(cuda, CUDA_ROWS_IN, n, n, in, NULL, &x_t, err));
    APD_TRY(cuda_run_plan(cuda, &problem, x_t, w_t, y_t, err));
    CUDA_TRY(apd_cuda_rows_unpack(cuda->is.type, n, in, x_t, NULL, 0, d_x, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_linear_backward_weights(struct apd_backend *be, int n, int in, int out,
                                                  const void *x, const void *d_logits, void *d_w,
                                                  void *d_b, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_dnn_problem problem = product(cuda, APD_DNN_BACKWARD_FILTER, n, in, out);
    void *x_t, *w_t, *y_t, *scratch;

    APD_TRY(rows_in(cuda, CUDA_ROWS_IN, n, n, in, x, &x_t, err));
    APD_TRY(rows_in(cuda, CUDA_ROWS_OUT, n, n, out, d_logits, &y_t, err));
    APD_TRY(rows_in(cuda, CUDA_ROWS_WEIGHTS, out, problem.k, in, NULL, &w_t, err));
    APD_TRY(cuda_run_plan(cuda, &problem, x_t, w_t, y_t, err));
    CUDA_TRY(apd_cuda_rows_unpack(cuda->is.type, out, in, w_t, NULL, 1, d_w, cuda->stream));
    APD_TRY(cuda_reserve(cuda, CUDA_SCRATCH, apd_cuda_scratch_bytes(out, 1), &scratch, err));
    CUDA_TRY(apd_cuda_column_sums(n, out, d_logits, d_b, scratch, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_softmax_ce(struct apd_backend *be, int n, int classes, const void *logits,
                                     const struct apd_targets *targets,
                                     const struct apd_segment *seg, int segments, double *loss,
                                     void *d_logits, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_cuda_segments list = {.count = segments};
    void *scratch;

    assert(classes >= 2 && apd_segments_ok(seg, segments, n));
    memcpy(list.at, seg, (size_t)segments * sizeof *seg);
    APD_TRY(
        cuda_reserve(cuda, CUDA_SCRATCH, apd_cuda_scratch_bytes(classes, segments), &scratch, err));
    CUDA_TRY(apd_cuda_softmax_ce(n, classes, logits, targets, &list, loss, d_logits, scratch,
                                 cuda->stream));
    return APD_OK;
}

void cuda_head_ops(struct apd_backend_ops *ops)
{
    ops->maxpool_forward = cuda_maxpool_forward;
    ops->maxpool_backward = cuda_maxpool_backward;
    ops->avgpool_forward = cuda_avgpool_forward;
    ops->avgpool_backward = cuda_avgpool_backward;
    ops->linear_prepare = cuda_linear_prepare;
    ops->linear_forward = cuda_linear_forward;
    ops->linear_backward_data = cuda_linear_backward_data;
    ops->linear_backward_weights = cuda_linear_backward_weights;
    ops->softmax_ce = cuda_softmax_ce;
}
