/* What dnn*.c share: descriptors and who destroys them, the choice of an engine, the file of
 * choices. */
#ifndef APD_KERNELS_CUDA_DNN_PRIVATE_H
#define APD_KERNELS_CUDA_DNN_PRIVATE_H

#include "kernels/cuda/dnn.h"

#include <cudnn_graph.h>

/* ---- descriptors (dnn_descriptor.c) ---- */

/* Owns the descriptors of one plan; {0} holds none. */
struct dnn_bag {
    cudnnBackendDescriptor_t at[24];
    int count;
};

APD_MUST_USE enum apd_code dnn_new(struct dnn_bag *bag, cudnnBackendDescriptorType_t type,
                                   cudnnBackendDescriptor_t *out, struct apd_err *err);
/* Destroys those after the first `keep`. */
void dnn_bag_cut(struct dnn_bag *bag, int keep);

/* Records a failed call with cuDNN's words: always APD_DEVICE, out of memory apart. */
enum apd_code dnn_failed(struct apd_err *err, cudnnStatus_t status, const char *call);

/* Jumps to `done` if a cuDNN call fails, with the code in `rc`. */
#define DNN_GO(call)                                                                               \
    do {                                                                                           \
        cudnnStatus_t dnn_go_status_ = (call);                                                     \
        if (dnn_go_status_ != CUDNN_STATUS_SUCCESS) {                                              \
            rc = dnn_failed(err, dnn_go_status_, #call);                                           \
            goto done;                                                                             \
        }                                                                                          \
    } while (0)

/* One attribute with one value, of whatever type `value` points to. */
#define DNN_SET(descriptor, name, type, value)                                                     \
    DNN_GO(cudnnBackendSetAttribute(descriptor, name, type, 1, value))
#define DNN_SET_DESCRIPTOR(descriptor, name, value)                                                \
    DNN_SET(descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, &(value))

/* The names of the operands in a variant pack. */
enum { DNN_UID_X = 1, DNN_UID_W, DNN_UID_Y };

/* Device properties from JSON, or of handle's device if json is NULL. */
APD_MUST_USE enum apd_code dnn_device_create(struct dnn_bag *bag, const char *json,
                                             cudnnHandle_t handle, cudnnBackendDescriptor_t *out,
                                             struct apd_err *err);
/* As JSON in fresh memory that the caller frees. */
APD_MUST_USE enum apd_code dnn_device_json(cudnnBackendDescriptor_t device, char **out,
                                           struct apd_err *err);
/* The graph of one operation that solves the problem. */
APD_MUST_USE enum apd_code dnn_graph_create(struct dnn_bag *bag,
                                            const struct apd_dnn_problem *problem,
                                            cudnnBackendDescriptor_t *out, struct apd_err *err);

/* ---- the choice of an engine (dnn_choose.c) ---- */

enum { DNN_MAX_KNOBS = 24 };

/* What makes cuDNN build the same plan again. */
struct dnn_choice {
    int64_t engine;
    int knob_count;
    struct {
        int64_t type, value;
    } knob[DNN_MAX_KNOBS];
};

enum { DNN_MAX_REFUSED = 16 };

struct apd_dnn_plan {
    struct apd_dnn_problem problem;
    struct dnn_bag bag;
    cudnnBackendDescriptor_t plan; /* NULL: no engine is left */
    struct dnn_choice choice;
    int64_t refused[DNN_MAX_REFUSED]; /* engines that were built and did not run */
    int refused_count;
    int has_run;
    struct apd_dnn_plan_info info;
    struct apd_dnn_plan *next;
};

/* What all plans have in common. */
struct dnn_terms {
    cudnnBackendDescriptor_t device;
    int nondeterministic;
    size_t max_workspace_bytes;
};

/* Finalizes plan->plan for plan->problem: by the engine in `wanted` (may be NULL) if it is allowed
 * and can be built, else by the best of the heuristics that is and can. A plan made before is
 * replaced, by none of plan->refused. */
APD_MUST_USE enum apd_code dnn_choose(const struct dnn_terms *terms,
                                      const struct dnn_choice *wanted, struct apd_dnn_plan *plan,
                                      struct apd_err *err);

/* "backward data f16 256x56x56x64 -> 64 3x3/1 pad 1 groups 1" */
void dnn_problem_text(const struct apd_dnn_problem *problem, char *out, size_t size);

/* ---- the file of choices (dnn_engines.c) ---- */

struct dnn_engine {
    struct apd_dnn_problem problem;
    struct dnn_choice choice;
};

struct dnn_engines {
    struct dnn_engine *at;
    size_t count, capacity;
    int changed; /* since it was read or written */
};

extern const char *const dnn_op_names[APD_DNN_OPS];
extern const char *const dnn_type_names[APD_CUDA_TYPES];

/* Reads the file if it is one of this cuDNN and this device. Otherwise nothing is in *engines and
 * the reason in `note`, "" if there is no file. */
void dnn_engines_read(const char *path, const char *device, struct dnn_engines *engines, char *note,
                      size_t note_size);
APD_MUST_USE enum apd_code dnn_engines_write(const char *path, const char *device,
                                             struct dnn_engines *engines, struct apd_err *err);
/* NULL: not known. */
const struct dnn_choice *dnn_engines_find(const struct dnn_engines *engines,
                                          const struct apd_dnn_problem *problem);
/* Adds or replaces. */
APD_MUST_USE enum apd_code dnn_engines_put(struct dnn_engines *engines,
                                           const struct apd_dnn_problem *problem,
                                           const struct dnn_choice *choice, struct apd_err *err);
void dnn_engines_fini(struct dnn_engines *engines);

int dnn_choice_equal(const struct dnn_choice *a, const struct dnn_choice *b);
int dnn_problem_equal(const struct apd_dnn_problem *a, const struct apd_dnn_problem *b);

#endif
