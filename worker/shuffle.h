/* The shuffle of attacked images over all lanes (METHOD: without it batch statistics leak labels
 * between the noise pass and the adv pass). One permutation of all V * aux images, the same on
 * every worker, a pure function of (seed, step): slot d of the adv pass takes the image of slot
 * perm(d) of the noise pass. Slots are numbered lane * aux + place. */
#ifndef APD_WORKER_SHUFFLE_H
#define APD_WORKER_SHUFFLE_H

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/comm.h"

#include <stdint.h>

struct apd_shuffle;

/* Slots of worker w are [first[w], first[w + 1]); first has comm->size + 1 entries, the last is the
 * number of all slots. row_elems: of one image. comm works on the backend's memory, host_comm on
 * the host's. */
APD_MUST_USE enum apd_code apd_shuffle_create(struct apd_backend *be, struct apd_comm *comm,
                                              struct apd_comm *host_comm, const int *first,
                                              size_t row_elems, struct apd_shuffle **out,
                                              struct apd_err *err);
void apd_shuffle_destroy(struct apd_shuffle **shuffle);

/* Collective: the step's permutation, and the labels' way through it. labels, out_labels: host,
 * this worker's slots. enabled = 0: slot d keeps its own image. Needs nothing of the device, so the
 * host does not wait for it. */
APD_MUST_USE enum apd_code apd_shuffle_labels(struct apd_shuffle *shuffle, uint64_t seed,
                                              uint64_t step, int enabled, const int32_t *labels,
                                              int32_t *out_labels, struct apd_err *err);
/* Collective, after the labels: the images' way. rows, out_rows: device, this worker's slots x
 * row_elems. */
APD_MUST_USE enum apd_code apd_shuffle_rows(struct apd_shuffle *shuffle, const void *rows,
                                            void *out_rows, struct apd_err *err);

/* The permutation itself: the source of slot d among n. */
int apd_shuffle_source(uint64_t seed, uint64_t step, int n, int d);

#endif
