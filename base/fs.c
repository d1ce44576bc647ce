#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum apd_code apd_mkdirs(const char *path, mode_t mode, struct apd_err *err)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    struct stat st;

    if (n == 0 || n >= sizeof part)
        return apd_fail(err, APD_CONFIG, "folder name of %zu bytes: expected 1 to %zu", n,
                        sizeof part - 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, i == n ? mode : 0755) != 0 && errno != EEXIST)
            return apd_fail_errno(err, "creating folder %s", part);
    }
    if (stat(path, &st) != 0)
        return apd_fail_errno(err, "folder %s", path);
    if (!S_ISDIR(st.st_mode))
        return apd_fail(err, APD_CONFIG, "%s exists and is no folder", path);
    return APD_OK;
}

enum apd_code apd_read_file(const char *path, size_t cap, char **out, size_t *out_size,
                            struct apd_err *err)
{
    enum apd_code rc = APD_OK;
    char *data = NULL;
    size_t used = 0;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return apd_fail_errno(err, "opening %s", path);
    if (fstat(fd, &st) != 0) {
        rc = apd_fail_errno(err, "%s", path);
        goto done;
    }
    if (S_ISDIR(st.st_mode)) {
        rc = apd_fail(err, APD_DATA, "%s is a folder, expected a file", path);
        goto done;
    }
    if ((unsigned long long)st.st_size > cap) {
        rc = apd_fail(err, APD_DATA, "%s has %lld bytes, expected at most %zu", path,
                      (long long)st.st_size, cap);
        goto done;
    }
    data = malloc((size_t)st.st_size + 1);
    if (data == NULL) {
        rc = apd_fail(err, APD_NOMEM, "%lld bytes for %s", (long long)st.st_size, path);
        goto done;
    }
    while (used < (size_t)st.st_size) {
        ssize_t got = read(fd, data + used, (size_t)st.st_size - used);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            rc = apd_fail_errno(err, "reading %s at offset %zu", path, used);
            goto done;
        }
        if (got == 0)
            break; /* it shrank while we read; the caller sees what there was */
        used += (size_t)got;
    }
    data[used] = '\0';
    *out = data;
    if (out_size != NULL)
        *out_size = used;
    data = NULL;
done:
    free(data);
    close(fd);
    return rc;
}

enum apd_code apd_write_all(int fd, const void *data, size_t size, const char *path,
                            struct apd_err *err)
{
    const char *at = data;

    for (size_t left = size; left > 0;) {
        ssize_t put = write(fd, at, left);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return apd_fail_errno(err, "writing %s at offset %zu", path, size - left);
        at += put;
        left -= (size_t)put;
    }
    return APD_OK;
}

enum apd_code apd_fsync_folder_of(const char *path, struct apd_err *err)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int fd, failed;

    if (slash == NULL)
        (void)snprintf(folder, sizeof folder, ".");
    else
        (void)snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path),
                       path);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return apd_fail_errno(err, "opening folder %s", folder);
    /* EINVAL: a file system that cannot sync folders; there is nothing more to be done there. */
    failed = fsync(fd) != 0 && errno != EINVAL;
    if (failed)
        (void)apd_fail_errno(err, "fsync of folder %s", folder);
    close(fd);
    return failed ? APD_IO : APD_OK;
}

enum apd_code apd_write_file(const char *path, const void *data, size_t size, int durable,
                             struct apd_err *err)
{
    enum apd_code rc = APD_OK;
    char temporary[PATH_MAX];
    int fd, n;

    n = snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof temporary)
        return apd_fail(err, APD_CONFIG, "path of %zu bytes is too long: %s", strlen(path), path);
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return apd_fail_errno(err, "creating %s", temporary);
    APD_GO(apd_write_all(fd, data, size, temporary, err));
    if (durable && fsync(fd) != 0) {
        rc = apd_fail_errno(err, "fsync of %s", temporary);
        goto done;
    }
    if (close(fd) != 0) {
        fd = -1;
        rc = apd_fail_errno(err, "closing %s", temporary);
        goto done;
    }
    fd = -1;
    if (rename(temporary, path) != 0) {
        rc = apd_fail_errno(err, "renaming %s to %s", temporary, path);
        goto done;
    }
    if (durable)
        rc = apd_fsync_folder_of(path, err);
done:
    if (fd >= 0)
        close(fd);
    if (rc != APD_OK)
        unlink(temporary);
    return rc;
}

enum apd_code apd_append_line(const char *path, const char *text, int durable, struct apd_err *err)
{
    enum apd_code rc;
    size_t n = strlen(text);
    char *line = malloc(n + 1);
    int fd;

    if (line == NULL)
        return apd_fail(err, APD_NOMEM, "%zu bytes for a line of %s", n + 1, path);
    memcpy(line, text, n);
    line[n] = '\n';
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = apd_fail_errno(err, "opening %s", path);
        goto done;
    }
    APD_GO(apd_write_all(fd, line, n + 1, path, err));
    if (durable && fsync(fd) != 0)
        rc = apd_fail_errno(err, "fsync of %s", path);
done:
    if (fd >= 0 && close(fd) != 0 && rc == APD_OK)
        rc = apd_fail_errno(err, "closing %s", path);
    free(line);
    return rc;
}
