/* Where `advprop data corrupt` takes images from: a split of an IDX data set as it is, or image
 * files (a folder, tar shards, a manifest) cut to one size as for evaluation. */
#ifndef APD_WORKER_INDEX_CORRUPT_SOURCE_H
#define APD_WORKER_INDEX_CORRUPT_SOURCE_H

#include "base/err.h"
#include "worker/data/image.h"
#include "worker/data/sampler.h"
#include "worker/index/corrupt_set.h"
#include "worker/index/index.h"

struct apd_corrupt_source {
    struct apd_dataset *dataset;
    struct apd_sampler_settings view;
    struct apd_shape shape;
    char stamp[96]; /* which part of the images is taken: lines, without data set and seed */
};

/* APD_USAGE: options that this kind of source does not have; APD_CONFIG: no images there, or class
 * names that cannot be folders. On failure the caller ends *out, too. */
APD_MUST_USE enum apd_code apd_corrupt_source_open(const struct apd_corrupt_settings *settings,
                                                   struct apd_corrupt_source *out,
                                                   struct apd_err *err);

/* One sample, by a thread's own sampler and memory for its planes. APD_DATA: it cannot be used, the
 * message names file and reason. */
APD_MUST_USE enum apd_code apd_corrupt_source_read(const struct apd_corrupt_source *source,
                                                   struct apd_sampler *sampler, uint64_t sample,
                                                   struct apd_image *planes, struct apd_image *out,
                                                   int32_t *out_label, struct apd_err *err);
void apd_corrupt_source_fini(struct apd_corrupt_source *source);

#endif
