/* Equal images of a data set: candidates have equal size and CRC, their SHA-256 confirms them. */
#ifndef APD_WORKER_INDEX_DUPLICATES_H
#define APD_WORKER_INDEX_DUPLICATES_H

#include "base/err.h"
#include "worker/data/manifest.h"

/* Calls `group` for every set of equal images, at least two, in no particular order of sets; the
 * samples are ascending. Memory: 16 bytes a sample. Blocks. */
APD_MUST_USE enum apd_code apd_duplicates(const struct apd_manifest *manifest,
                                          void (*group)(void *context, const uint64_t *sample,
                                                        size_t count),
                                          void *context, struct apd_err *err);

#endif
