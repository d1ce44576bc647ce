/* A set of images that a network is evaluated on: the run's own test set, or any folder or shards,
 * whose classes are found among the network's by name. */
#ifndef APD_WORKER_EVAL_SET_H
#define APD_WORKER_EVAL_SET_H

#include "base/err.h"
#include "worker/data/dataset.h"
#include "worker/job.h"

#include <stdint.h>

struct apd_eval_set {
    struct apd_dataset *dataset;
    int32_t *label_of; /* [its classes]: the network's class */
    uint8_t *allowed;  /* [network's classes]: those that the set has */
};

/* Opens the images in `source` (a folder, shards, or a manifest). Without a manifest one is made
 * for the moment. APD_DATA: a class that the network does not know. `= {0}` is a valid dead set. */
APD_MUST_USE enum apd_code apd_eval_set_open(const struct apd_job *job, const char *source,
                                             struct apd_eval_set *out, struct apd_err *err);
void apd_eval_set_close(struct apd_eval_set *set);

#endif
