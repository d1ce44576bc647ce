/* Files: whole reads with a cap, durable writes. Blocking; not for the coordinator's loop thread
 * unless the file is small. */
#ifndef APD_BASE_FS_H
#define APD_BASE_FS_H

#include "base/err.h"

#include <stddef.h>
#include <sys/types.h>

/* mkdir -p with `mode` for the last component; fine if it exists as a directory. */
APD_MUST_USE enum apd_code apd_mkdirs(const char *path, mode_t mode, struct apd_err *err);

/* Reads a whole file of at most `cap` bytes into a fresh NUL-terminated buffer the caller frees. */
APD_MUST_USE enum apd_code apd_read_file(const char *path, size_t cap, char **out, size_t *out_size,
                                         struct apd_err *err);

/* Replaces `path` so that readers see the old or the new content, never a part: temporary name in
 * the same folder, write, (fsync), rename, (fsync folder). durable = 0 leaves both fsyncs out. */
APD_MUST_USE enum apd_code apd_write_file(const char *path, const void *data, size_t size,
                                          int durable, struct apd_err *err);

/* Writes all of `data`, going on after short writes and EINTR. `path` is for the message only. */
APD_MUST_USE enum apd_code apd_write_all(int fd, const void *data, size_t size, const char *path,
                                         struct apd_err *err);

/* Appends one line (the text needs no newline) with a single write(2), then fsyncs if durable. */
APD_MUST_USE enum apd_code apd_append_line(const char *path, const char *text, int durable,
                                           struct apd_err *err);

/* fsyncs the folder that holds `path`, so that a rename in it survives a power cut. */
APD_MUST_USE enum apd_code apd_fsync_folder_of(const char *path, struct apd_err *err);

#endif
