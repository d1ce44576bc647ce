/* Reads everything that a manifest is about again, and compares: sizes, CRCs, labels, the SHA-256
 * of every shard, and the digest. */
#ifndef APD_WORKER_INDEX_VERIFY_H
#define APD_WORKER_INDEX_VERIFY_H

#include "base/err.h"
#include "worker/data/manifest.h"
#include "worker/index/shard_content.h"

struct apd_verify_settings {
    const struct apd_manifest *manifest;
    unsigned threads;
    struct apd_reading *reading;
    void (*differ)(void *context, const char *line); /* from any thread, one at a time */
    void (*tick)(void *context);
    void *context;
};

/* A difference is no failure: it is told to `differ` and counted. */
APD_MUST_USE enum apd_code apd_verify(const struct apd_verify_settings *settings,
                                      uint64_t *out_differences, struct apd_err *err);

#endif
