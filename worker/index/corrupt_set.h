/* A data set under corruptions, as folders of images:
 * DST/<corruption>/<severity>/<class>/<sample>.png, or .jpg. */
#ifndef APD_WORKER_INDEX_CORRUPT_SET_H
#define APD_WORKER_INDEX_CORRUPT_SET_H

#include "base/err.h"
#include "worker/data/dataset.h"
#include "worker/index/shard_content.h"

#include <stdint.h>

enum { APD_CORRUPT_SIZE_MAX = 4096 };

enum apd_corrupt_split { APD_CORRUPT_SPLIT_UNSAID, APD_CORRUPT_TRAIN, APD_CORRUPT_TEST };

struct apd_corrupt_settings {
    const char *src, *dst;
    enum apd_corrupt_split split; /* of IDX; not said: the test set */
    /* Of image files, 0: not said, that is 224, 256 / 224 of it, and 3. */
    int size_px;          /* side of the square in the middle */
    int resize_px;        /* shorter side before it is cut out */
    int channels;         /* 3, or 1: grey */
    int jpeg_quality;     /* 1 to 100; 0: PNG */
    uint32_t corruptions; /* bit n: number n of corrupt.h */
    uint32_t severities;  /* bit n: severity n */
    uint64_t seed;
    uint64_t limit; /* only the first ones; 0: all */
    unsigned threads;
    struct apd_reading *reading;                  /* samples: images done */
    void (*say)(void *context, const char *line); /* any thread: a sample that cannot be used */
    void (*tick)(void *context);                  /* as in parallel.h */
    void *context;
};

struct apd_corrupt_report {
    uint64_t total_bytes; /* of the pixels that are to be made; set before the work begins */
    uint64_t written, kept;
    uint64_t bad; /* samples that cannot be used */
};

/* Makes the images that are not there yet, each whole or not at all, and removes what a call that
 * was killed has left. APD_CONFIG: DST holds images of another data set, seed or form. APD_DATA:
 * not one sample can be used. APD_CANCELED: stopped, the same call goes on. */
APD_MUST_USE enum apd_code apd_corrupt_set(const struct apd_corrupt_settings *settings,
                                           struct apd_corrupt_report *report, struct apd_err *err);

#endif
