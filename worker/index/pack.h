/* Turns a folder of images or an IDX data set into tar shards in the format of WebDataset:
 * DST/PREFIX-000000.tar ..., members KEY.EXTENSION and KEY.cls, KEY the number of the sample, in
 * the order of samples. The same images give the same bytes. IDX images become PNG files; other
 * files are taken as they are. Class names go into DST/classes.txt.
 *
 * A shard appears when it is whole; parts that a killed pack has left are removed.
 * DST/.PREFIX.advprop-pack says what is packed; with it, a pack that was interrupted goes on, and
 * shards of anything else are not touched. */
#ifndef APD_WORKER_INDEX_PACK_H
#define APD_WORKER_INDEX_PACK_H

#include "base/err.h"
#include "worker/index/shard_content.h"

struct apd_pack_settings {
    const char *src, *dst;
    const char *prefix; /* NULL: the last name of SRC; IDX: "train" and "test" */
    uint32_t shard_samples;
    unsigned threads;
    struct apd_reading *reading;                  /* as in apd_index */
    void (*say)(void *context, const char *line); /* an image is left out */
    void (*tick)(void *context);
    void *context;
};

struct apd_pack_report {
    uint64_t samples, left_out;
    uint64_t shards, shards_written; /* the others were there */
};

/* APD_CONFIG: DST has shards
 * of another pack; APD_DATA, APD_IO: a file cannot be read. */
APD_MUST_USE enum apd_code apd_pack(const struct apd_pack_settings *settings,
                                    struct apd_pack_report *out, struct apd_err *err);

#endif
