/* A batch norm of the network, with the projection of the shortcut where a block ends in it. With
 * bn.sync: full their sums travel together, and the auxiliary images, whose sums stay here, are
 * dealt with meanwhile. */
#include "worker/model/net_private.h"

/* What the backend wants to know. [0]: the layer itself; [1]: the projection. */
struct view {
    int count; /* of layers: 1 or 2 */
    int layer[2];
    struct apd_bn bn[2];
    size_t c;                        /* padded channels */
    double values[APD_MAX_SEGMENTS]; /* per channel that the moments are over */
    struct apd_segment seg[APD_MAX_SEGMENTS];
    double seg_values[APD_MAX_SEGMENTS];
};

static void view_layer(const struct apd_net *net, const struct apd_pass *pass, int i,
                       struct apd_bn *bn)
{
    struct apd_params *params = net->params;

    *bn = (struct apd_bn){.shape = net->arch->layer[i].out,
                          .seg = pass->seg,
                          .segments = pass->segments,
                          .x = net->x[i],
                          .moments = net->moments[i]};
    for (int set = 0; set < (params->has_aux ? APD_BN_SETS : 1); set++) {
        bn->gamma[set] = apd_at(params, params->weights, params->layer[i].gamma[set]);
        bn->beta[set] = apd_at(params, params->weights, params->layer[i].beta[set]);
    }
}

static int is_pooled(const struct apd_pass *pass, int s)
{
    return pass->pool != NULL && pass->batch_stats && pass->seg[s].set == APD_BN_MAIN;
}

static void view_norm(const struct apd_net *net, const struct apd_pass *pass,
                      const struct apd_norm *norm, struct view *view)
{
    struct apd_shape shape = net->arch->layer[norm->i].out;
    double pixels = (double)shape.h * shape.w;

    view->count = norm->down >= 0 ? 2 : 1;
    view->layer[0] = norm->i;
    view->layer[1] = norm->down;
    view->c = net->be->ops->channel_elems(net->be, shape.c);
    for (int k = 0; k < view->count; k++)
        view_layer(net, pass, view->layer[k], &view->bn[k]);
    for (int s = 0; s < pass->segments; s++)
        view->values[s] =
            pixels * (is_pooled(pass, s) ? pass->pool->images : (double)pass->seg[s].count);
}

/* From here on the view is of the pooled segments alone, or of the others: the rest are empty, and
 * what is known of them stays. */
static void narrow(struct view *view, const struct apd_pass *pass, int pooled)
{
    for (int s = 0; s < pass->segments; s++) {
        int in = is_pooled(pass, s) == pooled;

        view->seg[s] = pass->seg[s];
        view->seg[s].count = in ? pass->seg[s].count : 0;
        view->seg_values[s] = in ? view->values[s] : -1;
    }
    for (int k = 0; k < view->count; k++)
        view->bn[k].seg = view->seg;
}

/* ---------------------------------------------------------------- pooled sums
 * A row of pooled_sums is a pooled segment's sums, the projection's after the layer's own. */

static size_t row_doubles(const struct view *view)
{
    return (size_t)view->count * 2 * view->c;
}

/* sums[k]: of layer k, segment s from s * stride on. */
static enum apd_code start_pool(struct apd_net *net, const struct apd_pass *pass,
                                const struct view *view, double *const sums[2], size_t stride,
                                struct apd_err *err)
{
    double *to = net->pooled_sums;
    int rows = 0;

    for (int s = 0; s < pass->segments; s++) {
        if (!is_pooled(pass, s))
            continue;
        for (int k = 0; k < view->count; k++, to += 2 * view->c)
            APD_TRY(net->be->ops->copy(net->be, to, sums[k] + (size_t)s * stride,
                                       2 * view->c * sizeof(double), err));
        rows++;
    }
    return pass->pool->start(pass->pool->ctx, net->pooled_sums, rows, row_doubles(view), err);
}

static double *pooled_of(const struct apd_net *net, const struct view *view, int k)
{
    return net->pooled_sums + (size_t)k * 2 * view->c;
}

/* ---------------------------------------------------------------- forward */

static enum apd_code apply(struct apd_net *net, const struct apd_norm *norm,
                           const struct view *view, struct apd_err *err)
{
    const struct apd_backend_ops *ops = net->be->ops;

    if (norm->i == 0 && apd_net_pools_stem(net))
        return ops->bn_pool_forward(net->be, &view->bn[0], net->pooled, net->which, err);
    return ops->bn_forward(net->be, &view->bn[0], view->count > 1 ? &view->bn[1] : NULL, norm->add,
                           1, net->y[norm->i], net->mask[norm->i], err);
}

/* stride 0: all segments have the same sums. */
static enum apd_code moments(struct apd_net *net, const struct view *view, double *const sums[2],
                             size_t stride, const double *values, struct apd_err *err)
{
    for (int k = 0; k < view->count; k++)
        APD_TRY(net->be->ops->bn_moments(net->be, view->bn[k].shape.c, view->bn[k].segments,
                                         sums[k], stride, values, net->bn_eps,
                                         net->moments[view->layer[k]], err));
    return APD_OK;
}

static enum apd_code running_moments(struct apd_net *net, const struct apd_pass *pass,
                                     const struct view *view, struct apd_err *err)
{
    struct apd_params *params = net->params;

    for (int k = 0; k < view->count; k++)
        for (int s = 0; s < pass->segments; s++) {
            const struct apd_layer_params *at = &params->layer[view->layer[k]];
            enum apd_bn_set set = pass->seg[s].set;
            char *to = (char *)net->moments[view->layer[k]] +
                       (size_t)s * 2 * view->c * net->be->elem_bytes;

            APD_TRY(net->be->ops->bn_moments_running(
                net->be, view->bn[k].shape.c, apd_at(params, params->stats, at->running_mean[set]),
                apd_at(params, params->stats, at->running_var[set]), net->bn_eps, to, err));
        }
    return APD_OK;
}

static enum apd_code forward_pooled(struct apd_net *net, const struct apd_pass *pass,
                                    const struct apd_norm *norm, struct view *view,
                                    double *const sums[2], struct apd_err *err)
{
    double *const pooled[2] = {pooled_of(net, view, 0), pooled_of(net, view, 1)};

    APD_TRY(start_pool(net, pass, view, sums, pass->sums_stride, err));
    narrow(view, pass, 0);
    APD_TRY(moments(net, view, sums, pass->sums_stride, view->seg_values, err));
    APD_TRY(apply(net, norm, view, err));
    APD_TRY(pass->pool->finish(pass->pool->ctx, err));
    narrow(view, pass, 1);
    APD_TRY(moments(net, view, pooled, 0, view->seg_values, err));
    return apply(net, norm, view, err);
}

enum apd_code apd_norm_forward(struct apd_net *net, const struct apd_pass *pass,
                               const struct apd_norm *norm, struct apd_err *err)
{
    double *sums[2] = {NULL};
    struct view view;

    view_norm(net, pass, norm, &view);
    if (!pass->batch_stats) {
        APD_TRY(running_moments(net, pass, &view, err));
        return apply(net, norm, &view, err);
    }
    for (int k = 0; k < view.count; k++) {
        sums[k] = pass->sums + 2 * net->sums_at[view.layer[k]];
        APD_TRY(net->be->ops->bn_sums(net->be, view.bn[k].shape, pass->seg, pass->segments,
                                      view.bn[k].x, sums[k], pass->sums_stride, err));
    }
    if (pass->pool != NULL)
        return forward_pooled(net, pass, norm, &view, sums, err);
    APD_TRY(moments(net, &view, sums, pass->sums_stride, view.values, err));
    return apply(net, norm, &view, err);
}

enum apd_code apd_norm_again(struct apd_net *net, const struct apd_pass *pass,
                             const struct apd_norm *norm, struct apd_err *err)
{
    struct view view;

    view_norm(net, pass, norm, &view);
    return apply(net, norm, &view, err);
}

/* ---------------------------------------------------------------- backward */

static enum apd_code backward_sums(struct apd_net *net, const struct apd_norm *norm,
                                   const struct view *view, const void *d_y, const void *d_y2,
                                   void *d_g, struct apd_err *err)
{
    const struct apd_backend_ops *ops = net->be->ops;
    const struct apd_relu relu = {.y = net->y[norm->i], .mask = net->mask[norm->i]};

    if (norm->i == 0 && apd_net_pools_stem(net))
        return ops->bn_pool_backward_sums(net->be, &view->bn[0], d_y, d_y2, net->which, d_g,
                                          net->d_sums[0], err);
    return ops->bn_backward_sums(net->be, &view->bn[0], view->count > 1 ? &view->bn[1] : NULL,
                                 &relu, d_y, d_y2, d_g, net->d_sums[0], net->d_sums[1], err);
}

static enum apd_code backward_params(struct apd_net *net, const struct apd_pass *pass,
                                     const struct view *view, struct apd_err *err)
{
    struct apd_params *params = net->params;

    for (int k = 0; pass->d_weights != NULL && k < view->count; k++) {
        const struct apd_layer_params *at = &params->layer[view->layer[k]];
        void *d_gamma[APD_BN_SETS] = {NULL}, *d_beta[APD_BN_SETS] = {NULL};

        for (int set = 0; set < (params->has_aux ? APD_BN_SETS : 1); set++) {
            d_gamma[set] = apd_at(params, pass->d_weights, at->gamma[set]);
            d_beta[set] = apd_at(params, pass->d_weights, at->beta[set]);
        }
        APD_TRY(net->be->ops->bn_backward_params(net->be, view->bn[k].shape.c, pass->seg,
                                                 pass->segments, net->d_sums[k], d_gamma, d_beta,
                                                 err));
    }
    return APD_OK;
}

static enum apd_code backward_data(struct apd_net *net, const struct apd_pass *pass,
                                   const struct view *view, const double *values, const void *d_g,
                                   void *d_x, void *d_x_down, struct apd_err *err)
{
    return net->be->ops->bn_backward_data(
        net->be, &view->bn[0], view->count > 1 ? &view->bn[1] : NULL, d_g, net->d_sums[0],
        net->d_sums[1], values, pass->batch_stats, d_x, d_x_down, err);
}

/* The pooled sums take the place of the segments' own. */
static enum apd_code take_pooled(struct apd_net *net, const struct apd_pass *pass,
                                 const struct view *view, struct apd_err *err)
{
    APD_TRY(pass->pool->finish(pass->pool->ctx, err));
    for (int s = 0; s < pass->segments; s++)
        for (int k = 0; is_pooled(pass, s) && k < view->count; k++)
            APD_TRY(net->be->ops->copy(net->be, net->d_sums[k] + (size_t)s * 2 * view->c,
                                       pooled_of(net, view, k), 2 * view->c * sizeof(double), err));
    return APD_OK;
}

enum apd_code apd_norm_backward(struct apd_net *net, const struct apd_pass *pass,
                                const struct apd_norm *norm, const void *d_y, const void *d_y2,
                                void *d_g, void *d_x, void *d_x_down, struct apd_err *err)
{
    int pooled = pass->pool != NULL && pass->batch_stats;
    struct view view;

    view_norm(net, pass, norm, &view);
    APD_TRY(backward_sums(net, norm, &view, d_y, d_y2, d_g, err));
    if (pooled)
        APD_TRY(start_pool(net, pass, &view, net->d_sums, 2 * view.c, err));
    /* Gamma and beta get each lane's own sums; the data gradient wants those of the pool. */
    APD_TRY(backward_params(net, pass, &view, err));
    if (!pooled)
        return backward_data(net, pass, &view, view.values, d_g, d_x, d_x_down, err);
    narrow(&view, pass, 0);
    APD_TRY(backward_data(net, pass, &view, view.seg_values, d_g, d_x, d_x_down, err));
    APD_TRY(take_pooled(net, pass, &view, err));
    narrow(&view, pass, 1);
    return backward_data(net, pass, &view, view.seg_values, d_g, d_x, d_x_down, err);
}
