/* See run_dir.h. */
#include "proto/run_dir.h"
#include "base/fs.h"
#include "proto/config_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum apd_code apd_run_dir_path(const char *run_dir, const char *name, char out[APD_RUN_PATH_MAX],
                               struct apd_err *err)
{
    int n = snprintf(out, APD_RUN_PATH_MAX, "%s/%s", run_dir, name);

    if (n < 0 || n >= APD_RUN_PATH_MAX)
        return apd_fail(err, APD_CONFIG, "run directory: a path of %d bytes, expected at most %d",
                        n, APD_RUN_PATH_MAX - 1);
    return APD_OK;
}

static enum apd_code make_folders(const char *run_dir, struct apd_err *err)
{
    static const char *const names[] = {APD_RUN_CHECKPOINTS, APD_RUN_LOGS};
    char path[APD_RUN_PATH_MAX];

    APD_TRY(apd_mkdirs(run_dir, 0700, err));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        APD_TRY(apd_run_dir_path(run_dir, names[i], path, err));
        APD_TRY(apd_mkdirs(path, 0700, err));
    }
    return APD_OK;
}

/* Names the first option that defines the result and differs. */
static enum apd_code check_same_result(const char *run_dir, const struct apd_config *old,
                                       const struct apd_config *config, struct apd_err *err)
{
    char was[APD_OPTION_VALUE_MAX], is[APD_OPTION_VALUE_MAX];

    for (size_t i = 0; i < apd_option_count; i++) {
        const struct apd_option *option = &apd_options[i];

        if (!option->defines_result)
            continue;
        apd_option_format(option, old, was);
        apd_option_format(option, config, is);
        if (strcmp(was, is) != 0)
            return apd_fail(err, APD_CONFIG,
                            "run directory %.200s was started with %s %.100s and cannot go on with "
                            "%.100s: choose another directory",
                            run_dir, option->key, was, is);
    }
    return APD_OK;
}

enum apd_code apd_run_dir_prepare(const char *run_dir, const struct apd_config *config,
                                  struct apd_err *err)
{
    enum apd_code rc = APD_OK;
    char path[APD_RUN_PATH_MAX];
    char *yaml = NULL, *old_yaml = NULL;
    struct apd_config old;

    APD_GO(apd_run_dir_path(run_dir, APD_RUN_CONFIG, path, err));
    APD_GO(apd_config_print(config, &yaml, err));
    if (access(path, F_OK) == 0) {
        APD_GO(apd_config_load(path, NULL, 0, &old, err));
        APD_GO(check_same_result(run_dir, &old, config, err));
        APD_GO(apd_config_print(&old, &old_yaml, err));
    } else if (errno != ENOENT) {
        rc = apd_fail_errno(err, "%s", path);
        goto done;
    }
    APD_GO(make_folders(run_dir, err));
    if (old_yaml == NULL || strcmp(old_yaml, yaml) != 0)
        rc = apd_write_file(path, yaml, strlen(yaml), 1, err);
done:
    free(old_yaml);
    free(yaml);
    return rc;
}
