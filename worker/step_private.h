/* What a step consists of; shared by step.c (the step) and step_create.c (its making), by nobody
 * else. */
#ifndef APD_WORKER_STEP_PRIVATE_H
#define APD_WORKER_STEP_PRIVATE_H

#include "worker/shuffle.h"
#include "worker/step.h"

struct apd_step {
    struct apd_config config;
    struct apd_backend *be;
    struct apd_params *params;
    struct apd_comm *comm;
    struct apd_net *net;
    struct apd_tally *tally;
    struct apd_shuffle *shuffle;
    void (*on_phase)(void *ctx, Advprop__V1__Phase phase);
    void *ctx;
    uint64_t samples;
    int lanes, lane_first, lane_count; /* V, and this worker's */
    int clean, aux;                    /* images of a lane's slice */
    int slices, slice_lanes;
    int noise_passes; /* K, 0 in vanilla mode */
    size_t pixels;    /* of one image */
    double eps, attack_step;

    struct apd_segment *noise_segments, *train_segments;
    double **noise_sums; /* [K] device, of the slice in flight */
    double *train_sums;
    void **gradient; /* [slices] flat arrays */
    void *gradient_block;
    void *x_aux, *x_attack, *d_attack, *x_shuffled; /* aux images of all lanes; d: of a slice */
    void *batch;                                    /* P2 input of a slice */
    int32_t *noise_label, *train_label;             /* device, of a slice */
    void *noise_weight, *train_weight;              /* device, of a slice */
    int32_t *aux_label, *shuffled_label;            /* host, aux images of all lanes */
    int32_t *label;                                 /* host, of a slice */
    struct apd_bn_pool pool;
    double *pool_host;
};

static inline int apd_step_is_full(const struct apd_step *step)
{
    return step->config.bn.sync == APD_BN_SYNC_FULL;
}

#endif
