#include "daemon/sweep.h"

#include "base/log.h"
#include "proto/run_dir.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum kind { OTHER, WHOLE, PARTIAL };

/* WHOLE: step-N-gen-N.safetensors, PARTIAL: that with .tmp.PID behind it */
static enum kind kind_of(const char *name)
{
    unsigned long long step, generation;
    int end = 0;

    if (sscanf(name, "step-%llu-gen-%llu.safetensors%n", &step, &generation, &end) != 2 || end == 0)
        return OTHER;
    if (name[end] == '\0')
        return WHOLE;
    return strncmp(name + end, ".tmp.", 5) == 0 ? PARTIAL : OTHER;
}

/* A log that is gone or damaged says nothing about which files were committed. */
static int is_sound(const struct apd_commit_list *all)
{
    return all->count > 0 && all->skipped_count == 0;
}

static int is_committed(const char *name, const struct apd_commit_list *all)
{
    for (size_t i = 0; i < all->count; i++) {
        const char *slash = strrchr(all->commit[i].path, '/');

        if (strcmp(slash == NULL ? all->commit[i].path : slash + 1, name) == 0)
            return 1;
    }
    return 0;
}

enum apd_code apd_sweep(const char *run_dir, const struct apd_commit_list *all, struct apd_err *err)
{
    char folder[APD_RUN_PATH_MAX];
    enum apd_code rc = APD_OK;
    struct dirent *entry;
    DIR *open_folder;

    APD_TRY(apd_run_dir_path(run_dir, APD_RUN_CHECKPOINTS, folder, err));
    open_folder = opendir(folder);
    if (open_folder == NULL)
        return errno == ENOENT ? APD_OK : apd_fail_errno(err, "opening folder %s", folder);
    while ((entry = readdir(open_folder)) != NULL) {
        enum kind kind = kind_of(entry->d_name);

        if (kind == OTHER ||
            (kind == WHOLE && (!is_sound(all) || is_committed(entry->d_name, all))))
            continue;
        if (unlinkat(dirfd(open_folder), entry->d_name, 0) != 0 && errno != ENOENT) {
            rc = apd_fail_errno(err, "removing %s/%s, which was never committed", folder,
                                entry->d_name);
            break;
        }
        apd_log(APD_LOG_INFO, "removed a checkpoint that was never committed", "path=\"%s/%s\"",
                folder, entry->d_name);
    }
    closedir(open_folder);
    return rc;
}
