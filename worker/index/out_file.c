#include "worker/index/out_file.h"

#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define TEMPORARY ".tmp."

enum { BUFFER = 256 << 10 };

enum apd_code apd_out_open(struct apd_out_file *out, const char *path, struct apd_err *err)
{
    *out = (struct apd_out_file){.path = strdup(path), .lock = -1};
    if (out->path == NULL ||
        asprintf(&out->temporary, "%s" TEMPORARY "%ld", path, (long)getpid()) < 0) {
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
    /* For apd_out_sweep elsewhere; by a descriptor that outlives the stream, up to the rename. */
    out->lock = dup(fileno(out->file));
    if (out->lock >= 0)
        (void)flock(out->lock, LOCK_EX | LOCK_NB);
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
    if (out->lock >= 0)
        close(out->lock);
    free(out->temporary);
    out->temporary = NULL;
    return apd_fsync_folder_of(out->path, err);
}

void apd_out_fini(struct apd_out_file *out)
{
    if (out->file != NULL)
        fclose(out->file);
    if (out->temporary != NULL) {
        unlink(out->temporary);
        if (out->lock >= 0)
            close(out->lock);
    }
    free(out->temporary);
    free(out->path);
    *out = (struct apd_out_file){0};
}

/* ---------------------------------------------------------------- what others have left */

/* NAME.tmp.PID; *out_name is then NAME. */
static int is_temporary(const char *file, char out_name[NAME_MAX + 1], pid_t *out_pid)
{
    size_t size = strlen(file), digits = 0;
    char *end;
    long pid;

    while (digits < size && strchr("0123456789", file[size - digits - 1]) != NULL)
        digits++;
    if (digits == 0 || size < digits + strlen(TEMPORARY) ||
        strncmp(file + size - digits - strlen(TEMPORARY), TEMPORARY, strlen(TEMPORARY)) != 0)
        return 0;
    errno = 0;
    pid = strtol(file + size - digits, &end, 10);
    if (errno != 0 || pid < 1 || pid > INT_MAX)
        return 0;
    *out_pid = (pid_t)pid;
    (void)snprintf(out_name, NAME_MAX + 1, "%.*s", (int)(size - digits - strlen(TEMPORARY)), file);
    return 1;
}

static enum apd_code remove_unlocked(int folder, const char *path, const char *file,
                                     struct apd_err *err)
{
    int fd = openat(folder, file, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    enum apd_code rc = APD_OK;

    if (fd < 0)
        return APD_OK; /* gone meanwhile, or none of ours */
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && unlinkat(folder, file, 0) != 0 && errno != ENOENT)
        rc = apd_fail_errno(err, "removing %s/%s, which a killed process has left", path, file);
    close(fd);
    return rc;
}

enum apd_code apd_out_sweep(const char *folder, int (*ours)(const void *context, const char *name),
                            const void *context, struct apd_err *err)
{
    DIR *dir = opendir(folder);
    enum apd_code rc = APD_OK;
    struct dirent *entry;

    if (dir == NULL)
        return apd_fail_errno(err, "reading folder %s", folder);
    while (rc == APD_OK && (entry = readdir(dir)) != NULL) {
        char name[NAME_MAX + 1];
        pid_t pid;

        if (is_temporary(entry->d_name, name, &pid) && ours(context, name) && kill(pid, 0) != 0 &&
            errno == ESRCH)
            rc = remove_unlocked(dirfd(dir), folder, entry->d_name, err);
    }
    closedir(dir);
    return rc;
}
