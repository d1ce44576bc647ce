/* Writes a manifest (worker/data/manifest.h): all classes, then all shards, then all samples, in
 * their order; the file appears under its name when it is whole. Memory: the names. Blocking; one
 * thread. */
#ifndef APD_WORKER_INDEX_MANIFEST_WRITE_H
#define APD_WORKER_INDEX_MANIFEST_WRITE_H

#include "base/err.h"
#include "worker/data/manifest.h"

struct apd_manifest_writer;

/* Of *info kind, samples, classes, shards, left_out and root are used; root: absolute, or seen from
 * the folder of `path`. */
APD_MUST_USE enum apd_code apd_manifest_create(const char *path,
                                               const struct apd_manifest_info *info,
                                               struct apd_manifest_writer **out,
                                               struct apd_err *err);

APD_MUST_USE enum apd_code apd_manifest_put_class(struct apd_manifest_writer *writer,
                                                  const char *name, struct apd_err *err);
/* first_sample is counted here. */
APD_MUST_USE enum apd_code apd_manifest_put_shard(struct apd_manifest_writer *writer,
                                                  const struct apd_manifest_shard *shard,
                                                  struct apd_err *err);
/* path is used of a folder's samples, offset of a tar's. */
APD_MUST_USE enum apd_code apd_manifest_put_sample(struct apd_manifest_writer *writer,
                                                   const struct apd_manifest_sample *sample,
                                                   struct apd_err *err);

/* APD_BUG: other numbers were put than announced. out_digest may be NULL. */
APD_MUST_USE enum apd_code apd_manifest_commit(struct apd_manifest_writer *writer,
                                               char out_digest[APD_SHA256_HEX],
                                               struct apd_err *err);

/* Without a commit nothing is left. NULL ok; nulls. */
void apd_manifest_writer_destroy(struct apd_manifest_writer **writer);

/* The digest D as the writer and `advprop data verify` compute it: begin, then the classes, the
 * samples of the shards, and the samples in their order (docs/formats.md). */
APD_MUST_USE enum apd_code apd_digest_begin(const struct apd_manifest_info *info,
                                            struct apd_sha256 **out, struct apd_err *err);
APD_MUST_USE enum apd_code apd_digest_class(struct apd_sha256 *digest, const char *name,
                                            struct apd_err *err);
APD_MUST_USE enum apd_code apd_digest_shard(struct apd_sha256 *digest, uint32_t samples,
                                            struct apd_err *err);
APD_MUST_USE enum apd_code apd_digest_sample(struct apd_sha256 *digest,
                                             const struct apd_manifest_sample *sample,
                                             struct apd_err *err);

#endif
