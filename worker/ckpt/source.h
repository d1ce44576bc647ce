/* Where a checkpoint comes from: a file, or a run directory and its commit log. */
#ifndef APD_WORKER_CKPT_SOURCE_H
#define APD_WORKER_CKPT_SOURCE_H

#include "base/err.h"
#include "proto/commit_log.h"
#include "proto/run_dir.h"
#include "worker/safetensors.h"

int apd_ckpt_source_is_run(const char *path);

/* Opens the file, or the run's newest sound checkpoint, whose hash is checked then; why newer ones
 * were passed over is said on stderr. out_path: of the file. */
APD_MUST_USE enum apd_code apd_ckpt_source_open(const char *path, char out_path[APD_RUN_PATH_MAX],
                                                struct apd_safetensors **out, struct apd_err *err);

/* The run's commit records; one whose file was replaced by a later one of the same name is left
 * out. APD_DATA if there is none. The caller frees with apd_commit_list_fini(). */
APD_MUST_USE enum apd_code apd_ckpt_source_records(const char *run_dir, struct apd_commit_list *out,
                                                   struct apd_err *err);

/* Whether two paths lead to one file. */
int apd_ckpt_source_same_file(const char *a, const char *b);

/* The tensor belongs to what is trained or measured: no momentum and no average of the weights. */
int apd_ckpt_source_is_model(const char *tensor_name);

#endif
