#include "harness.h"

#include <stdio.h>

/* The weights of both backends, filled from canonical values. */
static struct both make_weights(struct apd_conv *const conv[BOTH], const float *oihw)
{
    struct both w;

    for (int b = 0; b < BOTH; b++) {
        struct both one =
            make_bytes(backend[b]->ops->conv_weight_elems(conv[b]) * backend[b]->elem_bytes);

        w.at[b] = one.at[b];
    }
    ON_BOTH(ops->conv_import(be, conv[b], oihw, w.at[b], &err));
    return w;
}

static int compare_weights(const char *what, const struct apd_conv_shape *shape,
                           struct apd_conv *const conv[BOTH], struct both w, double tolerance)
{
    size_t n = apd_conv_oihw_elems(shape);
    float *host[BOTH] = {floats(n), floats(n)};
    struct apd_backend *tested = backend[TESTED];
    size_t elems = tested->ops->conv_weight_elems(conv[TESTED]);
    float *found = floats(elems), *expected = floats(elems);
    struct both again;
    int bad;

    ON_BOTH(ops->conv_export(be, conv[b], w.at[b], host[b], &err));
    bad = compare(what, host[REF], host[TESTED], n, 1, tolerance);
    again = make_weights(conv, host[TESTED]);
    OK(tested->ops->download_floats(tested, found, w.at[TESTED], elems, &err));
    OK(tested->ops->download_floats(tested, expected, again.at[TESTED], elems, &err));
    for (size_t i = 0; i < elems; i++)
        if (found[i] != expected[i]) {
            printf("# %s: padding is not zero\n", what);
            return bad + 1;
        }
    return bad;
}

/* An input image tensor is plain NCHW on every backend. */
static struct both make_src(const struct apd_conv_shape *shape, int n, const float *nchw)
{
    if (shape->input_is_image)
        return make_plain((size_t)n * apd_shape_elems(shape->in), nchw);
    return make_activation(shape->in, n, nchw);
}

static int compare_src(const char *what, const struct apd_conv_shape *shape, int n, struct both x,
                       double tolerance)
{
    if (shape->input_is_image)
        return compare_plain(what, (size_t)n * apd_shape_elems(shape->in), x, tolerance);
    return compare_activation(what, shape->in, n, x, tolerance);
}

static struct both make_src_result(const struct apd_conv_shape *shape, int n)
{
    if (shape->input_is_image)
        return make_plain_result((size_t)n * apd_shape_elems(shape->in));
    return make_result(shape->in, n);
}

int check_conv(const struct apd_conv_shape *shape, int n, double tolerance)
{
    struct apd_shape out = apd_conv_out(shape);
    size_t weights = apd_conv_oihw_elems(shape);
    struct apd_conv *conv[BOTH] = {NULL};
    const struct apd_sgd sgd = {.grad_scale = 1, .lr = 0.5};
    struct both src, dst, d_dst, d_src, w, d_w, m;
    const float *new_weights;
    int bad = 0;

    ON_BOTH(ops->conv_create(be, shape, &conv[b], &err));
    ON_BOTH(ops->conv_prepare(be, conv[b], n, 1, 1, &err));
    src = make_src(shape, n, random_floats((size_t)n * apd_shape_elems(shape->in)));
    d_dst = make_activation(out, n, random_floats((size_t)n * apd_shape_elems(out)));
    dst = make_result(out, n);
    d_src = make_src_result(shape, n);
    w = make_weights(conv, random_floats(weights));
    d_w = make_weights(conv, random_floats(weights));
    m = make_weights(conv, random_floats(weights));
    bad += compare_weights("conv import and export", shape, conv, w, 0);
    ON_BOTH(ops->weights_changed(be, w.at[b], ops->conv_weight_elems(conv[b]), &err));

    ON_BOTH(ops->conv_forward(be, conv[b], n, src.at[b], w.at[b], dst.at[b], &err));
    bad += compare_activation("conv_forward", out, n, dst, tolerance);
    ON_BOTH(ops->conv_backward_data(be, conv[b], n, d_dst.at[b], w.at[b], d_src.at[b], &err));
    bad += compare_src("conv_backward_data", shape, n, d_src, tolerance);
    ON_BOTH(ops->conv_backward_weights(be, conv[b], n, src.at[b], d_dst.at[b], d_w.at[b], &err));
    bad += compare_weights("conv_backward_weights", shape, conv, d_w, tolerance);

    /* New weights at the same address, and a batch that was not prepared. */
    new_weights = random_floats(weights);
    ON_BOTH(ops->conv_import(be, conv[b], new_weights, w.at[b], &err));
    ON_BOTH(ops->weights_changed(be, w.at[b], ops->conv_weight_elems(conv[b]), &err));
    ON_BOTH(ops->conv_forward(be, conv[b], 1, src.at[b], w.at[b], dst.at[b], &err));
    bad += compare_activation("conv_forward, new weights", out, 1, dst, tolerance);
    ON_BOTH(ops->conv_backward_data(be, conv[b], 1, d_dst.at[b], w.at[b], d_src.at[b], &err));
    bad += compare_src("conv_backward_data, new weights", shape, 1, d_src, tolerance);

    /* After a step, which nobody is told of. */
    ON_BOTH(ops->sgd(be, ops->conv_weight_elems(conv[b]), &sgd, d_w.at[b], w.at[b], m.at[b], &err));
    ON_BOTH(ops->conv_forward(be, conv[b], 1, src.at[b], w.at[b], dst.at[b], &err));
    bad += compare_activation("conv_forward, after sgd", out, 1, dst, tolerance);
    ON_BOTH(ops->conv_backward_data(be, conv[b], 1, d_dst.at[b], w.at[b], d_src.at[b], &err));
    bad += compare_src("conv_backward_data, after sgd", shape, 1, d_src, tolerance);
    for (int b = 0; b < BOTH; b++)
        backend[b]->ops->conv_destroy(backend[b], &conv[b]);
    release();
    return bad;
}
