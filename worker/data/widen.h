/* Grey images as images of several equal channels, so that networks made for colour can be used on
 * them. */
#ifndef APD_WORKER_DATA_WIDEN_H
#define APD_WORKER_DATA_WIDEN_H

#include "base/err.h"
#include "worker/data/dataset.h"

/* Replaces *dataset by one whose images have `channels` channels, each the grey image; 0, or as
 * many as there are: left as it is. The new one owns the old. APD_CONFIG: the images are not grey.
 * On failure *dataset stays. */
APD_MUST_USE enum apd_code apd_dataset_widen(struct apd_dataset **dataset, int channels,
                                             struct apd_err *err);

#endif
