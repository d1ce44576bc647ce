/* What people name as SRC: a folder of images, or tar shards (a folder of them, a file, a glob, or
 * brace ranges). Finds the files and cuts them into shards; reads no content. */
#ifndef APD_WORKER_INDEX_SOURCE_H
#define APD_WORKER_INDEX_SOURCE_H

#include "base/err.h"
#include "worker/data/manifest.h"
#include "worker/index/folder.h"
#include "worker/index/shard_names.h"

#include <stdatomic.h>

struct apd_source_shard {
    const char *path;           /* tar: relative to the root; folder: "" */
    uint64_t first_file, files; /* folder: of folder.file; tar: one */
    uint64_t bytes, stamp;      /* as in apd_manifest_shard */
    int64_t mtime_ns;           /* tar */
};

struct apd_source {
    enum apd_manifest_kind kind;
    char *root;                     /* folder that paths are relative to */
    struct apd_names names;         /* tar: paths with the root, one a shard */
    struct apd_folder folder;       /* folder */
    struct apd_names classes;       /* tar: of classes.txt; count 0: there is none */
    struct apd_source_shard *shard; /* [shards] */
    uint32_t shards;
};

/* The manifest's place where none is said: SRC/.advprop-index for a folder;
 * ROOT/NAME.advprop-index for a pattern or a file, ROOT being its folder up to the first special
 * character and NAME what is literal of its name, without ".tar" and "-", "_", "." at the end. */
APD_MUST_USE enum apd_code apd_source_index_path(const char *src, char **out, struct apd_err *err);

/* Whether the file begins like a manifest. */
int apd_source_is_index(const char *path);

/* The manifest that SRC stands for: SRC itself if it begins like one, or the default place. */
APD_MUST_USE enum apd_code apd_source_find_index(const char *src, char **out, struct apd_err *err);

/* kind 0: tar if SRC is a pattern, a file, or a folder with *.tar in it, otherwise a folder of
 * images; APD_CONFIG if a folder has both *.tar and folders. On failure the caller ends *out, too.
 */
APD_MUST_USE enum apd_code apd_source_open(const char *src, int kind, unsigned threads,
                                           const atomic_int *stop, struct apd_source *out,
                                           struct apd_err *err);
void apd_source_fini(struct apd_source *source);

#endif
