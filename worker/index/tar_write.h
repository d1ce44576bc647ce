/* Tar files as `advprop data pack` writes them: ustar members of mode 0644 that belong to nobody
 * and date from 1970, so that equal content gives equal bytes. */
#ifndef APD_WORKER_INDEX_TAR_WRITE_H
#define APD_WORKER_INDEX_TAR_WRITE_H

#include "base/err.h"
#include "worker/index/out_file.h"

#include <stddef.h>

/* name: 1 to 99 bytes. size: below 8 GiB, what ustar can say. */
APD_MUST_USE enum apd_code apd_tar_put(struct apd_out_file *out, const char *name, const void *data,
                                       size_t size, struct apd_err *err);

/* The end mark: two blocks of zeros. */
APD_MUST_USE enum apd_code apd_tar_put_end(struct apd_out_file *out, struct apd_err *err);

#endif
