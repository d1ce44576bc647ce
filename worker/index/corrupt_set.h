/* A data set under corruptions, as folders of images:
 * DST/<corruption>/<severity>/<class>/<sample>.png. */
#ifndef APD_WORKER_INDEX_CORRUPT_SET_H
#define APD_WORKER_INDEX_CORRUPT_SET_H

#include "base/err.h"
#include "worker/data/dataset.h"
#include "worker/index/shard_content.h"

#include <stdint.h>

struct apd_corrupt_settings {
    const char *src, *dst;
    enum apd_split split;
    uint32_t corruptions; /* bit n: number n of corrupt.h */
    uint32_t severities;  /* bit n: severity n */
    uint64_t seed;
    uint64_t limit; /* only the first ones; 0: all */
    unsigned threads;
    struct apd_reading *reading; /* samples: images done */
    void (*tick)(void *context); /* as in parallel.h */
    void *context;
};

struct apd_corrupt_report {
    uint64_t total_bytes; /* of the pixels that are to be made; set before the work begins */
    uint64_t written, kept;
};

/* Makes the images that are not there yet, each whole or not at all. APD_CONFIG: DST holds images
 * of another data set, split or seed. APD_CANCELED: stopped, the same call goes on. */
APD_MUST_USE enum apd_code apd_corrupt_set(const struct apd_corrupt_settings *settings,
                                           struct apd_corrupt_report *report, struct apd_err *err);

#endif
