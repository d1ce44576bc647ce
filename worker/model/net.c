#include "worker/model/net.h"

#include <stdlib.h>
#include <string.h>

enum { GRADIENT_BUFFERS = 4 };

struct apd_net {
    struct apd_backend *be;
    struct apd_params *params;
    const struct apd_arch *arch;
    int max_images, max_segments, recompute;
    double bn_eps;
    size_t sums_at[APD_MAX_LAYERS]; /* channels before layer i, padded */
    size_t channels;
    void *arena;
    size_t arena_bytes;
    void *x[APD_MAX_LAYERS];       /* convolution outputs */
    void *y[APD_MAX_LAYERS];       /* after BN (+ shortcut) (+ ReLU) */
    void *moments[APD_MAX_LAYERS]; /* [max_segments][2][C] */
    void *pooled;
    uint8_t *which;
    void *features, *d_features; /* [n][c] */
    void *logits, *d_logits;     /* [n][classes] */
    void *gradient[GRADIENT_BUFFERS];
    double *d_sums; /* [max_segments][2][C of the widest layer] */
    double *pooled_sums;
};

/* ---------------------------------------------------------------- planning */

struct planner {
    char *base; /* NULL in the first round, which only measures */
    size_t used;
    int tensors;
};

/* Tensors of equal size would all start at the same offset within a 4 KiB page and evict each other
 * from the first-level cache; a few hundred bytes of stagger prevent it. */
static void *place(struct planner *planner, size_t bytes)
{
    size_t at = planner->used + (size_t)(planner->tensors++ % 8) * 256;

    planner->used = (at + bytes + 4095) & ~(size_t)4095;
    return planner->base == NULL ? NULL : planner->base + at;
}

static size_t tensor_elems(const struct apd_net *net, struct apd_shape shape)
{
    return net->be->ops->image_elems(net->be, shape) * (size_t)net->max_images;
}

static size_t tensor_bytes(const struct apd_net *net, struct apd_shape shape)
{
    return tensor_elems(net, shape) * net->be->act_bytes;
}

static int is_down(const struct apd_net *net, int i)
{
    for (int b = 0; b < net->arch->block_count; b++)
        if (net->arch->block[b].down == i)
            return 1;
    return 0;
}

/* Whether layer i's y is made anew in the backward pass instead of kept: inside a block, and the
 * stem's if it is pooled. What blocks pass on is kept. */
static int is_remade(const struct apd_net *net, int i)
{
    if (!net->recompute || (i == 0 && !net->arch->maxpool))
        return 0;
    for (int b = 0; b < net->arch->block_count; b++)
        if (net->arch->block[b].first + net->arch->block[b].count - 1 == i)
            return 0;
    return 1;
}

/* Two places for all of them: a shortcut's projection is alive beside a layer of the main path. */
static void place_remade(struct apd_net *net, struct planner *planner)
{
    size_t largest[2] = {0, 0};
    void *at[2];

    for (int i = 0; i < net->arch->layer_count; i++) {
        size_t bytes = tensor_bytes(net, net->arch->layer[i].out),
               *most = &largest[is_down(net, i)];

        if (is_remade(net, i) && bytes > *most)
            *most = bytes;
    }
    for (int k = 0; k < 2; k++)
        at[k] = place(planner, largest[k]);
    for (int i = 0; i < net->arch->layer_count; i++)
        if (is_remade(net, i))
            net->y[i] = at[is_down(net, i)];
}

static void place_all(struct apd_net *net, struct planner *planner)
{
    const struct apd_arch *arch = net->arch;
    size_t elem = net->be->elem_bytes, n = (size_t)net->max_images;
    size_t segments = (size_t)net->max_segments, largest = 0, widest = 0;

    if (net->recompute)
        place_remade(net, planner);
    for (int i = 0; i < arch->layer_count; i++) {
        size_t bytes = tensor_bytes(net, arch->layer[i].out);
        size_t c = net->be->ops->channel_elems(net->be, arch->layer[i].out.c);

        net->x[i] = place(planner, bytes);
        if (!is_remade(net, i))
            net->y[i] = place(planner, bytes);
        net->moments[i] = place(planner, segments * 2 * c * elem);
        largest = bytes > largest ? bytes : largest;
        widest = c > widest ? c : widest;
    }
    if (arch->maxpool) {
        net->pooled = place(planner, tensor_bytes(net, arch->stem_out));
        net->which = place(planner, tensor_elems(net, arch->stem_out));
    }
    net->features = place(planner, n * (size_t)arch->features.c * elem);
    net->d_features = place(planner, n * (size_t)arch->features.c * elem);
    net->logits = place(planner, n * (size_t)arch->classes * elem);
    net->d_logits = place(planner, n * (size_t)arch->classes * elem);
    for (int i = 0; i < GRADIENT_BUFFERS; i++)
        net->gradient[i] = place(planner, largest);
    net->d_sums = place(planner, segments * 2 * widest * sizeof(double));
    net->pooled_sums = place(planner, segments * 2 * widest * sizeof(double));
}

enum apd_code apd_net_create(struct apd_params *params, int max_images, int max_segments,
                             int recompute, struct apd_net **out, struct apd_err *err)
{
    struct apd_net *net = calloc(1, sizeof *net);
    struct planner planner = {0};
    enum apd_code rc;

    if (net == NULL)
        return apd_fail(err, APD_NOMEM, "network");
    net->be = params->be;
    net->params = params;
    net->arch = params->arch;
    net->max_images = max_images;
    net->max_segments = max_segments;
    net->recompute = recompute;
    net->bn_eps = 1e-5;
    for (int i = 0; i < net->arch->layer_count; i++) {
        net->sums_at[i] = net->channels;
        net->channels += net->be->ops->channel_elems(net->be, net->arch->layer[i].out.c);
    }
    place_all(net, &planner);
    net->arena_bytes = planner.used;
    APD_GO(net->be->ops->alloc(net->be, net->arena_bytes, &net->arena, err));
    planner = (struct planner){.base = net->arena};
    place_all(net, &planner);
    *out = net;
    net = NULL;
done:
    apd_net_destroy(&net);
    return rc;
}

void apd_net_destroy(struct apd_net **net)
{
    if (*net == NULL)
        return;
    if ((*net)->arena != NULL)
        (*net)->be->ops->free((*net)->be, (*net)->arena);
    free(*net);
    *net = NULL;
}

enum apd_code apd_net_prepare(struct apd_net *net, int n, int d_weights, int d_images,
                              struct apd_err *err)
{
    const struct apd_backend_ops *ops = net->be->ops;
    const struct apd_arch *arch = net->arch;
    struct apd_demand demand = {.channels = arch->classes, .segments = net->max_segments};
    int backward = d_weights || d_images;

    if (n > net->max_images)
        return apd_fail(err, APD_BUG, "batch of %d images, planned for %d", n, net->max_images);
    for (int i = 0; i < arch->layer_count; i++) {
        APD_TRY(ops->conv_prepare(net->be, net->params->conv[i], n, d_weights,
                                  i > 0 ? backward : d_images, err));
        if (arch->layer[i].out.c > demand.channels)
            demand.channels = arch->layer[i].out.c;
    }
    if (ops->linear_prepare != NULL)
        APD_TRY(ops->linear_prepare(net->be, n, arch->features.c, arch->classes, d_weights,
                                    backward, err));
    return apd_prepare(net->be, &demand, err);
}

void apd_net_set_bn_eps(struct apd_net *net, double eps)
{
    net->bn_eps = eps;
}

size_t apd_net_sums(const struct apd_net *net)
{
    return 2 * net->channels;
}

const void *apd_net_logits(const struct apd_net *net)
{
    return net->logits;
}

size_t apd_net_arena_bytes(const struct apd_net *net)
{
    return net->arena_bytes;
}

/* ---------------------------------------------------------------- one BN layer */

/* What the backend wants to know of layer i in this pass. */
struct bn_view {
    struct apd_shape shape;
    size_t c; /* padded channels */
    const void *gamma[APD_BN_SETS], *beta[APD_BN_SETS];
    double count[APD_MAX_SEGMENTS]; /* values per channel the moments are over */
};

static void view_bn(struct apd_net *net, const struct apd_pass *pass, int i, struct bn_view *view)
{
    struct apd_params *params = net->params;
    double pixels;

    view->shape = net->arch->layer[i].out;
    view->c = net->be->ops->channel_elems(net->be, view->shape.c);
    for (int set = 0; set < APD_BN_SETS; set++) {
        int has = set == APD_BN_MAIN || params->has_aux;

        view->gamma[set] =
            has ? apd_at(params, params->weights, params->layer[i].gamma[set]) : NULL;
        view->beta[set] = has ? apd_at(params, params->weights, params->layer[i].beta[set]) : NULL;
    }
    pixels = (double)view->shape.h * view->shape.w;
    for (int s = 0; s < pass->segments; s++) {
        int pooled = pass->pool != NULL && pass->seg[s].set == APD_BN_MAIN;

        view->count[s] = pixels * (pooled ? pass->pool->images : (double)pass->seg[s].count);
    }
}

static enum apd_code batch_moments(struct apd_net *net, const struct apd_pass *pass, int i,
                                   const struct bn_view *view, struct apd_err *err)
{
    const struct apd_backend_ops *ops = net->be->ops;
    double *sums = pass->sums + 2 * net->sums_at[i];
    size_t stride = pass->sums_stride;

    APD_TRY(ops->bn_sums(net->be, view->shape, pass->seg, pass->segments, net->x[i], sums, stride,
                         err));
    if (pass->pool != NULL) {
        for (int s = 0; s < pass->segments; s++)
            APD_TRY(ops->copy(net->be, net->pooled_sums + (size_t)s * 2 * view->c,
                              sums + (size_t)s * stride, 2 * view->c * sizeof(double), err));
        sums = net->pooled_sums;
        stride = 2 * view->c;
        APD_TRY(pass->pool->pool(pass->pool->ctx, pass->seg, pass->segments, view->c, sums, err));
    }
    return ops->bn_moments(net->be, view->shape.c, pass->segments, sums, stride, view->count,
                           net->bn_eps, net->moments[i], err);
}

static enum apd_code running_moments(struct apd_net *net, const struct apd_pass *pass, int i,
                                     const struct bn_view *view, struct apd_err *err)
{
    struct apd_params *params = net->params;

    for (int s = 0; s < pass->segments; s++) {
        enum apd_bn_set set = pass->seg[s].set;
        char *moments = (char *)net->moments[i] + (size_t)s * 2 * view->c * net->be->elem_bytes;

        APD_TRY(net->be->ops->bn_moments_running(
            net->be, view->shape.c,
            apd_at(params, params->stats, params->layer[i].running_mean[set]),
            apd_at(params, params->stats, params->layer[i].running_var[set]), net->bn_eps, moments,
            err));
    }
    return APD_OK;
}

static enum apd_code normalise(struct apd_net *net, const struct apd_pass *pass, int i,
                               const struct bn_view *view, const void *add, int relu,
                               struct apd_err *err)
{
    return net->be->ops->bn_forward(net->be, view->shape, pass->seg, pass->segments, net->x[i],
                                    net->moments[i], view->gamma, view->beta, add, relu, net->y[i],
                                    err);
}

static enum apd_code bn_forward(struct apd_net *net, const struct apd_pass *pass, int i,
                                const void *add, int relu, struct apd_err *err)
{
    struct bn_view view;

    view_bn(net, pass, i, &view);
    if (pass->batch_stats)
        APD_TRY(batch_moments(net, pass, i, &view, err));
    else
        APD_TRY(running_moments(net, pass, i, &view, err));
    return normalise(net, pass, i, &view, add, relu, err);
}

/* Makes layer i's y again if another took its place: all such have ReLU and no shortcut, but for
 * projections, whose y the backward pass does not ask for. */
static enum apd_code remake(struct apd_net *net, const struct apd_pass *pass, int i,
                            struct apd_err *err)
{
    struct bn_view view;

    if (!is_remade(net, i))
        return APD_OK;
    view_bn(net, pass, i, &view);
    return normalise(net, pass, i, &view, NULL, 1, err);
}

/* Gradient d_y (+ d_y2) of layer i's output -> d_g (before BN's affine part, after ReLU) and d_x.
 */
static enum apd_code bn_backward(struct apd_net *net, const struct apd_pass *pass, int i,
                                 const void *d_y, const void *d_y2, int relu, void *d_g, void *d_x,
                                 struct apd_err *err)
{
    const struct apd_backend_ops *ops = net->be->ops;
    struct apd_params *params = net->params;
    struct bn_view view;

    view_bn(net, pass, i, &view);
    APD_TRY(ops->bn_backward_sums(net->be, view.shape, pass->seg, pass->segments, d_y, d_y2,
                                  relu ? net->y[i] : NULL, net->x[i], net->moments[i], d_g,
                                  net->d_sums, err));
    if (pass->d_weights != NULL) {
        void *d_gamma[APD_BN_SETS] = {NULL}, *d_beta[APD_BN_SETS] = {NULL};

        for (int set = 0; set < (params->has_aux ? APD_BN_SETS : 1); set++) {
            d_gamma[set] = apd_at(params, pass->d_weights, params->layer[i].gamma[set]);
            d_beta[set] = apd_at(params, pass->d_weights, params->layer[i].beta[set]);
        }
        APD_TRY(ops->bn_backward_params(net->be, view.shape.c, pass->seg, pass->segments,
                                        net->d_sums, d_gamma, d_beta, err));
    }
    /* Each lane's own sums went into gamma and beta; the data gradient wants those of the pool. */
    if (pass->pool != NULL && pass->batch_stats)
        APD_TRY(
            pass->pool->pool(pass->pool->ctx, pass->seg, pass->segments, view.c, net->d_sums, err));
    return ops->bn_backward_data(net->be, view.shape, pass->seg, pass->segments, d_g, net->x[i],
                                 net->moments[i], view.gamma, net->d_sums, view.count,
                                 pass->batch_stats, d_x, err);
}

/* ---------------------------------------------------------------- convolutions */

static void *weights_of(struct apd_net *net, int i)
{
    return apd_at(net->params, net->params->weights, net->params->layer[i].conv);
}

static enum apd_code conv_forward(struct apd_net *net, const struct apd_pass *pass, int i,
                                  const void *src, struct apd_err *err)
{
    return net->be->ops->conv_forward(net->be, net->params->conv[i], pass->n, src,
                                      weights_of(net, i), net->x[i], err);
}

/* d_x: gradient of layer i's convolution output; src: its input; d_src may be NULL. */
static enum apd_code conv_backward(struct apd_net *net, const struct apd_pass *pass, int i,
                                   const void *src, const void *d_x, void *d_src,
                                   struct apd_err *err)
{
    const struct apd_backend_ops *ops = net->be->ops;
    struct apd_conv *conv = net->params->conv[i];

    if (pass->d_weights != NULL)
        APD_TRY(ops->conv_backward_weights(
            net->be, conv, pass->n, src, d_x,
            apd_at(net->params, pass->d_weights, net->params->layer[i].conv), err));
    if (d_src != NULL)
        APD_TRY(
            ops->conv_backward_data(net->be, conv, pass->n, d_x, weights_of(net, i), d_src, err));
    return APD_OK;
}

/* ---------------------------------------------------------------- forward */

static const void *stem_output(const struct apd_net *net)
{
    return net->arch->maxpool ? net->pooled : net->y[0];
}

static const void *block_output(const struct apd_net *net, int b)
{
    const struct apd_block *block = &net->arch->block[b];

    return net->y[block->first + block->count - 1];
}

static const void *block_input(const struct apd_net *net, int b)
{
    return b == 0 ? stem_output(net) : block_output(net, b - 1);
}

static enum apd_code forward_block(struct apd_net *net, const struct apd_pass *pass, int b,
                                   struct apd_err *err)
{
    const struct apd_block *block = &net->arch->block[b];
    const void *input = block_input(net, b), *src = input, *shortcut = input;
    int last = block->first + block->count - 1;

    for (int i = block->first; i < last; i++) {
        APD_TRY(conv_forward(net, pass, i, src, err));
        APD_TRY(bn_forward(net, pass, i, NULL, 1, err));
        src = net->y[i];
    }
    if (block->down >= 0) {
        APD_TRY(conv_forward(net, pass, block->down, input, err));
        APD_TRY(bn_forward(net, pass, block->down, NULL, 0, err));
        shortcut = net->y[block->down];
    }
    APD_TRY(conv_forward(net, pass, last, src, err));
    return bn_forward(net, pass, last, shortcut, 1, err);
}

enum apd_code apd_net_forward(struct apd_net *net, const struct apd_pass *pass, struct apd_err *err)
{
    const struct apd_backend_ops *ops = net->be->ops;
    const struct apd_arch *arch = net->arch;
    struct apd_params *params = net->params;

    if (pass->n > net->max_images || pass->segments > net->max_segments)
        return apd_fail(err, APD_BUG, "pass of %d images in %d segments, planned for %d in %d",
                        pass->n, pass->segments, net->max_images, net->max_segments);
    APD_TRY(conv_forward(net, pass, 0, pass->images, err));
    APD_TRY(bn_forward(net, pass, 0, NULL, 1, err));
    if (arch->maxpool)
        APD_TRY(ops->maxpool_forward(net->be, arch->layer[0].out, pass->n, net->y[0], net->pooled,
                                     net->which, err));
    for (int b = 0; b < arch->block_count; b++)
        APD_TRY(forward_block(net, pass, b, err));
    APD_TRY(ops->avgpool_forward(net->be, arch->features, pass->n,
                                 block_output(net, arch->block_count - 1), net->features, err));
    return ops->linear_forward(net->be, pass->n, arch->features.c, arch->classes, net->features,
                               apd_at(params, params->weights, params->fc_weight),
                               apd_at(params, params->weights, params->fc_bias), net->logits, err);
}

/* ---------------------------------------------------------------- backward */

/* The gradient of a block's output is a + b (b NULL: a alone). The buffers not in use are `free`.
 */
struct flow {
    void *a, *b;
    void *free[GRADIENT_BUFFERS];
    int free_count;
};

static void *take_buffer(struct flow *flow)
{
    return flow->free[--flow->free_count];
}

static void give_buffer(struct flow *flow, void *buffer)
{
    if (buffer != NULL)
        flow->free[flow->free_count++] = buffer;
}

static enum apd_code backward_block(struct apd_net *net, const struct apd_pass *pass, int b,
                                    struct flow *flow, struct apd_err *err)
{
    const struct apd_block *block = &net->arch->block[b];
    const void *input = block_input(net, b);
    int last = block->first + block->count - 1;
    void *shortcut = flow->a, *at = take_buffer(flow), *next;

    /* After this, `shortcut` holds the gradient that flows into both the main path and the
     * shortcut. */
    APD_TRY(bn_backward(net, pass, last, flow->a, flow->b, 1, shortcut, at, err));
    give_buffer(flow, flow->b);
    next = take_buffer(flow);
    for (int i = last; i >= block->first; i--) {
        const void *src = i == block->first ? input : net->y[i - 1];
        void *swap = at;

        if (i > block->first)
            APD_TRY(remake(net, pass, i - 1, err));
        APD_TRY(conv_backward(net, pass, i, src, at, next, err));
        at = next;
        next = swap;
        if (i > block->first)
            APD_TRY(bn_backward(net, pass, i - 1, at, NULL, 1, at, at, err));
    }
    if (block->down >= 0) {
        APD_TRY(bn_backward(net, pass, block->down, shortcut, NULL, 0, shortcut, shortcut, err));
        APD_TRY(conv_backward(net, pass, block->down, input, shortcut, next, err));
        give_buffer(flow, shortcut);
        shortcut = next;
    } else {
        give_buffer(flow, next);
    }
    flow->a = at;
    flow->b = shortcut;
    return APD_OK;
}

static enum apd_code backward_stem(struct apd_net *net, const struct apd_pass *pass,
                                   struct flow *flow, struct apd_err *err)
{
    const struct apd_backend_ops *ops = net->be->ops;
    const struct apd_arch *arch = net->arch;

    if (arch->maxpool) {
        size_t n = ops->image_elems(net->be, arch->stem_out) * (size_t)pass->n;
        void *d_y = take_buffer(flow);

        APD_TRY(ops->add_activations(net->be, n, flow->b, flow->a, err));
        APD_TRY(ops->maxpool_backward(net->be, arch->layer[0].out, pass->n, flow->a, net->which,
                                      d_y, err));
        flow->a = d_y;
        flow->b = NULL;
    }
    APD_TRY(remake(net, pass, 0, err));
    APD_TRY(bn_backward(net, pass, 0, flow->a, flow->b, 1, flow->a, flow->a, err));
    return conv_backward(net, pass, 0, pass->images, flow->a, pass->d_images, err);
}

static enum apd_code backward_classifier(struct apd_net *net, const struct apd_pass *pass,
                                         void *d_features_map, struct apd_err *err)
{
    const struct apd_backend_ops *ops = net->be->ops;
    const struct apd_arch *arch = net->arch;
    struct apd_params *params = net->params;

    if (pass->d_weights != NULL)
        APD_TRY(ops->linear_backward_weights(
            net->be, pass->n, arch->features.c, arch->classes, net->features, net->d_logits,
            apd_at(params, pass->d_weights, params->fc_weight),
            apd_at(params, pass->d_weights, params->fc_bias), err));
    APD_TRY(ops->linear_backward_data(
        net->be, pass->n, arch->features.c, arch->classes, net->d_logits,
        apd_at(params, params->weights, params->fc_weight), net->d_features, err));
    return ops->avgpool_backward(net->be, arch->features, pass->n, net->d_features, d_features_map,
                                 err);
}

static enum apd_code tell_gradient(const struct apd_pass *pass, size_t from, struct apd_err *err)
{
    return pass->on_gradient == NULL ? APD_OK : pass->on_gradient(pass->ctx, from, err);
}

enum apd_code apd_net_backward(struct apd_net *net, const struct apd_pass *pass,
                               struct apd_err *err)
{
    int wanted = pass->d_weights != NULL || pass->d_images != NULL;
    struct flow flow = {0};

    APD_TRY(net->be->ops->softmax_ce(net->be, pass->n, net->arch->classes, net->logits,
                                     pass->targets, pass->seg, pass->segments, pass->loss,
                                     wanted ? net->d_logits : NULL, err));
    if (!wanted)
        return APD_OK;
    for (int i = 0; i < GRADIENT_BUFFERS; i++)
        give_buffer(&flow, net->gradient[i]);
    flow.a = take_buffer(&flow);
    APD_TRY(backward_classifier(net, pass, flow.a, err));
    APD_TRY(tell_gradient(pass, net->params->fc_weight, err));
    for (int b = net->arch->block_count - 1; b >= 0; b--) {
        APD_TRY(backward_block(net, pass, b, &flow, err));
        APD_TRY(tell_gradient(pass, net->params->layer[net->arch->block[b].first].conv, err));
    }
    APD_TRY(backward_stem(net, pass, &flow, err));
    return tell_gradient(pass, 0, err);
}
