/* One training step of Fast AdvProp (METHOD section 2) on the lanes of one worker.
 *
 * Collective: all workers run the same step number together. A step that fails anywhere is
 * committed nowhere: weights, momentum and statistics stay what they were. Thread: step. */
#ifndef APD_WORKER_STEP_H
#define APD_WORKER_STEP_H

#include "base/err.h"
#include "proto/advprop.pb-c.h"
#include "proto/config.h"
#include "worker/comm.h"
#include "worker/data/loader.h"
#include "worker/loss_scale.h"
#include "worker/model/net.h"
#include "worker/model/params.h"
#include "worker/tally.h"

struct apd_step;

struct apd_step_setup {
    const struct apd_config *config; /* copied in part */
    struct apd_params *params;       /* not owned; has aux BN unless the mode is vanilla */
    /* Not owned: works on the backend's memory; on the host's (often the same one). */
    struct apd_comm *comm, *host_comm;
    int lanes;                  /* V */
    int lane_first, lane_count; /* this worker's */
    int eval_images;            /* largest evaluation batch of apd_step_net() */
    uint64_t samples;           /* N of the data set */
    /* Read and updated by every step; not owned. NULL: no factor. */
    struct apd_loss_scale *loss_scale;
    /* Told at every change of what the step does; may be NULL. */
    void (*on_phase)(void *ctx, Advprop__V1__Phase phase);
    /* Asked when all work of a step but the update is on its way and before it is waited for: the
     * data of the step after it if they are there already, or NULL. Their pixels are copied to the
     * device meanwhile, and have to stay until that step has run. May be NULL. */
    const struct apd_step_data *(*next)(void *ctx);
    void *ctx;
};

struct apd_step_result {
    struct apd_loss loss[APD_BRANCHES]; /* over all lanes */
    unsigned flags;                     /* union of all workers' */
    int skipped; /* the gradient overflowed: weights and statistics stay as they were */
    struct apd_step_receipt receipt[2];
};

APD_MUST_USE enum apd_code apd_step_create(const struct apd_step_setup *setup,
                                           struct apd_step **out, struct apd_err *err);
void apd_step_destroy(struct apd_step **step);

/* Bytes of device memory that its activations take, and the gradients of its lanes. */
void apd_step_bytes(const struct apd_step *step, size_t *out_activations, size_t *out_gradients);

/* The network of the step, for evaluation between steps. */
struct apd_net *apd_step_net(struct apd_step *step);

/* data: of step `number` for the worker's lanes; NULL with `failure` set if it could not be had:
 * then the other workers are told, and all return. flags: APD_FLAG_* this worker raises. APD_PEER:
 * another worker failed; APD_CONFIG: the gradient is not finite. */
APD_MUST_USE enum apd_code apd_step_run(struct apd_step *step, uint64_t number,
                                        const struct apd_step_data *data,
                                        const struct apd_err *failure, double lr, unsigned flags,
                                        struct apd_step_result *out, struct apd_err *err);

/* The summed, unscaled gradient of the last step (device, like the weights): for tests. */
void *apd_step_gradient(struct apd_step *step);

/* Weighted image count that set `set`'s gradient of the last step is divided by. */
double apd_step_count(const struct apd_step *step, enum apd_set set);

#endif
