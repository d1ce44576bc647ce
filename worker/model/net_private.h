/* What a network consists of; shared by net.c (its making), net_pass.c (forward and backward) and
 * net_norm.c (a batch norm of it), by nobody else. */
#ifndef APD_WORKER_MODEL_NET_PRIVATE_H
#define APD_WORKER_MODEL_NET_PRIVATE_H

#include "worker/model/net.h"

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
    void *y[APD_MAX_LAYERS];       /* after BN (+ shortcut) (+ ReLU); NULL: not kept */
    uint8_t *mask[APD_MAX_LAYERS]; /* of the ReLU; NULL: known without */
    void *moments[APD_MAX_LAYERS]; /* [max_segments][2][C] */
    void *pooled;
    uint8_t *which;
    void *features, *d_features; /* [n][c] */
    void *logits, *d_logits;     /* [n][classes] */
    void *gradient[GRADIENT_BUFFERS];
    double *d_sums[2];   /* [max_segments][2][C of the widest layer]; [1]: of a projection */
    double *pooled_sums; /* as much as both */
};

/* Whether the stem's BN, ReLU and pool are one operation. */
static inline int apd_net_pools_stem(const struct apd_net *net)
{
    return net->arch->maxpool && net->be->ops->bn_pool_forward != NULL;
}

/* ---- net_norm.c ---- */

/* BN layer i in a pass, with what is done with it in one go. */
struct apd_norm {
    int i;
    int down; /* the layer whose batch norm is added to it: the shortcut's projection; -1: none */
    const void *add; /* an identity shortcut, or NULL */
};

/* x -> y (the stem: pooled), ReLU included. */
APD_MUST_USE enum apd_code apd_norm_forward(struct apd_net *net, const struct apd_pass *pass,
                                            const struct apd_norm *norm, struct apd_err *err);
/* The same once more, by the moments that the first time left. */
APD_MUST_USE enum apd_code apd_norm_again(struct apd_net *net, const struct apd_pass *pass,
                                          const struct apd_norm *norm, struct apd_err *err);
/* Gradient d_y (+ d_y2) of the output -> d_g (after the ReLU's derivative: that of `add`), d_x and
 * d_x_down of the convolutions' outputs, and those of gamma and beta. d_g may be d_y (but for a
 * pooled stem), and one of d_x and d_x_down may be d_g. */
APD_MUST_USE enum apd_code apd_norm_backward(struct apd_net *net, const struct apd_pass *pass,
                                             const struct apd_norm *norm, const void *d_y,
                                             const void *d_y2, void *d_g, void *d_x, void *d_x_down,
                                             struct apd_err *err);

#endif
