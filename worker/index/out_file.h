/* A file written piece by piece that appears under its name only when it is whole: temporary name
 * in the same folder, fsync, rename, fsync of the folder. Buffered; blocking; one thread. */
#ifndef APD_WORKER_INDEX_OUT_FILE_H
#define APD_WORKER_INDEX_OUT_FILE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct apd_out_file {
    char *path, *temporary;
    FILE *file;
    int lock;        /* of the temporary file, while it has one */
    uint64_t offset; /* where the next bytes go */
};

/* `= {0}` is a valid closed one. */
APD_MUST_USE enum apd_code apd_out_open(struct apd_out_file *out, const char *path,
                                        struct apd_err *err);
APD_MUST_USE enum apd_code apd_out_write(struct apd_out_file *out, const void *data, size_t size,
                                         struct apd_err *err);
/* Goes back to the first byte, to write what was left open there. */
APD_MUST_USE enum apd_code apd_out_rewind(struct apd_out_file *out, struct apd_err *err);
APD_MUST_USE enum apd_code apd_out_commit(struct apd_out_file *out, struct apd_err *err);
/* Removes the temporary file unless it was committed. */
void apd_out_fini(struct apd_out_file *out);

/* Removes from `folder` the temporary files NAME.tmp.PID, of names that `ours` says yes to, whose
 * process is gone: there is none of that number here, and none anywhere that holds the file's lock.
 * Where files cannot be locked nothing is removed. */
APD_MUST_USE enum apd_code apd_out_sweep(const char *folder,
                                         int (*ours)(const void *context, const char *name),
                                         const void *context, struct apd_err *err);

#endif
