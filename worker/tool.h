/* The worker program's modes beside training: evaluate a checkpoint, print the plan. No
 * coordinator. */
#ifndef APD_WORKER_TOOL_H
#define APD_WORKER_TOOL_H

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/job.h"

#include <stdint.h>

struct apd_eval_options {
    const char *checkpoint; /* NULL: the newest good one of job->run_dir */
    int sets;               /* bit APD_BN_MAIN, bit APD_BN_AUX */
    int attack_steps;
    double attack_eps, attack_step; /* 1/255 */
    int attack_restarts;            /* at least 1 */
    uint64_t images;                /* 0: all */
    const char *logits;             /* file to write, or NULL */
    int per_class, json;
};

/* Collective. Worker 0 prints to stdout. */
APD_MUST_USE enum apd_code
apd_tool_eval(struct apd_job *job, const struct apd_eval_options *options, struct apd_err *err);

/* Prints, for `steps` steps from the first that begins in `epoch` on, which samples each lane
 * trains on: one line "step lane branch epoch sample ...". */
APD_MUST_USE enum apd_code apd_tool_data_plan(struct apd_job *job, uint32_t epoch, uint64_t steps,
                                              struct apd_err *err);

#endif
