/* Convolutions by cuDNN's graph API (backend descriptors): a problem becomes a finalized plan, a
 * plan runs on a stream. Only dnn*.c know cuDNN. It can plan for a GPU that is not there, from the
 * device's properties as JSON, which is how tests plan with the genuine library.
 *
 * Tensors are NHWC with the given channel counts, filters KRSC with c / groups channels, all of one
 * type and aligned to 16 bytes; products accumulate in float. Engines that are not deterministic,
 * that reduce precision or that round float inputs are left out unless asked for; those that cuDNN
 * would have to compile are a last resort. Chosen engines
 * can be kept in a file, so that a restart picks the same kernels. Thread: step. */
#ifndef APD_KERNELS_CUDA_DNN_H
#define APD_KERNELS_CUDA_DNN_H

#include "base/err.h"
#include "kernels/cuda/kernels.h"

#include <cuda_runtime_api.h>

#include <stddef.h>
#include <stdint.h>

enum apd_dnn_op { APD_DNN_FORWARD, APD_DNN_BACKWARD_DATA, APD_DNN_BACKWARD_FILTER, APD_DNN_OPS };

struct apd_dnn_problem {
    enum apd_dnn_op op;
    enum apd_cuda_type type;
    int tf32;       /* F32 only: products may be rounded to TF32 */
    int n, h, w, c; /* input */
    int k, kernel, stride, pad, groups;
};

struct apd_dnn;
struct apd_dnn_plan;

struct apd_dnn_options {
    const char *device_json; /* NULL: the current device; otherwise plans only, nothing runs */
    const char *engines;  /* file of chosen engines, read if there and written by apd_dnn_save; may
                             be NULL */
    int nondeterministic; /* also engines whose results vary from run to run */
};

/* What a plan came to, for tables. */
struct apd_dnn_plan_info {
    int64_t engine; /* cuDNN's global index */
    size_t workspace_bytes;
    int fallback;      /* the heuristics of mode A had none that is allowed */
    int tensor_core;   /* runs on tensor cores */
    int deterministic; /* the same bits in every run */
    int compiled_late; /* its code is compiled when it is planned */
    char name[96];     /* engine and knobs: "eng43 k2=12 k13=1" */
};

/* A file of engines that cannot be used - damaged, of another cuDNN, of another device - is no
 * failure: apd_dnn_engines_note() says why it was left alone, and apd_dnn_save() replaces it. */
APD_MUST_USE enum apd_code apd_dnn_create(const struct apd_dnn_options *options,
                                          struct apd_dnn **out, struct apd_err *err);
void apd_dnn_destroy(struct apd_dnn **dnn);

/* Why the file of engines was not used; "" if it was, or if there is none. Owned by dnn. */
const char *apd_dnn_engines_note(const struct apd_dnn *dnn);
/* The properties that cuDNN plans for, as it writes them down itself: what device_json takes. Owned
 * by dnn. */
const char *apd_dnn_device_json(const struct apd_dnn *dnn);

/* The plan of a problem, made at the first call and kept; owned by dnn. APD_DEVICE with cuDNN's
 * words if there is none. */
APD_MUST_USE enum apd_code apd_dnn_plan(struct apd_dnn *dnn, const struct apd_dnn_problem *problem,
                                        const struct apd_dnn_plan **out, struct apd_err *err);
void apd_dnn_plan_info(const struct apd_dnn_plan *plan, struct apd_dnn_plan_info *out);

/* APD_DEVICE, in one sentence, if the cuDNN that is loaded cannot be used: it is older than 9.8,
 * the first that plans for a device by its properties, or of another major version than the
 * headers. */
APD_MUST_USE enum apd_code apd_dnn_check(struct apd_err *err);

/* cuDNN's version: of the headers, of the library that is loaded. 91900 is 9.19.0. */
void apd_dnn_versions(size_t *out_built, size_t *out_found);

/* Counts of the plans so far, for the log. */
struct apd_dnn_summary {
    int plans, tensor_core, fallback, compiled_late;
};
void apd_dnn_summarize(const struct apd_dnn *dnn, struct apd_dnn_summary *out);

/* Which plans have another engine than was chosen first and why, "" if none: engines of the file
 * that could not be built again, and engines that did not run. Owned by dnn. */
const char *apd_dnn_replaced(const struct apd_dnn *dnn);

/* Of all plans so far. */
size_t apd_dnn_workspace_bytes(const struct apd_dnn *dnn);

/* forward: x, w -> y; backward data: y (its gradient), w -> x; backward filter: x, y -> w. The
 * result is overwritten. workspace: apd_dnn_workspace_bytes() of device memory. Only enqueues. An
 * engine that cuDNN planned and refuses to run is replaced by the next at a plan's first run,
 * unless the stream is being recorded. */
APD_MUST_USE enum apd_code apd_dnn_run(struct apd_dnn *dnn, const struct apd_dnn_plan *plan,
                                       const void *x, const void *w, const void *y, void *workspace,
                                       cudaStream_t stream, struct apd_err *err);

/* Writes the file of chosen engines (temporary name, fsync, rename) if there is anything new to
 * write. Engines that the file had and nobody asked for stay in it. */
APD_MUST_USE enum apd_code apd_dnn_save(struct apd_dnn *dnn, struct apd_err *err);

#endif
