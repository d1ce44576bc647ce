/* Open files of shards, at most a given number: the one not used for longest makes room. A file
 * that is being read is never closed. Any thread. */
#ifndef APD_WORKER_DATA_SHARD_FILES_H
#define APD_WORKER_DATA_SHARD_FILES_H

#include "base/err.h"

#include <stdint.h>

struct apd_shard_files;

APD_MUST_USE enum apd_code apd_shard_files_create(unsigned most, struct apd_shard_files **out,
                                                  struct apd_err *err);

/* The file of shard number `shard`, opened from `path` if it is not; to be given back. The kernel
 * is told that all of it will be read. Errors as apd_regular_open's. */
APD_MUST_USE enum apd_code apd_shard_files_take(struct apd_shard_files *files, uint32_t shard,
                                                const char *path, int *out_fd, struct apd_err *err);
/* fd: as taken. stale: it will not do any more (a lost file server); the next one to take the shard
 * opens it anew. */
void apd_shard_files_give(struct apd_shard_files *files, int fd, int stale);

/* NULL ok; nulls. */
void apd_shard_files_destroy(struct apd_shard_files **files);

#endif
