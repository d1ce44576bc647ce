/* Where `advprop data pack` takes images from: a folder, or a split of an IDX data set. */
#ifndef APD_WORKER_INDEX_PACK_SOURCE_H
#define APD_WORKER_INDEX_PACK_SOURCE_H

#include "base/err.h"
#include "base/hash.h"
#include "worker/data/dataset.h"
#include "worker/data/sample_read.h"
#include "worker/index/folder.h"

struct apd_pack_source {
    const char *root;
    struct apd_folder folder;    /* of a folder */
    struct apd_dataset *dataset; /* of IDX, otherwise NULL */
    uint64_t samples;
};

APD_MUST_USE enum apd_code apd_pack_source_folder(const char *src, unsigned threads,
                                                  const atomic_int *stop,
                                                  struct apd_pack_source *out, struct apd_err *err);
/* classes: as in apd_dataset_open. */
APD_MUST_USE enum apd_code apd_pack_source_idx(const char *src, enum apd_split split,
                                               uint32_t classes, struct apd_pack_source *out,
                                               struct apd_err *err);

/* Changes when a file does: names, sizes and times, or the digest of IDX. */
APD_MUST_USE enum apd_code apd_pack_source_stamp(const struct apd_pack_source *source,
                                                 char out[APD_SHA256_HEX], struct apd_err *err);

/* The image file of a sample. Any thread, with bytes of its own. */
APD_MUST_USE enum apd_code apd_pack_source_read(const struct apd_pack_source *source,
                                                uint64_t sample, struct apd_sample_bytes *out,
                                                const char **out_extension, int32_t *out_label,
                                                struct apd_err *err);
void apd_pack_source_fini(struct apd_pack_source *source);

#endif
