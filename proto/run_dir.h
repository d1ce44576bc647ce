/* The run directory: where things lie in it, and taking one into use for a configuration. */
#ifndef APD_PROTO_RUN_DIR_H
#define APD_PROTO_RUN_DIR_H

#include "base/err.h"
#include "proto/config.h"

#define APD_RUN_CONFIG      "config.yaml" /* the effective configuration */
#define APD_RUN_STATUS      "status.json" /* newest status; where the coordinator listens */
#define APD_RUN_SOCKET      "ctl.sock"
#define APD_RUN_EVENTS      "events.jsonl"
#define APD_RUN_METRICS     "metrics.jsonl"
#define APD_RUN_BAD         "bad_samples.jsonl"
#define APD_RUN_CHECKPOINTS "checkpoints"
#define APD_RUN_LOGS        "logs"
#define APD_RUN_LOCK        "lock"       /* held by the coordinator (flock) */
#define APD_RUN_TRAIN_LOCK  "train.lock" /* held by the supervising `advprop train` (flock) */
#define APD_RUN_GENERATION  "generation" /* number of the newest start */

#define APD_RUN_PATH_MAX 4096

/* run_dir/name into `out`; APD_CONFIG if that is too long. */
APD_MUST_USE enum apd_code apd_run_dir_path(const char *run_dir, const char *name,
                                            char out[APD_RUN_PATH_MAX], struct apd_err *err);

/* Creates the directory (mode 0700) and its subfolders where they are missing and writes
 * config.yaml. If the directory has a config.yaml whose result-defining options differ: APD_CONFIG,
 * naming the first of them with both values, and nothing is changed. Other options may differ; then
 * config.yaml is replaced. Blocking. */
APD_MUST_USE enum apd_code apd_run_dir_prepare(const char *run_dir, const struct apd_config *config,
                                               struct apd_err *err);

#endif
