#include "worker/index/out_file.h"

#include "base/fs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER = 256 << 10 };

enum apd_code apd_out_open(struct apd_out_file *out, const char *path, struct apd_err *err)
{
    *out = (struct apd_out_file){.path = strdup(path)};
    if (out->path == NULL || asprintf(&out->temporary, "%s.tmp.%ld", path, (long)getpid()) < 0) {
        out->temporary = NULL;
        apd_out_fini(out);
        return apd_fail(err, APD_NOMEM, "writing %s", path);
    }
    out->file = fopen(out->temporary, "wbe");
    if (out->file == NULL) {
        (void)apd_fail_errno(err, "creating %s", out->temporary);
        apd_out_fini(out);
        return APD_IO;
    }
    (void)setvbuf(out->file, NULL, _IOFBF, BUFFER);
    return APD_OK;
}

enum apd_code apd_out_write(struct apd_out_file *out, const void *data, size_t size,
                            struct apd_err *err)
{
    if (size > 0 && fwrite(data, size, 1, out->file) != 1)
        return apd_fail_errno(err, "writing %s at offset %" PRIu64, out->temporary, out->offset);
    out->offset += size;
    return APD_OK;
}

enum apd_code apd_out_rewind(struct apd_out_file *out, struct apd_err *err)
{
    if (fseek(out->file, 0, SEEK_SET) != 0)
        return apd_fail_errno(err, "writing %s up to offset %" PRIu64, out->temporary, out->offset);
    out->offset = 0;
    return APD_OK;
}

enum apd_code apd_out_commit(struct apd_out_file *out, struct apd_err *err)
{
    int failed;

    if (fflush(out->file) != 0 || fsync(fileno(out->file)) != 0)
        return apd_fail_errno(err, "writing and syncing %s", out->temporary);
    failed = fclose(out->file) != 0;
    out->file = NULL;
    if (failed)
        return apd_fail_errno(err, "closing %s", out->temporary);
    if (rename(out->temporary, out->path) != 0)
        return apd_fail_errno(err, "renaming %s to %s", out->temporary, out->path);
    free(out->temporary);
    out->temporary = NULL;
    return apd_fsync_folder_of(out->path, err);
}

void apd_out_fini(struct apd_out_file *out)
{
    if (out->file != NULL)
        fclose(out->file);
    if (out->temporary != NULL)
        unlink(out->temporary);
    free(out->temporary);
    free(out->path);
    *out = (struct apd_out_file){0};
}
