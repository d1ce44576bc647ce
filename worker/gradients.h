/* The gradients of a step: one flat array per slice, and their sum over lanes and workers in tree
 * order.
 *
 * The shared range leaves in buckets from its end on, each as soon as the last backward pass has
 * completed it, so that the exchange goes on beside the rest of that pass. Which buckets there are,
 * and their order, follows from sizes alone: a worker whose pass failed still takes part in all of
 * them. */
#ifndef APD_WORKER_GRADIENTS_H
#define APD_WORKER_GRADIENTS_H

#include "base/err.h"
#include "worker/comm.h"
#include "worker/model/params.h"

struct apd_gradients;

/* slices: of this worker. comm works on the backend's memory. Neither is owned. */
APD_MUST_USE enum apd_code apd_gradients_create(struct apd_params *params, struct apd_comm *comm,
                                                int slices, struct apd_gradients **out,
                                                struct apd_err *err);
void apd_gradients_destroy(struct apd_gradients **gradients);

/* Zeroes them all, for a new step. */
APD_MUST_USE enum apd_code apd_gradients_reset(struct apd_gradients *gradients,
                                               struct apd_err *err);

/* Flat array of one slice; that of slice 0 holds the sum after apd_gradients_sum(). */
void *apd_gradients_of(const struct apd_gradients *gradients, int slice);

/* apd_pass.on_gradient of the last slice's train pass. */
APD_MUST_USE enum apd_code apd_gradients_ready(void *gradients, size_t from, struct apd_err *err);

/* Instead, after a replay of operations that were recorded with apd_gradients_ready(). */
void apd_gradients_replayed(struct apd_gradients *gradients);

/* Collective: what has not left yet leaves; then all sums are complete. */
APD_MUST_USE enum apd_code apd_gradients_sum(struct apd_gradients *gradients, struct apd_err *err);

#endif
