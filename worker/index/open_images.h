/* Opens what people name as images: a folder, tar shards or a manifest. */
#ifndef APD_WORKER_INDEX_OPEN_IMAGES_H
#define APD_WORKER_INDEX_OPEN_IMAGES_H

#include "worker/data/dataset.h"
#include "worker/index/index.h"

/* Through the manifest of settings->src; without one it is made for the moment, in the folder for
 * temporary files. settings->out is not used. Classes are the set's own. Blocks. */
APD_MUST_USE enum apd_code apd_open_images(const struct apd_index_settings *settings,
                                           struct apd_dataset **out, struct apd_err *err);

#endif
