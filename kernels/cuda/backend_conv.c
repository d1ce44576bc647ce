/* Convolutions of the CUDA backend: cuDNN on NHWC activations and KRSC weights, channels rounded up
 * to 8. Weights and their gradients are float; what is computed with is their copy in T
 * (backend_weights.c). */
#include "kernels/cuda/backend.h"
#include "kernels/shape.h"

#include <stdlib.h>

struct apd_conv {
    struct apd_conv_shape shape;
    int c, k; /* rounded up */
};

static struct apd_dnn_problem problem_of(const struct cuda_backend *cuda,
                                         const struct apd_conv *conv, enum apd_dnn_op op, int n)
{
    const struct apd_conv_shape *s = &conv->shape;

    return (struct apd_dnn_problem){.op = op,
                                    .type = cuda->is.type,
                                    .tf32 = cuda->is.tf32,
                                    .n = n,
                                    .h = s->in.h,
                                    .w = s->in.w,
                                    .c = conv->c,
                                    .k = conv->k,
                                    .kernel = s->kernel,
                                    .stride = s->stride,
                                    .pad = s->pad,
                                    .groups = s->groups};
}

static size_t weight_elems(const struct apd_conv *conv)
{
    return (size_t)conv->k * (size_t)conv->shape.kernel * (size_t)conv->shape.kernel *
           (size_t)(conv->c / conv->shape.groups);
}

static enum apd_code cuda_conv_create(struct apd_backend *be, const struct apd_conv_shape *shape,
                                      struct apd_conv **out, struct apd_err *err)
{
    struct apd_conv *conv;

    (void)be;
    if (shape->groups > 1 &&
        (shape->in.c % APD_CUDA_CHANNELS != 0 || shape->out_c % APD_CUDA_CHANNELS != 0))
        return apd_fail(err, APD_CONFIG,
                        "model.width: on a GPU a convolution in %d groups needs multiples of %d "
                        "channels, found %d and %d",
                        shape->groups, APD_CUDA_CHANNELS, shape->in.c, shape->out_c);
    conv = calloc(1, sizeof *conv);
    if (conv == NULL)
        return apd_fail(err, APD_NOMEM, "convolution");
    conv->shape = *shape;
    conv->c = (int)cuda_channels(shape->in.c);
    conv->k = (int)cuda_channels(shape->out_c);
    *out = conv;
    return APD_OK;
}

static void cuda_conv_destroy(struct apd_backend *be, struct apd_conv **conv)
{
    (void)be;
    free(*conv);
    *conv = NULL;
}

static size_t cuda_conv_weight_elems(const struct apd_conv *conv)
{
    return weight_elems(conv);
}

/* Place of OIHW weight (k, c, y, x) in KRSC; c counts inside the group. */
static size_t place(const struct apd_conv *conv, int k, int c, int y, int x)
{
    size_t kernel = (size_t)conv->shape.kernel, width = (size_t)(conv->c / conv->shape.groups);

    return (((size_t)k * kernel + (size_t)y) * kernel + (size_t)x) * width + (size_t)c;
}

/* Copies between the two orders on the host; to_oihw says which way. */
static void reorder(const struct apd_conv *conv, float *oihw, float *krsc, int to_oihw)
{
    const struct apd_conv_shape *s = &conv->shape;

    for (int k = 0; k < s->out_c; k++)
        for (int c = 0; c < s->in.c / s->groups; c++)
            for (int y = 0; y < s->kernel; y++)
                for (int x = 0; x < s->kernel; x++, oihw++) {
                    float *at = krsc + place(conv, k, c, y, x);

                    if (to_oihw)
                        *oihw = *at;
                    else
                        *at = *oihw;
                }
}

static enum apd_code cuda_conv_import(struct apd_backend *be, const struct apd_conv *conv,
                                      const float *oihw, void *weights, struct apd_err *err)
{
    float *krsc = calloc(weight_elems(conv), sizeof *krsc);
    enum apd_code rc;

    if (krsc == NULL)
        return apd_fail(err, APD_NOMEM, "weights of a convolution");
    reorder(conv, (float *)oihw, krsc, 0);
    rc = be->ops->upload_floats(be, weights, krsc, weight_elems(conv), err);
    free(krsc);
    return rc;
}

static enum apd_code cuda_conv_export(struct apd_backend *be, const struct apd_conv *conv,
                                      const void *weights, float *oihw, struct apd_err *err)
{
    float *krsc = malloc(weight_elems(conv) * sizeof *krsc);
    enum apd_code rc;

    if (krsc == NULL)
        return apd_fail(err, APD_NOMEM, "weights of a convolution");
    rc = be->ops->download_floats(be, krsc, weights, weight_elems(conv), err);
    if (rc == APD_OK)
        reorder(conv, oihw, krsc, 1);
    free(krsc);
    return rc;
}

enum apd_code cuda_make_plans(struct cuda_backend *cuda, struct apd_dnn_problem problem, int d_w,
                              int d_x, struct apd_err *err)
{
    const int wanted[APD_DNN_OPS] = {
        [APD_DNN_FORWARD] = 1, [APD_DNN_BACKWARD_DATA] = d_x, [APD_DNN_BACKWARD_FILTER] = d_w};
    const struct apd_dnn_plan *plan;
    void *ignored;

    for (enum apd_dnn_op op = 0; op < APD_DNN_OPS; op++) {
        problem.op = op;
        if (wanted[op])
            APD_TRY(apd_dnn_plan(cuda->dnn, &problem, &plan, err));
    }
    return cuda_reserve(cuda, CUDA_WORKSPACE, apd_dnn_workspace_bytes(cuda->dnn), &ignored, err);
}

enum apd_code cuda_run_plan(struct cuda_backend *cuda, const struct apd_dnn_problem *problem,
                            const void *x, const void *w, const void *y, struct apd_err *err)
{
    const struct apd_dnn_plan *plan;
    void *workspace;

    APD_TRY(apd_dnn_plan(cuda->dnn, problem, &plan, err));
    APD_TRY(
        cuda_reserve(cuda, CUDA_WORKSPACE, apd_dnn_workspace_bytes(cuda->dnn), &workspace, err));
    return apd_dnn_run(cuda->dnn, plan, x, w, y, workspace, cuda->stream, err);
}

/* The images of a stem as an activation. */
static enum apd_code images_in(struct cuda_backend *cuda, const struct apd_conv *conv, int n,
                               const void *src, void **out, struct apd_err *err)
{
    struct apd_shape in = conv->shape.in;

    APD_TRY(cuda_reserve(cuda, CUDA_IMAGES,
                         (size_t)n * cuda->ops.image_elems(&cuda->base, in) * cuda->base.act_bytes,
                         out, err));
    if (src != NULL)
        CUDA_TRY(apd_cuda_image_to_activation(cuda->is.type, n, in, src, *out, cuda->stream));
    return APD_OK;
}

/* Where the gradient of the weights comes out, before it is added to d_w. */
static enum apd_code fresh_weights(struct cuda_backend *cuda, const struct apd_conv *conv,
                                   void **out, struct apd_err *err)
{
    return cuda_reserve(cuda, CUDA_D_WEIGHTS, weight_elems(conv) * cuda->base.act_bytes, out, err);
}

static enum apd_code cuda_conv_prepare(struct apd_backend *be, struct apd_conv *conv, int n,
                                       int d_w, int d_src, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    void *ignored;

    APD_TRY(cuda_make_plans(cuda, problem_of(cuda, conv, APD_DNN_FORWARD, n), d_w, d_src, err));
    if (conv->shape.input_is_image)
        APD_TRY(images_in(cuda, conv, n, NULL, &ignored, err));
    return d_w ? fresh_weights(cuda, conv, &ignored, err) : APD_OK;
}

static enum apd_code cuda_conv_forward(struct apd_backend *be, struct apd_conv *conv, int n,
                                       const void *src, const void *w, void *dst,
                                       struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_dnn_problem problem = problem_of(cuda, conv, APD_DNN_FORWARD, n);
    void *images;

    APD_TRY(cuda_weights(cuda, w, &w, err));
    if (conv->shape.input_is_image) {
        APD_TRY(images_in(cuda, conv, n, src, &images, err));
        src = images;
    }
    return cuda_run_plan(cuda, &problem, src, w, dst, err);
}

static enum apd_code cuda_conv_backward_data(struct apd_backend *be, struct apd_conv *conv, int n,
                                             const void *d_dst, const void *w, void *d_src,
                                             struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_dnn_problem problem = problem_of(cuda, conv, APD_DNN_BACKWARD_DATA, n);
    void *to = d_src;

    APD_TRY(cuda_weights(cuda, w, &w, err));
    if (conv->shape.input_is_image)
        APD_TRY(images_in(cuda, conv, n, NULL, &to, err));
    APD_TRY(cuda_run_plan(cuda, &problem, to, w, d_dst, err));
    if (conv->shape.input_is_image)
        CUDA_TRY(apd_cuda_activation_to_image(cuda->is.type, n, conv->shape.in, to, d_src,
                                              cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_conv_backward_weights(struct apd_backend *be, struct apd_conv *conv,
                                                int n, const void *src, const void *d_dst,
                                                void *d_w, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_dnn_problem problem = problem_of(cuda, conv, APD_DNN_BACKWARD_FILTER, n);
    void *images, *fresh;

    if (conv->shape.input_is_image) {
        APD_TRY(images_in(cuda, conv, n, src, &images, err));
        src = images;
    }
    APD_TRY(fresh_weights(cuda, conv, &fresh, err));
    APD_TRY(cuda_run_plan(cuda, &problem, src, fresh, d_dst, err));
    CUDA_TRY(apd_cuda_accumulate(cuda->is.type, weight_elems(conv), fresh, d_w, cuda->stream));
    return APD_OK;
}

void cuda_conv_ops(struct apd_backend_ops *ops)
{
    ops->conv_create = cuda_conv_create;
    ops->conv_destroy = cuda_conv_destroy;
    ops->conv_weight_elems = cuda_conv_weight_elems;
    ops->conv_import = cuda_conv_import;
    ops->conv_export = cuda_conv_export;
    ops->conv_prepare = cuda_conv_prepare;
    ops->conv_forward = cuda_conv_forward;
    ops->conv_backward_data = cuda_conv_backward_data;
    ops->conv_backward_weights = cuda_conv_backward_weights;
}
