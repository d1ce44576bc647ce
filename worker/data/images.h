/* Image folders and tar shards as a data set (format "images"), through their manifest;
 * docs/datasets.md. Samples are image files, decoded by the sampler. Files of shards stay open
 * between samples, a bounded number of them; what may pass by itself (a file server that is away
 * for a moment) is tried again for a while. */
#ifndef APD_WORKER_DATA_IMAGES_H
#define APD_WORKER_DATA_IMAGES_H

#include "worker/data/dataset.h"

extern const struct apd_dataset_ops apd_images_ops;

#endif
