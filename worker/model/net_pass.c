/* The network's passes: forward and backward, layer by layer. */
#include "worker/model/net_private.h"

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

typedef enum apd_code norm_function(struct apd_net *net, const struct apd_pass *pass,
                                    const struct apd_norm *norm, struct apd_err *err);

/* Of a block all but the batch norm at its end. */
static enum apd_code forward_inside(struct apd_net *net, const struct apd_pass *pass, int b,
                                    norm_function *norm_of, struct apd_err *err)
{
    const struct apd_block *block = &net->arch->block[b];
    const void *input = block_input(net, b), *src = input;
    int last = block->first + block->count - 1;

    for (int i = block->first; i < last; i++) {
        const struct apd_norm norm = {.i = i, .down = -1};

        APD_TRY(conv_forward(net, pass, i, src, err));
        APD_TRY(norm_of(net, pass, &norm, err));
        src = net->y[i];
    }
    if (block->down >= 0)
        APD_TRY(conv_forward(net, pass, block->down, input, err));
    return conv_forward(net, pass, last, src, err);
}

static enum apd_code forward_block(struct apd_net *net, const struct apd_pass *pass, int b,
                                   struct apd_err *err)
{
    const struct apd_block *block = &net->arch->block[b];
    const struct apd_norm end = {.i = block->first + block->count - 1,
                                 .down = block->down,
                                 .add = block->down >= 0 ? NULL : block_input(net, b)};

    APD_TRY(forward_inside(net, pass, b, apd_norm_forward, err));
    return apd_norm_forward(net, pass, &end, err);
}

enum apd_code apd_net_forward(struct apd_net *net, const struct apd_pass *pass, struct apd_err *err)
{
    const struct apd_backend_ops *ops = net->be->ops;
    const struct apd_arch *arch = net->arch;
    struct apd_params *params = net->params;
    const struct apd_norm stem = {.i = 0, .down = -1};

    if (pass->n > net->max_images || pass->segments > net->max_segments)
        return apd_fail(err, APD_BUG, "pass of %d images in %d segments, planned for %d in %d",
                        pass->n, pass->segments, net->max_images, net->max_segments);
    APD_TRY(conv_forward(net, pass, 0, pass->images, err));
    APD_TRY(apd_norm_forward(net, pass, &stem, err));
    if (arch->maxpool && !apd_net_pools_stem(net))
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
    const struct apd_norm end = {.i = last, .down = block->down};
    void *shortcut = flow->a, *at = take_buffer(flow), *next;

    /* Another block has taken the place of what was inside of this one. */
    if (net->recompute && b < net->arch->block_count - 1)
        APD_TRY(forward_inside(net, pass, b, apd_norm_again, err));
    /* After this, `shortcut` holds the gradient of the input by way of the shortcut, or that of its
     * projection. */
    APD_TRY(apd_norm_backward(net, pass, &end, flow->a, flow->b, shortcut, at, shortcut, err));
    give_buffer(flow, flow->b);
    next = take_buffer(flow);
    for (int i = last; i >= block->first; i--) {
        const struct apd_norm inside = {.i = i - 1, .down = -1};
        const void *src = i == block->first ? input : net->y[i - 1];
        void *swap = at;

        APD_TRY(conv_backward(net, pass, i, src, at, next, err));
        at = next;
        next = swap;
        if (i > block->first)
            APD_TRY(apd_norm_backward(net, pass, &inside, at, NULL, at, at, NULL, err));
    }
    if (block->down >= 0) {
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

/* The gradient of the pool's output -> that of its input. */
static enum apd_code backward_pool(struct apd_net *net, const struct apd_pass *pass,
                                   struct flow *flow, struct apd_err *err)
{
    const struct apd_backend_ops *ops = net->be->ops;
    size_t n = ops->image_elems(net->be, net->arch->stem_out) * (size_t)pass->n;
    void *d_y = take_buffer(flow);

    APD_TRY(ops->add_activations(net->be, n, flow->b, flow->a, err));
    APD_TRY(ops->maxpool_backward(net->be, net->arch->layer[0].out, pass->n, flow->a, net->which,
                                  d_y, err));
    flow->a = d_y;
    flow->b = NULL;
    return APD_OK;
}

static enum apd_code backward_stem(struct apd_net *net, const struct apd_pass *pass,
                                   struct flow *flow, struct apd_err *err)
{
    const struct apd_norm stem = {.i = 0, .down = -1};
    void *to;

    if (net->arch->maxpool && !apd_net_pools_stem(net))
        APD_TRY(backward_pool(net, pass, flow, err));
    to = apd_net_pools_stem(net) ? take_buffer(flow) : flow->a;
    APD_TRY(apd_norm_backward(net, pass, &stem, flow->a, flow->b, to, to, NULL, err));
    return conv_backward(net, pass, 0, pass->images, to, pass->d_images, err);
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
