/* A training of one worker on images that nobody has to read: random pixels and labels that depend
 * on their number only. For checks of a device against another, and for measuring the step alone.
 * Thread: step. */
#ifndef APD_WORKER_SYNTHETIC_H
#define APD_WORKER_SYNTHETIC_H

#include "base/err.h"
#include "kernels/backend.h"

#include <stddef.h>

struct apd_synthetic;

/* overrides: "key=value" of run.yaml, as on the command line: the device, the network, the batch
 * (of one lane). run_dir: where the device keeps what it chooses, NULL: nowhere. */
APD_MUST_USE enum apd_code apd_synthetic_create(const char *const *overrides, size_t count,
                                                struct apd_shape image, int classes,
                                                const char *run_dir, struct apd_synthetic **out,
                                                struct apd_err *err);
/* NULL ok; nulls. */
void apd_synthetic_destroy(struct apd_synthetic **synthetic);

/* The next step, always on the same images. *out_loss: the mean of each branch that has images,
 * summed. Returns when the step is done. */
APD_MUST_USE enum apd_code apd_synthetic_step(struct apd_synthetic *synthetic, double lr,
                                              double *out_loss, struct apd_err *err);

/* Logs what the device came to and keeps what it chose, as a run does after its first steps. */
APD_MUST_USE enum apd_code apd_synthetic_settle(struct apd_synthetic *synthetic,
                                                struct apd_err *err);

/* "cuda fp16, NVIDIA H100"; images a step. */
const char *apd_synthetic_device(const struct apd_synthetic *synthetic);
long apd_synthetic_images(const struct apd_synthetic *synthetic);

#endif
