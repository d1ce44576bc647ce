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

/* The step's permutation, for all calls below. enabled = 0: slot d keeps its own image. */
void apd_shuffle_plan(struct apd_shuffle *shuffle, uint64_t seed, uint64_t step, int enabled);

/* Where images leave from (device, a row each), and which of its rows takes the image of each of
 * this worker's slots (host). Both are the shuffle's. */
void *apd_shuffle_send(const struct apd_shuffle *shuffle);
const int32_t *apd_shuffle_send_rows(const struct apd_shuffle *shuffle);

/* Collective: the labels' way. labels, out_labels: host, this worker's slots. Needs nothing of the
 * device, so the host does not wait for it. */
APD_MUST_USE enum apd_code apd_shuffle_labels(struct apd_shuffle *shuffle, const int32_t *labels,
                                              int32_t *out_labels, struct apd_err *err);
/* Collective: the images' way. */
APD_MUST_USE enum apd_code apd_shuffle_exchange(struct apd_shuffle *shuffle, struct apd_err *err);
/* What came to `count` of this worker's slots from `first` on -> out_rows (device). */
APD_MUST_USE enum apd_code apd_shuffle_take(struct apd_shuffle *shuffle, int first, int count,
                                            void *out_rows, struct apd_err *err);

/* The permutation itself: the source of slot d among n. */
int apd_shuffle_source(uint64_t seed, uint64_t step, int n, int d);

#endif
