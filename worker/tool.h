/* The worker program's modes beside training: evaluate a checkpoint, print the plan, show an image.
 * No coordinator. */
#ifndef APD_WORKER_TOOL_H
#define APD_WORKER_TOOL_H

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/eval_files.h"
#include "worker/eval_set.h"
#include "worker/job.h"
#include "worker/suite.h"

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
    const char *data; /* other images than the test set's, or NULL; of a suite: its folder */
    enum apd_suite suite;
    const char *predictions, *csv, *chart; /* files to write, or NULL */
};

struct apd_view_options {
    uint64_t sample;
    int test;        /* of the test set, as it is evaluated */
    uint32_t epoch;  /* otherwise of the training set, as in this epoch */
    const char *out; /* file to write, or NULL: stdout */
};

/* Collective. Worker 0 prints to stdout. */
APD_MUST_USE enum apd_code
apd_tool_eval(struct apd_job *job, const struct apd_eval_options *options, struct apd_err *err);

/* What the parts of an evaluation share; tool_eval*.c only. */
struct apd_eval_context {
    struct apd_job *job;
    struct apd_net *net;
    const struct apd_eval_options *options;
    struct apd_eval_file predictions, csv; /* worker 0's */
};

extern const char *const apd_bn_names[APD_BN_SETS];

/* Evaluates on `set` (NULL: the test set) through one BN. part: for the lists. by_class may be
 * NULL. Collective. */
APD_MUST_USE enum apd_code apd_eval_part(struct apd_eval_context *context,
                                         const struct apd_eval_set *set, const char *part,
                                         enum apd_bn_set bn, struct apd_loss *by_class,
                                         float *logits, struct apd_loss *out, struct apd_err *err);

/* A suite through one BN, and its result to stdout. Collective. */
APD_MUST_USE enum apd_code apd_eval_suite(struct apd_eval_context *context, enum apd_bn_set bn,
                                          struct apd_err *err);

/* Prints, for `steps` steps from the first that begins in `epoch` on, which samples each lane
 * trains on: one line "step lane branch epoch sample ...". */
APD_MUST_USE enum apd_code apd_tool_data_plan(struct apd_job *job, uint32_t epoch, uint64_t steps,
                                              struct apd_err *err);

/* Writes the image of one sample, as the loader gives it, as PNG; facts go to stderr. APD_USAGE: no
 * such sample, or stdout is a terminal; APD_DATA: it cannot be used. */
APD_MUST_USE enum apd_code apd_tool_data_view(struct apd_job *job,
                                              const struct apd_view_options *options,
                                              struct apd_err *err);

#endif
