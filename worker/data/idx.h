/* The IDX format of MNIST and Fashion-MNIST as a data set; docs/formats.md describes it. */
#ifndef APD_WORKER_DATA_IDX_H
#define APD_WORKER_DATA_IDX_H

#include "worker/data/dataset.h"

enum { APD_IDX_SHARD_SAMPLES = 1024 };

/* Whether `folder` has images of a training or a test set under the format's names. */
int apd_idx_is_there(const char *folder);

extern const struct apd_dataset_ops apd_idx_ops;

#endif
