/* What an index run has read so far: one block a shard, appended as shards are finished, so that a
 * run killed at any point goes on where it was. Blocks are found by the stamp of their shard
 * (path, size, time); a torn or damaged end is cut off when it is opened. Only one process can have
 * it open. */
#ifndef APD_WORKER_INDEX_JOURNAL_H
#define APD_WORKER_INDEX_JOURNAL_H

#include "base/err.h"
#include "worker/index/shard_content.h"

struct apd_journal;

/* Makes the file if it is not there. APD_CONFIG: another process has it open. */
APD_MUST_USE enum apd_code apd_journal_open(const char *path, struct apd_journal **out,
                                            struct apd_err *err);

/* Not beside append. */
int apd_journal_has(struct apd_journal *journal, uint64_t stamp);

/* From any thread. Of *content all but the problems are kept. */
APD_MUST_USE enum apd_code apd_journal_append(struct apd_journal *journal, uint64_t stamp,
                                              const struct apd_shard_content *content,
                                              struct apd_err *err);

/* The block of a stamp that the journal has; APD_BUG otherwise. On failure the caller ends *out,
 * too. Not beside append. */
APD_MUST_USE enum apd_code apd_journal_read(struct apd_journal *journal, uint64_t stamp,
                                            struct apd_shard_content *out, struct apd_err *err);

/* Removes the file: all is in the manifest. */
APD_MUST_USE enum apd_code apd_journal_remove(struct apd_journal *journal, struct apd_err *err);

/* The file stays if there is a block in it. NULL ok; nulls. */
void apd_journal_close(struct apd_journal **journal);

#endif
