/* The manifest of a data set: which samples there are, where, with which label, size and CRC. One
 * file per split, made by `advprop data index` (worker/index/), mapped read-only, so that a hundred
 * million samples take no memory of the process. docs/formats.md has it byte by byte.
 *
 * Opening reads the file once: CRCs of all sections, and every number against the others and the
 * end of the file. After that all calls are O(1), cannot fail, and may come from any thread.
 * A manifest is replaced by rename, never written to, so an open one stays what it was. */
#ifndef APD_WORKER_DATA_MANIFEST_H
#define APD_WORKER_DATA_MANIFEST_H

#include "base/err.h"
#include "base/hash.h"

#include <stdint.h>

struct apd_manifest;

enum apd_manifest_kind {
    APD_MANIFEST_TAR = 1,    /* shards are tar files */
    APD_MANIFEST_FOLDER = 2, /* a file per image; shards are runs of samples in order */
};

enum {
    APD_SHARD_SAMPLES = 1024,     /* of a folder */
    APD_CLASSES_MAX = 1 << 20,    /* labels are below */
    APD_IMAGE_BYTES_MAX = 1 << 28 /* of one encoded image */
};

struct apd_manifest_info {
    enum apd_manifest_kind kind;
    uint64_t samples;
    uint32_t classes, shards;
    uint64_t left_out;           /* broken samples that were found and are not in it */
    char digest[APD_SHA256_HEX]; /* D: of class names, shard partition, labels, sizes, CRCs */
    const char *root;            /* folder that the paths are relative to */
};

struct apd_manifest_shard {
    const char *path; /* tar: relative to the root; folder: "" */
    uint64_t first_sample;
    uint32_t samples;
    uint32_t left_out;
    uint64_t bytes; /* of the tar file, or of its samples' files */
    uint64_t stamp; /* of path, size and time of its files: whether they can have changed */
    char sha256[APD_SHA256_HEX]; /* of the tar file, or of its samples' files one after another */
};

struct apd_manifest_sample {
    const char *path; /* of the file that holds the image, relative to the root */
    uint64_t offset;  /* in that file */
    uint32_t size;    /* 1 to APD_IMAGE_BYTES_MAX */
    int32_t label;    /* 0 to classes - 1 */
    uint32_t crc;     /* CRC-32C of the image's bytes */
    uint32_t shard;
};

/* APD_IO: no such file; APD_DATA: no manifest, or a damaged one: names file, offset, expected and
 * found. Blocks while it reads. */
APD_MUST_USE enum apd_code apd_manifest_open(const char *path, struct apd_manifest **out,
                                             struct apd_err *err);

const struct apd_manifest_info *apd_manifest_info(const struct apd_manifest *manifest);

/* label < classes, shard < shards, sample < samples. Texts live as long as the manifest. */
const char *apd_manifest_class(const struct apd_manifest *manifest, uint32_t label);
void apd_manifest_shard(const struct apd_manifest *manifest, uint32_t shard,
                        struct apd_manifest_shard *out);
void apd_manifest_sample(const struct apd_manifest *manifest, uint64_t sample,
                         struct apd_manifest_sample *out);

/* NULL ok; nulls. */
void apd_manifest_close(struct apd_manifest **manifest);

#endif
