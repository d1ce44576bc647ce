/* A data set: samples numbered 0 .. samples - 1, each one image and one label, as they are stored.
 *
 * The way a format joins: fill one apd_dataset_ops, put a line into the table of dataset.c.
 * Everybody else sees only this header. Formats: "idx" (idx.c), "images" (images.c).
 *
 * Threads: open and close on the step thread; fetch may be called from several threads at once. */
#ifndef APD_WORKER_DATA_DATASET_H
#define APD_WORKER_DATA_DATASET_H

#include "base/err.h"
#include "base/hash.h"

#include <stddef.h>
#include <stdint.h>

enum apd_split { APD_SPLIT_TRAIN, APD_SPLIT_TEST };

struct apd_dataset;

/* Memory that grows at need; `= {0}` is valid, free(bytes) ends it. */
struct apd_buffer {
    uint8_t *bytes;
    size_t capacity;
    char name[4096]; /* of a sample's file */
};

struct apd_stored {
    const uint8_t *bytes; /* [c][h][w], or an image file */
    size_t size;
    int32_t label;
    const char *name; /* of the file, for messages */
};

struct apd_dataset_ops {
    const char *format; /* value of data.format */

    /* Fills everything of *dataset but `ops`. classes 0: they follow from the labels (largest + 1);
     * otherwise a label that is not below `classes` is an error. On failure close() is called on
     * what has been filled so far. */
    enum apd_code (*open)(struct apd_dataset *dataset, const char *path, enum apd_split split,
                          uint32_t classes, struct apd_err *err);

    /* sample < dataset->samples. out->bytes lie in the data set or in `buffer`, until its next use.
     * APD_DATA: this sample cannot be had, out->label is set if it is known. */
    enum apd_code (*fetch)(const struct apd_dataset *dataset, uint64_t sample,
                           struct apd_buffer *buffer, struct apd_stored *out, struct apd_err *err);

    /* Name of a class; NULL, or the whole function: classes have numbers only. */
    const char *(*class_name)(const struct apd_dataset *dataset, uint32_t label);

    /* Name of a sample for lists, into `out`; NULL: samples have numbers only. */
    void (*sample_name)(const struct apd_dataset *dataset, uint64_t sample, char *out, size_t size);

    void (*close)(struct apd_dataset *dataset);
};

/* Fields are for reading; the format fills them in open. */
struct apd_dataset {
    const struct apd_dataset_ops *ops;
    uint64_t samples;
    uint32_t classes;
    int encoded;             /* samples are image files of any size: c, h, w are 0 */
    int c, h, w;             /* of every image */
    uint32_t shards;         /* S: what the plan permutes; idx: virtual shards of 1024 samples */
    uint64_t *shard_samples; /* [S], sum = samples */
    char digest[APD_SHA256_HEX]; /* of the content; equal content in another wrapping (gzip) is
                                    equal */
    void *state;                 /* the format's own */
};

/* APD_CONFIG: unknown format or nothing of it at `path`; APD_DATA: a damaged file, the message
 * names file, offset, expected and found. Blocks while it reads. */
APD_MUST_USE enum apd_code apd_dataset_open(const char *format, const char *path,
                                            enum apd_split split, uint32_t classes,
                                            struct apd_dataset **out, struct apd_err *err);

/* As fetch above. Thread-safe, with a buffer for each thread. APD_BUG for a sample out of range. */
APD_MUST_USE enum apd_code apd_dataset_fetch(const struct apd_dataset *dataset, uint64_t sample,
                                             struct apd_buffer *buffer, struct apd_stored *out,
                                             struct apd_err *err);

/* Name of class `label`: a folder's, or its number. */
void apd_dataset_class(const struct apd_dataset *dataset, uint32_t label, char *out, size_t size);
/* Name of a sample: its file below the data set's root, or its number. */
void apd_dataset_sample(const struct apd_dataset *dataset, uint64_t sample, char *out, size_t size);

/* NULL ok; nulls. */
void apd_dataset_close(struct apd_dataset **dataset);

/* Bytes of one image: c * h * w. */
static inline size_t apd_dataset_image_bytes(const struct apd_dataset *dataset)
{
    return (size_t)dataset->c * (size_t)dataset->h * (size_t)dataset->w;
}

#endif
