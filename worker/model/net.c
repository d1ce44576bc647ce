/* The network's making: what lies where in its arena. */
#include "worker/model/net_private.h"

#include <stdlib.h>

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

/* Whether layer i ends a block, which adds the shortcut to it. */
static int ends_block(const struct apd_net *net, int i)
{
    for (int b = 0; b < net->arch->block_count; b++)
        if (net->arch->block[b].first + net->arch->block[b].count - 1 == i)
            return 1;
    return 0;
}

/* Whether layer i has a y at all: not the shortcut's projections, which go straight into the sum,
 * nor a stem that is pooled on the way. */
static int has_y(const struct apd_net *net, int i)
{
    for (int b = 0; b < net->arch->block_count; b++)
        if (net->arch->block[b].down == i)
            return 0;
    return !(i == 0 && apd_net_pools_stem(net));
}

/* What of layer i is needed until the backward pass of its block only. */
static void place_inside(struct apd_net *net, struct planner *planner, int i)
{
    size_t bytes = tensor_bytes(net, net->arch->layer[i].out);

    net->x[i] = place(planner, bytes);
    if (has_y(net, i) && !ends_block(net, i))
        net->y[i] = place(planner, bytes);
}

static void place_outside(struct apd_net *net, struct planner *planner, int i)
{
    const struct apd_backend_ops *ops = net->be->ops;
    struct apd_shape out = net->arch->layer[i].out;
    size_t c = ops->channel_elems(net->be, out.c);
    size_t mask = ops->relu_mask_bytes(net->be, out, net->max_images);

    if (ends_block(net, i))
        net->y[i] = place(planner, tensor_bytes(net, out));
    if (ends_block(net, i) && mask > 0)
        net->mask[i] = place(planner, mask);
    net->moments[i] = place(planner, (size_t)net->max_segments * 2 * c * net->be->elem_bytes);
}

/* With recompute the insides of all blocks share one place. */
static void place_blocks(struct apd_net *net, struct planner *planner)
{
    size_t first = planner->used, most = first;

    for (int b = 0; b < net->arch->block_count; b++) {
        const struct apd_block *block = &net->arch->block[b];

        if (net->recompute)
            planner->used = first;
        for (int i = block->first; i < block->first + block->count; i++)
            place_inside(net, planner, i);
        if (block->down >= 0)
            place_inside(net, planner, block->down);
        most = planner->used > most ? planner->used : most;
    }
    planner->used = most;
}

static void place_all(struct apd_net *net, struct planner *planner)
{
    const struct apd_arch *arch = net->arch;
    size_t elem = net->be->elem_bytes, n = (size_t)net->max_images;
    size_t segments = (size_t)net->max_segments, largest = 0, widest = 0;

    place_inside(net, planner, 0);
    place_blocks(net, planner);
    for (int i = 0; i < arch->layer_count; i++) {
        size_t bytes = tensor_bytes(net, arch->layer[i].out);
        size_t c = net->be->ops->channel_elems(net->be, arch->layer[i].out.c);

        place_outside(net, planner, i);
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
    for (int k = 0; k < 2; k++)
        net->d_sums[k] = place(planner, segments * 2 * widest * sizeof(double));
    net->pooled_sums = place(planner, 2 * segments * 2 * widest * sizeof(double));
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
