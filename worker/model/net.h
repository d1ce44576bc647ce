/* Forward and backward through a network: activations, their gradients and BN over segments.
 *
 * One arena, planned once for the largest batch, holds everything; nothing is allocated in a pass.
 * Each pass overwrites the activations of the one before. Parameter gradients are added to,
 * activation gradients are overwritten. Thread: step. Knows no lanes, workers or attack. */
#ifndef APD_WORKER_MODEL_NET_H
#define APD_WORKER_MODEL_NET_H

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/model/arch.h"
#include "worker/model/params.h"

/* Pools the batch statistics of main segments over lanes and workers (bn.sync: full). What is
 * called between start() and finish() goes on beside the sum. */
struct apd_bn_pool {
    /* Begins the sum of the rows (device, [rows][n]), and of it over the workers, in the first row.
     */
    enum apd_code (*start)(void *ctx, double *sums, int rows, size_t n, struct apd_err *err);
    enum apd_code (*finish)(void *ctx, struct apd_err *err);
    void *ctx;
    double images; /* main images over all lanes */
};

/* One execution of the network on n images. */
struct apd_pass {
    int n;
    const struct apd_segment *seg;
    int segments;
    const void *images; /* device, input image tensor */
    int batch_stats; /* normalise by the batch; else by running statistics of each segment's set */
    /* batch_stats: device doubles; segment s's own sums and sums of squares, [layer][2][C], are the
     * apd_net_sums(net) from s * sums_stride on. */
    double *sums;
    size_t sums_stride;
    const struct apd_bn_pool *pool; /* NULL: every segment on its own */
    /* Backward only: */
    const struct apd_targets *targets;
    double *loss;    /* device, [segments][APD_LOSS_DOUBLES] */
    void *d_weights; /* flat array like the weights, added to; NULL: not wanted */
    void *d_images;  /* like images, overwritten; NULL: not wanted */
    /* Told when d_weights is complete from element `from` of the shared range on; `from` falls to
     * 0. NULL: nobody. */
    enum apd_code (*on_gradient)(void *ctx, size_t from, struct apd_err *err);
    void *ctx;
};

struct apd_net;

/* max_images, max_segments: of any pass. recompute: of a block only its output is kept from forward
 * to backward, the rest computed again; same bits. */
APD_MUST_USE enum apd_code apd_net_create(struct apd_params *params, int max_images,
                                          int max_segments, int recompute, struct apd_net **out,
                                          struct apd_err *err);
void apd_net_destroy(struct apd_net **net);

/* Makes the layers ready for passes of n images, so that those need not. d_weights, d_images: the
 * gradients that such passes want. */
APD_MUST_USE enum apd_code apd_net_prepare(struct apd_net *net, int n, int d_weights, int d_images,
                                           struct apd_err *err);

/* BN constants; set once before the first pass. */
void apd_net_set_bn_eps(struct apd_net *net, double eps);

/* Doubles of one segment's sums. */
size_t apd_net_sums(const struct apd_net *net);

/* Leaves the logits ([n][classes] plain device rows) in the arena until the next pass. */
APD_MUST_USE enum apd_code apd_net_forward(struct apd_net *net, const struct apd_pass *pass,
                                           struct apd_err *err);
const void *apd_net_logits(const struct apd_net *net);

/* After forward of the same pass: losses per segment, and the gradients the pass asks for. With
 * neither asked for it only computes the losses. */
APD_MUST_USE enum apd_code apd_net_backward(struct apd_net *net, const struct apd_pass *pass,
                                            struct apd_err *err);

/* Bytes of the arena. */
size_t apd_net_arena_bytes(const struct apd_net *net);

#endif
