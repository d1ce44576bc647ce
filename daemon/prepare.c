/* See prepare.h. */
#include "daemon/prepare.h"

#include "base/fs.h"
#include "daemon/lock.h"
#include "daemon/sweep.h"
#include "proto/run_dir.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum apd_code load_config(const struct apd_prepare_args *args, struct apd_prepared *out,
                                 struct apd_err *err)
{
    char stored[APD_RUN_PATH_MAX];
    const char *path = args->config_path;

    APD_TRY(apd_run_dir_path(args->run_dir, APD_RUN_CONFIG, stored, err));
    if (path == NULL && access(stored, F_OK) == 0)
        path = stored;
    APD_TRY(apd_config_load(path, args->overrides, args->override_count, &out->config, err));
    APD_TRY(apd_config_check(&out->config, args->workers, err));
    APD_TRY(apd_config_print(&out->config, &out->config_yaml, err));
    return apd_config_digest(&out->config, out->config_digest, err);
}

static enum apd_code take_directory(const struct apd_prepare_args *args, struct apd_prepared *out,
                                    struct apd_err *err)
{
    char path[APD_RUN_PATH_MAX];
    int fd;

    APD_TRY(apd_mkdirs(args->run_dir, 0700, err));
    out->run_dir = realpath(args->run_dir, NULL);
    if (out->run_dir == NULL)
        return apd_fail_errno(err, "run directory %s", args->run_dir);
    APD_TRY(apd_run_dir_path(out->run_dir, APD_RUN_LOCK, path, err));
    APD_TRY(apd_lock_take(path, args->lock_wait_ms, &fd, err));
    out->lock_fd = fd;
    return apd_run_dir_prepare(out->run_dir, &out->config, err);
}

/* Takes over the records up to the good one, as far as their files exist. */
static enum apd_code keep_existing(struct apd_prepared *out, const struct apd_commit_list *all,
                                   const struct apd_commit *good, struct apd_err *err)
{
    char path[APD_RUN_PATH_MAX];

    out->commit = calloc(all->count, sizeof *out->commit);
    if (out->commit == NULL)
        return apd_fail(err, APD_NOMEM, "a list of %zu checkpoints", all->count);
    for (size_t i = 0; i < all->count; i++) {
        const struct apd_commit *commit = &all->commit[i];
        int is_good = commit->generation == good->generation && commit->step == good->step &&
                      strcmp(commit->path, good->path) == 0 &&
                      strcmp(commit->sha256, good->sha256) == 0;

        APD_TRY(apd_run_dir_path(out->run_dir, commit->path, path, err));
        if (is_good || access(path, F_OK) == 0)
            out->commit[out->commit_count++] = *commit;
        if (is_good)
            break;
    }
    return APD_OK;
}

static enum apd_code find_checkpoints(struct apd_prepared *out, uint64_t *out_generation,
                                      struct apd_err *err)
{
    struct apd_commit_list all = {0}, good = {0};
    enum apd_code rc;

    APD_GO(apd_commit_log_load(out->run_dir, &all, err));
    APD_GO(apd_sweep(out->run_dir, &all, err));
    APD_GO(apd_commit_log_newest_good(out->run_dir, &good, err));
    for (size_t i = 0; i < all.count; i++)
        if (all.commit[i].generation > *out_generation)
            *out_generation = all.commit[i].generation;
    if (good.count > 0)
        APD_GO(keep_existing(out, &all, &good.commit[0], err));
    out->skipped = good.skipped;
    out->skipped_count = good.skipped_count;
    good.skipped = NULL;
    good.skipped_count = 0;
done:
    apd_commit_list_fini(&all);
    apd_commit_list_fini(&good);
    return rc;
}

static enum apd_code read_generation(const char *path, uint64_t *out, struct apd_err *err)
{
    char *text = NULL, *end;

    *out = 0;
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return APD_OK;
    APD_TRY(apd_read_file(path, 64, &text, NULL, err));
    errno = 0;
    *out = strtoull(text, &end, 10);
    if (errno != 0 || end == text || (*end != '\0' && *end != '\n'))
        (void)apd_fail(err, APD_DATA, "%s: expected a number, found \"%.20s\"", path, text);
    else
        err->code = APD_OK;
    free(text);
    return err->code;
}

/* One more than any start before; durable before anybody hears of it. */
static enum apd_code next_generation(struct apd_prepared *out, uint64_t committed,
                                     struct apd_err *err)
{
    char path[APD_RUN_PATH_MAX], text[32];
    uint64_t last;
    int n;

    APD_TRY(apd_run_dir_path(out->run_dir, APD_RUN_GENERATION, path, err));
    APD_TRY(read_generation(path, &last, err));
    out->generation = (last > committed ? last : committed) + 1;
    n = snprintf(text, sizeof text, "%" PRIu64 "\n", out->generation);
    return apd_write_file(path, text, (size_t)n, 1, err);
}

enum apd_code apd_prepare(const struct apd_prepare_args *args, struct apd_prepared *out,
                          struct apd_err *err)
{
    uint64_t committed = 0;
    enum apd_code rc;

    *out = (struct apd_prepared){0};
    APD_GO(load_config(args, out, err));
    APD_GO(take_directory(args, out, err));
    APD_GO(find_checkpoints(out, &committed, err));
    APD_GO(next_generation(out, committed, err));
done:
    if (rc != APD_OK)
        apd_prepared_fini(out);
    return rc;
}

void apd_prepared_fini(struct apd_prepared *prepared)
{
    free(prepared->run_dir);
    free(prepared->config_yaml);
    free(prepared->commit);
    for (size_t i = 0; i < prepared->skipped_count; i++)
        free(prepared->skipped[i]);
    free(prepared->skipped);
    if (prepared->lock_fd > 0)
        close(prepared->lock_fd);
    *prepared = (struct apd_prepared){0};
}
