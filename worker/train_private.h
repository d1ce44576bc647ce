/* A worker's run in parts, shared by train*.c and by nobody else: train_start.c makes it,
 * train_memory.c sees before whether there is memory for it, train_books.c keeps its accounts,
 * train_save.c evaluates and saves, train.c is the loop. Thread: step. */
#ifndef APD_WORKER_TRAIN_PRIVATE_H
#define APD_WORKER_TRAIN_PRIVATE_H

#include "proto/plan.h"
#include "worker/checkpoint.h"
#include "worker/data/loader.h"
#include "worker/job.h"
#include "worker/link.h"
#include "worker/optim/schedule.h"
#include "worker/saver.h"
#include "worker/step.h"

struct run {
    struct apd_job *job;
    const struct apd_config *config; /* job's */
    int is_first;                    /* worker 0 reports and saves for all */
    struct apd_link *link;
    struct apd_link_assignment assignment;
    struct apd_plan_desc plan_desc;
    struct apd_plan *plan;
    struct apd_lr_schedule schedule;
    struct apd_step *step;
    struct apd_loader *loader;
    uint32_t pinned;         /* slots of its ring, from the first on */
    struct apd_saver *saver; /* of worker 0 */
    struct apd_checkpoint_info info;
    char *config_yaml;
    char config_digest[APD_SHA256_HEX], plan_digest[APD_SHA256_HEX];
    struct apd_progress progress;
    uint32_t lane_first, lane_count;
    uint64_t main_top1, main_images, main_step; /* newest evaluation by main BN */
    double last_save_s, images_per_s, data_wait_share;
    int save_asked;
    int steps, evaluations; /* of this start; steps up to SETTLED_STEPS */
};

/* The first step runs plainly, the second is recorded, the third replayed. */
enum { SETTLED_STEPS = 3 };

static inline uint64_t run_batch(const struct run *run)
{
    return (uint64_t)run->config->train.batch;
}

static inline uint32_t run_epochs(const struct run *run)
{
    return (uint32_t)(run->progress.step * run_batch(run) / run->plan_desc.samples);
}

/* Up to the first step: data, plan, network, joining, the newest checkpoint. A worker that cannot
 * start tells the coordinator why. */
APD_MUST_USE enum apd_code run_start(struct run *run, const struct apd_wireup *wireup, int rank,
                                     struct apd_err *err);
/* Tells the coordinator how it ended and frees everything. */
void run_end(struct run *run, enum apd_code rc, const struct apd_err *err);

/* What training makes on the device, in the order in which it does. */
APD_MUST_USE enum apd_code run_make_params(struct run *run, struct apd_err *err);
void run_step_setup(struct run *run, struct apd_step_setup *out);

/* Takes all device memory of the run; APD_DEVICE if it cannot be had. Before anything is made. */
APD_MUST_USE enum apd_code run_plan_memory(struct run *run, struct apd_err *err);

/* The coordinator hands out an epoch's shards; they have to be those of our plan. */
APD_MUST_USE enum apd_code run_check_shards(struct run *run, uint32_t epoch, struct apd_err *err);
void run_report_step(struct run *run, const struct apd_step_result *result, double lr,
                     double step_s, double wait_ms);
/* Samples of a committed step that could not be used. */
void run_report_bad(struct run *run, const struct apd_step_data *data);
/* Adds the step's receipts; closes the epoch when its last sample is in. *out_closed: whether it
 * was. */
APD_MUST_USE enum apd_code run_keep_receipts(struct run *run, const struct apd_step_result *result,
                                             int *out_closed, struct apd_err *err);

/* attack_steps 0: clean images. Collective. */
APD_MUST_USE enum apd_code run_evaluate(struct run *run, enum apd_bn_set set, int attack_steps,
                                        struct apd_err *err);
/* Worker 0 starts a checkpoint; wait: after the one being written, otherwise not while there is
 * one. */
APD_MUST_USE enum apd_code run_save(struct run *run, const char *reason, int wait,
                                    struct apd_err *err);
/* An epoch is complete: evaluate if it is time, save. */
APD_MUST_USE enum apd_code run_end_epoch(struct run *run, struct apd_err *err);
APD_MUST_USE enum apd_code run_save_if_due(struct run *run, struct apd_err *err);

#endif
