/* What a step consists of; shared by step.c (the step), step_input.c (what its passes see) and
 * step_create.c (its making), by nobody else. */
#ifndef APD_WORKER_STEP_PRIVATE_H
#define APD_WORKER_STEP_PRIVATE_H

#include "worker/gradients.h"
#include "worker/mix.h"
#include "worker/shuffle.h"
#include "worker/step.h"

/* Of a run of images, on the host: the target is keep of label and the rest of label2. */
struct apd_step_labels {
    int32_t *label, *label2;
    float *keep, *weight;
};

struct apd_step {
    struct apd_config config;
    struct apd_backend *be;
    struct apd_params *params;
    struct apd_comm *comm, *host_comm;
    struct apd_net *net;
    struct apd_gradients *gradients;
    struct apd_tally *tally;
    struct apd_shuffle *shuffle;
    void (*on_phase)(void *ctx, Advprop__V1__Phase phase);
    const struct apd_step_data *(*next)(void *ctx);
    void *ctx;
    uint64_t samples;
    int lanes, lane_first, lane_count; /* V, and this worker's */
    int clean, aux;                    /* images of a lane's slice */
    int slices, slice_lanes;
    int noise_passes; /* K, 0 in vanilla mode */
    int aux_row;      /* a lane's first auxiliary image; in mode advprop they are its clean ones */
    size_t pixels;    /* of one image */
    struct apd_loss_scale *loss_scale, no_scale;
    double eps, attack_step; /* attack_step < 0: down the loss */
    uint64_t number;         /* of the step in flight */
    int is_stranded;         /* others replay sums of that step in which this worker has no part */

    struct apd_segment *noise_segments, *train_segments;
    void *x_aux, *x_attack, *d_attack;   /* aux images of all lanes; d: of a slice */
    void *batch;                         /* P2 input of a slice */
    int32_t *aux_label, *shuffled_label; /* host, aux images of all lanes */
    int32_t *attack_label;               /* host, what noise passes are told */
    /* Targets of the pass in flight, of a slice. label2 and keep: of mixed images. */
    struct apd_step_labels host;
    int32_t *label, *label2; /* device */
    void *keep, *weight;     /* device */
    /* Only with mix.kind: */
    void *mixed, *d_mixed;      /* images of a slice */
    int32_t *partner, *inverse; /* host, of a lane */
    struct apd_bn_pool pool;
    const uint8_t *staged; /* device, the step's pixels */
    const uint8_t *ahead;  /* device, those of step ahead_number; NULL: none */
    uint64_t ahead_number;
    struct apd_step_execution *executions; /* [slices][noise_passes + 1], the train pass last */
};

/* One of the network's passes in a step: plain at first, then recorded, then replayed. */
struct apd_step_execution {
    struct apd_recording *recording;
    int runs;
};

static inline int apd_step_is_full(const struct apd_step *step)
{
    return step->config.bn.sync == APD_BN_SYNC_FULL;
}

/* step_input.c: */

/* Normalised auxiliary images of all lanes, and the same plus noise, in x_aux and x_attack. */
APD_MUST_USE enum apd_code apd_step_pack_aux(struct apd_step *step,
                                             const struct apd_step_data *data, struct apd_err *err);
/* What noise pass k of a slice sees: the images at `at` as they are, or mixed. Sets images,
 * d_images and targets of the pass. */
APD_MUST_USE enum apd_code apd_step_noise_input(struct apd_step *step, int slice, int k,
                                                const void *at, struct apd_pass *pass,
                                                struct apd_targets *targets, struct apd_err *err);
/* After the pass: leaves the gradient of the images at `at` in d_attack. */
APD_MUST_USE enum apd_code apd_step_image_gradient(struct apd_step *step, int slice, int k,
                                                   struct apd_err *err);
/* The slice's batch of clean and attacked images and its targets. */
APD_MUST_USE enum apd_code apd_step_fill_batch(struct apd_step *step, int slice,
                                               const struct apd_step_data *data,
                                               struct apd_targets *targets, struct apd_err *err);

#endif
