/* See programs.h. */
#include "cli/programs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether folder/middle/name is a program; then its absolute path is in `out`. */
static int is_program(const char *folder, size_t folder_size, const char *middle, const char *name,
                      char out[APD_PROGRAM_MAX])
{
    char path[APD_PROGRAM_MAX];
    struct stat st;
    int n = snprintf(path, sizeof path, "%.*s/%s%s", (int)folder_size, folder, middle, name);

    return n > 0 && (size_t)n < sizeof path && stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
           access(path, X_OK) == 0 && realpath(path, out) != NULL;
}

static int on_path(const char *name, char out[APD_PROGRAM_MAX])
{
    const char *path = getenv("PATH");

    while (path != NULL && *path != '\0') {
        size_t n = strcspn(path, ":");

        if (n > 0 && is_program(path, n, "", name, out))
            return 1;
        path += n + (path[n] == ':');
    }
    return 0;
}

enum apd_code apd_program_find(const char *name, char out[APD_PROGRAM_MAX], struct apd_err *err)
{
    static const char *const beside[] = {"", "../daemon/", "../worker/"};
    char self[APD_PROGRAM_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    const char *slash;

    if (n < 0)
        return apd_fail_errno(err, "/proc/self/exe");
    self[n] = '\0';
    slash = strrchr(self, '/');
    for (size_t i = 0; slash != NULL && i < sizeof beside / sizeof *beside; i++)
        if (is_program(self, (size_t)(slash - self), beside[i], name, out))
            return APD_OK;
    if (on_path(name, out))
        return APD_OK;
    return apd_fail(err, APD_CONFIG, "program %s is neither beside %s nor on PATH", name, self);
}
