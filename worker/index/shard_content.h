/* Reads what a shard is made of, every byte of it, for indexing and verifying. */
#ifndef APD_WORKER_INDEX_SHARD_CONTENT_H
#define APD_WORKER_INDEX_SHARD_CONTENT_H

#include "base/err.h"
#include "base/hash.h"
#include "worker/data/manifest.h"
#include "worker/index/shard_names.h"

#include <stdatomic.h>
#include <sys/stat.h>

/* Shared by the threads that read. */
struct apd_reading {
    atomic_ullong samples, bytes; /* read so far, for progress */
    const atomic_int *stop;       /* may be NULL; nonzero: reading ends with APD_CANCELED */
};

struct apd_shard_content {
    uint64_t bytes;
    char sha256[APD_SHA256_HEX];
    struct apd_manifest_sample *sample; /* [samples]; path and shard are not set */
    size_t samples, capacity;
    uint64_t left_out;
    struct apd_names problems; /* of those left out: "key: reason" */
};

/* A tar shard: its SHA-256, and the samples in it by WebDataset's rules. Samples without an image
 * or a label, with two images, or with an empty or huge one are left out. APD_DATA: no sound tar
 * file. On failure the caller ends *out, too. */
APD_MUST_USE enum apd_code apd_shard_read_tar(const char *path, struct apd_reading *reading,
                                              struct apd_shard_content *out, struct apd_err *err);

/* One image file of a folder: its bytes go into `hash`; size and CRC into *out; its state into *st.
 */
APD_MUST_USE enum apd_code apd_shard_read_file(const char *path, struct apd_reading *reading,
                                               struct apd_sha256 *hash,
                                               struct apd_manifest_sample *out, struct stat *st,
                                               struct apd_err *err);

APD_MUST_USE enum apd_code apd_shard_content_add(struct apd_shard_content *content,
                                                 const struct apd_manifest_sample *sample,
                                                 struct apd_err *err);
void apd_shard_content_fini(struct apd_shard_content *content);

#endif
