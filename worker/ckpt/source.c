#include "worker/ckpt/source.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int apd_ckpt_source_is_run(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int apd_ckpt_source_same_file(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int apd_ckpt_source_is_model(const char *tensor_name)
{
    return strncmp(tensor_name, "momentum.", 9) != 0 && strncmp(tensor_name, "ema.", 4) != 0;
}

static enum apd_code open_newest(const char *run_dir, char out_path[APD_RUN_PATH_MAX],
                                 struct apd_safetensors **out, struct apd_err *err)
{
    struct apd_commit_list list = {0};
    enum apd_code rc;

    APD_GO(apd_commit_log_newest_good(run_dir, &list, err));
    for (size_t i = 0; i < list.skipped_count; i++)
        fprintf(stderr, "passed over: %s\n", list.skipped[i]);
    if (list.count == 0) {
        rc = apd_fail(err, APD_DATA, "%s has no sound checkpoint (%s)", run_dir,
                      APD_COMMIT_LOG_FILE);
        goto done;
    }
    APD_GO(apd_run_dir_path(run_dir, list.commit[0].path, out_path, err));
    rc = apd_safetensors_open(out_path, NULL, out, err);
done:
    apd_commit_list_fini(&list);
    return rc;
}

enum apd_code apd_ckpt_source_open(const char *path, char out_path[APD_RUN_PATH_MAX],
                                   struct apd_safetensors **out, struct apd_err *err)
{
    if (apd_ckpt_source_is_run(path))
        return open_newest(path, out_path, out, err);
    if (snprintf(out_path, APD_RUN_PATH_MAX, "%s", path) >= APD_RUN_PATH_MAX)
        return apd_fail(err, APD_USAGE, "path of %zu bytes is too long", strlen(path));
    return apd_safetensors_open(path, NULL, out, err);
}

static int is_replaced(const struct apd_commit_list *list, size_t i)
{
    for (size_t k = i + 1; k < list->count; k++)
        if (strcmp(list->commit[k].path, list->commit[i].path) == 0)
            return 1;
    return 0;
}

enum apd_code apd_ckpt_source_records(const char *run_dir, struct apd_commit_list *out,
                                      struct apd_err *err)
{
    struct apd_commit_list list;
    size_t kept = 0;

    APD_TRY(apd_commit_log_load(run_dir, &list, err));
    for (size_t i = 0; i < list.count; i++)
        if (!is_replaced(&list, i))
            list.commit[kept++] = list.commit[i];
    list.count = kept;
    if (kept == 0 && list.skipped_count == 0) {
        apd_commit_list_fini(&list);
        return apd_fail(err, APD_DATA, "%s has no checkpoint (%s)", run_dir, APD_COMMIT_LOG_FILE);
    }
    *out = list;
    return APD_OK;
}
