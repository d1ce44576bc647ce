/* Checkpoints: the state of a run <-> one safetensors file in canonical layout with torchvision's
 * names. Momentum of parameter "x" is "momentum.x", its average "ema.x"; everything else that a run
 * needs is in the metadata. docs/formats.md lists names and keys. */
#ifndef APD_WORKER_CHECKPOINT_H
#define APD_WORKER_CHECKPOINT_H

#include "base/err.h"
#include "base/hash.h"
#include "worker/loss_scale.h"
#include "worker/model/params.h"
#include "worker/tally.h"

#include <stdint.h>

/* Where a run is. */
struct apd_progress {
    uint64_t step;                   /* steps committed */
    struct apd_step_receipt receipt; /* of the epoch in progress, so far */
    uint32_t evaluated_epochs;       /* epochs complete at the newest evaluation */
    struct apd_loss_scale scale;
};

/* What else the metadata says. */
struct apd_checkpoint_info {
    uint64_t batch, samples, generation;
    int64_t seed;
    const char *config_yaml, *config_digest, *plan_digest;
};

struct apd_snapshot; /* a copy of the state on the host */

APD_MUST_USE enum apd_code apd_snapshot_create(const struct apd_params *params,
                                               struct apd_snapshot **out, struct apd_err *err);
void apd_snapshot_destroy(struct apd_snapshot **snapshot);

/* Copies the state; step thread. */
APD_MUST_USE enum apd_code apd_snapshot_take(struct apd_snapshot *snapshot,
                                             const struct apd_progress *progress,
                                             struct apd_err *err);

/* Writes it (durable); any one thread. */
APD_MUST_USE enum apd_code apd_snapshot_write(const struct apd_snapshot *snapshot, const char *path,
                                              const struct apd_checkpoint_info *info,
                                              uint64_t *out_bytes, char out_sha256[APD_SHA256_HEX],
                                              struct apd_err *err);

/* Loads weights, statistics, momentum, averages and progress. The file's hash is checked first
 * (NULL: not), then every name and shape; on failure params are not to be used. plan_digest,
 * config_digest: have to be those of the run that wrote it (NULL: any). */
APD_MUST_USE enum apd_code apd_checkpoint_load(const char *path, const char *sha256,
                                               const char *config_digest, const char *plan_digest,
                                               struct apd_params *params,
                                               struct apd_progress *out_progress,
                                               struct apd_err *err);

/* Weights and statistics only, for evaluation: momentum stays, and where the file has
 * no auxiliary BN the main one's values are taken (a plain torchvision model). average: their
 * exponential averages, if the file has any. */
APD_MUST_USE enum apd_code apd_checkpoint_load_model(const char *path, const char *sha256,
                                                     int average, struct apd_params *params,
                                                     struct apd_err *err);

/* The same for init_from, but a classifier of another number of classes stays in the file: fc keeps
 * its values, and *out_classes is the file's number (0: all was taken). */
APD_MUST_USE enum apd_code apd_checkpoint_init_from(const char *path, struct apd_params *params,
                                                    uint64_t *out_classes, struct apd_err *err);

#endif
