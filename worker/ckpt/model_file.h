/* A model to be written for others: named tensors with metadata, no run behind it. */
#ifndef APD_WORKER_CKPT_MODEL_FILE_H
#define APD_WORKER_CKPT_MODEL_FILE_H

#include "worker/safetensors.h"

enum { APD_MODEL_METAS = 12 };

/* `= {0}` is a valid empty one. */
struct apd_model_file {
    struct apd_tensor *tensor; /* owns the data; names belong to whoever added them */
    size_t count;
    struct apd_meta meta[APD_MODEL_METAS]; /* texts are not owned */
    size_t meta_count;
};

void apd_model_file_fini(struct apd_model_file *model);

/* `data` (from malloc) is taken, on failure too. */
APD_MUST_USE enum apd_code apd_model_file_add(struct apd_model_file *model,
                                              const struct apd_tensor *tensor, void *data,
                                              struct apd_err *err);

/* NULL values are left out. */
void apd_model_file_meta(struct apd_model_file *model, const char *key, const char *value);

/* Adds what the metadata say of every such file, writes it whole or not at all, and says so on
 * stdout. */
APD_MUST_USE enum apd_code apd_model_file_write(struct apd_model_file *model, const char *path,
                                                struct apd_err *err);

#endif
