/* Convolution as its definition:
 *   dst[i][o][y][x] = sum over c, ky, kx of src[i][c][y * stride + ky - pad][x * stride + kx - pad]
 *                                           * w[o][c][ky][kx]
 * with c over the input channels of o's group. The two gradients walk the same terms. */
#include "kernels/ref/ref.h"
#include "kernels/shape.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct apd_conv {
    struct apd_conv_shape shape;
    struct apd_shape out;
};

/* Range of output places whose tap k falls inside an input axis: [first, last). */
struct span {
    int first, last;
};

static struct span taps(int k, int in, int out, int stride, int pad)
{
    struct span s = {0, out};

    if (k < pad)
        s.first = (pad - k + stride - 1) / stride;
    if ((out - 1) * stride + k - pad >= in)
        s.last = in - 1 + pad - k < 0 ? 0 : (in - 1 + pad - k) / stride + 1;
    return s;
}

static enum apd_code ref_conv_create(struct apd_backend *be, const struct apd_conv_shape *shape,
                                     struct apd_conv **out, struct apd_err *err)
{
    struct apd_conv *conv;

    (void)be;
    assert(apd_conv_shape_ok(shape));
    conv = calloc(1, sizeof *conv);
    if (conv == NULL)
        return apd_fail(err, APD_NOMEM, "no memory for a convolution");
    conv->shape = *shape;
    conv->out = apd_conv_out(shape);
    *out = conv;
    return APD_OK;
}

static void ref_conv_destroy(struct apd_backend *be, struct apd_conv **conv)
{
    (void)be;
    free(*conv);
    *conv = NULL;
}

static size_t ref_conv_weight_elems(const struct apd_conv *conv)
{
    return apd_conv_oihw_elems(&conv->shape);
}

static enum apd_code ref_conv_import(struct apd_backend *be, const struct apd_conv *conv,
                                     const float *oihw, void *weights, struct apd_err *err)
{
    return be->ops->upload_floats(be, weights, oihw, ref_conv_weight_elems(conv), err);
}

static enum apd_code ref_conv_export(struct apd_backend *be, const struct apd_conv *conv,
                                     const void *weights, float *oihw, struct apd_err *err)
{
    return be->ops->download_floats(be, oihw, weights, ref_conv_weight_elems(conv), err);
}

static enum apd_code ref_conv_prepare(struct apd_backend *be, struct apd_conv *conv, int n, int d_w,
                                      int d_src, struct apd_err *err)
{
    (void)be;
    (void)conv;
    (void)n;
    (void)d_w;
    (void)d_src;
    (void)err;
    return APD_OK;
}

/* What walk() does with one plane pair (input channel c, output channel o) and one tap of the
 * window. */
enum direction { FORWARD, BACKWARD_DATA, BACKWARD_WEIGHTS };

struct planes {
    double *in;  /* h x w of one input channel: values or, backward data, the sum being built */
    double *out; /* h x w of one output channel: gradient or, forward, the sum being built */
    double *tap; /* the window's weights or, backward weights, their sum */
};

static void walk(const struct apd_conv *conv, enum direction direction, struct planes p)
{
    const struct apd_conv_shape *s = &conv->shape;

    for (int ky = 0; ky < s->kernel; ky++)
        for (int kx = 0; kx < s->kernel; kx++) {
            struct span ys = taps(ky, s->in.h, conv->out.h, s->stride, s->pad);
            struct span xs = taps(kx, s->in.w, conv->out.w, s->stride, s->pad);
            double *tap = &p.tap[ky * s->kernel + kx];

            for (int y = ys.first; y < ys.last; y++)
                for (int x = xs.first; x < xs.last; x++) {
                    double *in = &p.in[(y * s->stride + ky - s->pad) * s->in.w + x * s->stride +
                                       kx - s->pad];
                    double *out = &p.out[y * conv->out.w + x];

                    if (direction == FORWARD)
                        *out += *in * *tap;
                    else if (direction == BACKWARD_DATA)
                        *in += *out * *tap;
                    else
                        *tap += *in * *out;
                }
        }
}

static void widen(double *dst, const real *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = src[i];
}

static void narrow(real *dst, const double *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = (real)src[i];
}

/* The operands of one call and their sizes, and room for one image in double. */
struct operands {
    const struct apd_conv *conv;
    size_t in_plane, out_plane, window;
    int in_per_group, out_per_group;
    double *in, *out, *weights;
};

static void operands_free(struct operands *o)
{
    free(o->in);
    free(o->out);
    free(o->weights);
}

static enum apd_code operands_init(struct operands *o, const struct apd_conv *conv,
                                   struct apd_err *err)
{
    const struct apd_conv_shape *s = &conv->shape;

    *o = (struct operands){
        .conv = conv,
        .in_plane = (size_t)s->in.h * (size_t)s->in.w,
        .out_plane = (size_t)conv->out.h * (size_t)conv->out.w,
        .window = (size_t)s->kernel * (size_t)s->kernel,
        .in_per_group = s->in.c / s->groups,
        .out_per_group = s->out_c / s->groups,
        .in = calloc(apd_shape_elems(s->in), sizeof(double)),
        .out = calloc(apd_shape_elems(conv->out), sizeof(double)),
        .weights = calloc(apd_conv_oihw_elems(s), sizeof(double)),
    };
    if (o->in != NULL && o->out != NULL && o->weights != NULL)
        return APD_OK;
    operands_free(o);
    return apd_fail(err, APD_NOMEM, "no memory for a reference convolution");
}

/* All channel pairs of one image. */
static void walk_image(const struct operands *o, enum direction direction)
{
    for (int oc = 0; oc < o->conv->shape.out_c; oc++) {
        int first_in = oc / o->out_per_group * o->in_per_group;

        for (int ic = 0; ic < o->in_per_group; ic++)
            walk(o->conv, direction,
                 (struct planes){
                     .in = o->in + (size_t)(first_in + ic) * o->in_plane,
                     .out = o->out + (size_t)oc * o->out_plane,
                     .tap = o->weights + (size_t)(oc * o->in_per_group + ic) * o->window,
                 });
    }
}

static enum apd_code ref_conv_forward(struct apd_backend *be, struct apd_conv *conv, int n,
                                      const void *src, const void *w, void *dst,
                                      struct apd_err *err)
{
    size_t in = apd_shape_elems(conv->shape.in), out = apd_shape_elems(conv->out);
    struct operands o;

    (void)be;
    APD_TRY(operands_init(&o, conv, err));
    widen(o.weights, w, apd_conv_oihw_elems(&conv->shape));
    for (int i = 0; i < n; i++) {
        widen(o.in, (const real *)src + (size_t)i * in, in);
        memset(o.out, 0, out * sizeof *o.out);
        walk_image(&o, FORWARD);
        narrow((real *)dst + (size_t)i * out, o.out, out);
    }
    operands_free(&o);
    return APD_OK;
}

static enum apd_code ref_conv_backward_data(struct apd_backend *be, struct apd_conv *conv, int n,
                                            const void *d_dst, const void *w, void *d_src,
                                            struct apd_err *err)
{
    size_t in = apd_shape_elems(conv->shape.in), out = apd_shape_elems(conv->out);
    struct operands o;

    (void)be;
    APD_TRY(operands_init(&o, conv, err));
    widen(o.weights, w, apd_conv_oihw_elems(&conv->shape));
    for (int i = 0; i < n; i++) {
        widen(o.out, (const real *)d_dst + (size_t)i * out, out);
        memset(o.in, 0, in * sizeof *o.in);
        walk_image(&o, BACKWARD_DATA);
        narrow((real *)d_src + (size_t)i * in, o.in, in);
    }
    operands_free(&o);
    return APD_OK;
}

static enum apd_code ref_conv_backward_weights(struct apd_backend *be, struct apd_conv *conv, int n,
                                               const void *src, const void *d_dst, void *d_w,
                                               struct apd_err *err)
{
    size_t in = apd_shape_elems(conv->shape.in), out = apd_shape_elems(conv->out);
    size_t weights = apd_conv_oihw_elems(&conv->shape);
    real *sum = d_w;
    struct operands o;

    (void)be;
    APD_TRY(operands_init(&o, conv, err));
    for (int i = 0; i < n; i++) {
        widen(o.in, (const real *)src + (size_t)i * in, in);
        widen(o.out, (const real *)d_dst + (size_t)i * out, out);
        walk_image(&o, BACKWARD_WEIGHTS);
    }
    for (size_t i = 0; i < weights; i++)
        sum[i] = (real)(sum[i] + o.weights[i]);
    operands_free(&o);
    return APD_OK;
}

static enum apd_code ref_weights_changed(struct apd_backend *be, const void *weights, size_t n,
                                         struct apd_err *err)
{
    (void)be;
    (void)weights;
    (void)n;
    (void)err;
    return APD_OK;
}

void REF(conv_ops)(struct apd_backend_ops *ops)
{
    ops->conv_create = ref_conv_create;
    ops->conv_destroy = ref_conv_destroy;
    ops->conv_weight_elems = ref_conv_weight_elems;
    ops->conv_import = ref_conv_import;
    ops->conv_export = ref_conv_export;
    ops->conv_prepare = ref_conv_prepare;
    ops->conv_forward = ref_conv_forward;
    ops->conv_backward_data = ref_conv_backward_data;
    ops->conv_backward_weights = ref_conv_backward_weights;
    ops->weights_changed = ref_weights_changed;
}
