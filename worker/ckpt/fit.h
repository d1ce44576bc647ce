/* Tensors of somebody's file against those of a network. */
#ifndef APD_WORKER_CKPT_FIT_H
#define APD_WORKER_CKPT_FIT_H

#include "worker/model/tensors.h"
#include "worker/safetensors.h"

/* The tensors of a file under our names: without "module." in front, without counters of batches.
 */
struct apd_foreign {
    struct apd_foreign_tensor {
        const char *name;
        const struct apd_tensor *tensor;
    } * item;
    size_t count;
    size_t counters; /* num_batches_tracked, left out */
    int has_aux;     /* there is an auxiliary BN */
};

/* Names point into the file. APD_DATA: one name twice. */
APD_MUST_USE enum apd_code apd_foreign_list(const struct apd_safetensors *file,
                                            struct apd_foreign *out, struct apd_err *err);
void apd_foreign_fini(struct apd_foreign *foreign);

/* NULL if there is none. */
const struct apd_tensor *apd_foreign_find(const struct apd_foreign *foreign, const char *name);

/* *out_count: tensors that are missing, unknown or of another shape or type; with `tell` they are
 * named on stderr. */
APD_MUST_USE enum apd_code apd_foreign_misfits(const struct apd_foreign *foreign,
                                               const struct apd_arch *arch, int tell,
                                               size_t *out_count, struct apd_err *err);

/* The network the tensors are of: `name`, or the one that they fit best. Width, stem, classes and
 * channels are those of the first convolution and the classifier. APD_DATA if these are not there;
 * APD_CONFIG for an unknown name. */
APD_MUST_USE enum apd_code apd_foreign_arch(const struct apd_foreign *foreign, const char *name,
                                            struct apd_arch *out, struct apd_err *err);

#endif
