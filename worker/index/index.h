/* Makes the manifest of a data set: finds the files, reads all of them once over several threads,
 * keeps what it has in a journal beside the manifest (PATH.partial), and writes the manifest when
 * all is there. What an older manifest or journal has of unchanged files (size and time) is taken
 * over. */
#ifndef APD_WORKER_INDEX_INDEX_H
#define APD_WORKER_INDEX_INDEX_H

#include "base/err.h"
#include "base/hash.h"
#include "worker/index/shard_content.h"

struct apd_index_settings {
    const char *src, *out; /* out NULL: apd_source_index_path */
    int kind;              /* enum apd_manifest_kind; 0: as SRC looks */
    unsigned threads;
    struct apd_reading *reading; /* `stop` in it ends the run with APD_CANCELED; start it again */
    /* From any thread, one at a time: a sample is left out, or something else to know. */
    void (*say)(void *context, const char *line);
    /* Ten times a second while files are read, on the calling thread. NULL: none. */
    void (*tick)(void *context);
    void *context;
};

struct apd_index_report {
    char *path; /* of the manifest; the caller frees */
    uint64_t samples, bytes, left_out, hidden, other;
    uint32_t classes, shards, shards_read; /* the other shards were taken over */
    uint64_t total_bytes; /* of the shards that are read; set before the first tick */
    char digest[APD_SHA256_HEX];
};

/* *out is filled on the way and ended by the caller in any case (free of its path). APD_CONFIG: no
 * samples, or SRC is nothing we know; APD_DATA: a damaged tar, a file that changes meanwhile. */
APD_MUST_USE enum apd_code apd_index(const struct apd_index_settings *settings,
                                     struct apd_index_report *out, struct apd_err *err);

#endif
