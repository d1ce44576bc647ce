#include "worker/saver.h"

#include "base/clock.h"
#include "base/log.h"
#include "proto/run_dir.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { COMMIT_TIMEOUT_MS = 30000 };

struct apd_saver {
    const char *run_dir;
    const struct apd_checkpoint_info *info;
    struct apd_link *link;
    struct apd_snapshot *snapshot;
    pthread_t thread;
    int has_thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under the lock: */
    int busy, ending;
    enum apd_code last;
    struct apd_err last_err;
    /* Owned by the save thread while busy: */
    struct apd_progress progress;
    char reason[16];
    uint64_t main_top1, main_images;
};

static enum apd_code write_and_commit(struct apd_saver *saver, struct apd_err *err)
{
    Advprop__V1__CheckpointWritten written = ADVPROP__V1__CHECKPOINT_WRITTEN__INIT;
    Advprop__V1__CheckpointInfo info = ADVPROP__V1__CHECKPOINT_INFO__INIT;
    char name[64], path[APD_RUN_PATH_MAX], sha256[APD_SHA256_HEX];
    uint64_t bytes, step = saver->progress.step;
    enum apd_code rc;

    /* The generation is part of the name: a stale writer of an earlier start that is still alive
     * behind a network cut can never replace a file that this start has committed. */
    (void)snprintf(name, sizeof name,
                   APD_RUN_CHECKPOINTS "/step-%010" PRIu64 "-gen-%" PRIu64 ".safetensors", step,
                   saver->info->generation);
    APD_TRY(apd_run_dir_path(saver->run_dir, name, path, err));
    APD_TRY(apd_snapshot_write(saver->snapshot, path, saver->info, &bytes, sha256, err));
    info.step = step;
    info.epoch = (uint32_t)(step * saver->info->batch / saver->info->samples);
    info.path = name;
    info.sha256 = sha256;
    info.bytes = bytes;
    info.generation = saver->info->generation;
    info.date_s = apd_date_s();
    written.info = &info;
    written.reason = saver->reason;
    written.main_top1 = saver->main_top1;
    written.main_images = saver->main_images;
    rc = apd_link_commit(saver->link, &written, COMMIT_TIMEOUT_MS, err);
    if (rc == APD_CANCELED)
        unlink(path); /* refused: the file belongs to nobody */
    return rc;
}

static void *save_thread(void *arg)
{
    struct apd_saver *saver = arg;

    pthread_mutex_lock(&saver->lock);
    for (;;) {
        struct apd_err err = {0};
        enum apd_code rc;

        while (!saver->busy && !saver->ending)
            pthread_cond_wait(&saver->changed, &saver->lock);
        if (!saver->busy)
            break;
        pthread_mutex_unlock(&saver->lock);
        rc = write_and_commit(saver, &err);
        if (rc != APD_OK)
            apd_log(APD_LOG_WARN, "checkpoint not saved", "step=%" PRIu64 " error=\"%s\"",
                    saver->progress.step, err.msg);
        else
            apd_log(APD_LOG_INFO, "checkpoint saved", "step=%" PRIu64 " reason=%s",
                    saver->progress.step, saver->reason);
        pthread_mutex_lock(&saver->lock);
        saver->last = rc;
        saver->last_err = err;
        saver->busy = 0;
        pthread_cond_broadcast(&saver->changed);
    }
    pthread_mutex_unlock(&saver->lock);
    return NULL;
}

enum apd_code apd_saver_create(const char *run_dir, const struct apd_checkpoint_info *info,
                               const struct apd_params *params, struct apd_link *link,
                               struct apd_saver **out, struct apd_err *err)
{
    struct apd_saver *saver = calloc(1, sizeof *saver);
    enum apd_code rc;

    if (saver == NULL)
        return apd_fail(err, APD_NOMEM, "saver");
    saver->run_dir = run_dir;
    saver->info = info;
    saver->link = link;
    pthread_mutex_init(&saver->lock, NULL);
    pthread_cond_init(&saver->changed, NULL);
    APD_GO(apd_snapshot_create(params, &saver->snapshot, err));
    if (pthread_create(&saver->thread, NULL, save_thread, saver) != 0) {
        rc = apd_fail(err, APD_NOMEM, "cannot start the save thread");
        goto done;
    }
    saver->has_thread = 1;
    *out = saver;
    saver = NULL;
done:
    apd_saver_destroy(&saver);
    return rc;
}

void apd_saver_destroy(struct apd_saver **saver)
{
    struct apd_saver *dead = *saver;

    if (dead == NULL)
        return;
    if (dead->has_thread) {
        pthread_mutex_lock(&dead->lock);
        dead->ending = 1;
        pthread_cond_broadcast(&dead->changed);
        pthread_mutex_unlock(&dead->lock);
        pthread_join(dead->thread, NULL);
    }
    apd_snapshot_destroy(&dead->snapshot);
    pthread_cond_destroy(&dead->changed);
    pthread_mutex_destroy(&dead->lock);
    free(dead);
    *saver = NULL;
}

/* With the lock held. */
static void wait_idle(struct apd_saver *saver)
{
    while (saver->busy)
        pthread_cond_wait(&saver->changed, &saver->lock);
}

enum apd_code apd_saver_start(struct apd_saver *saver, const struct apd_progress *progress,
                              const char *reason, uint64_t main_top1, uint64_t main_images,
                              int wait, int *out_started, struct apd_err *err)
{
    enum apd_code rc = APD_OK;

    *out_started = 0;
    pthread_mutex_lock(&saver->lock);
    if (wait)
        wait_idle(saver);
    if (saver->busy)
        goto done;
    APD_GO(apd_snapshot_take(saver->snapshot, progress, err));
    saver->progress = *progress;
    saver->main_top1 = main_top1;
    saver->main_images = main_images;
    (void)snprintf(saver->reason, sizeof saver->reason, "%s", reason);
    saver->busy = 1;
    *out_started = 1;
    pthread_cond_broadcast(&saver->changed);
done:
    pthread_mutex_unlock(&saver->lock);
    return rc;
}

enum apd_code apd_saver_wait(struct apd_saver *saver, struct apd_err *err)
{
    enum apd_code rc;

    pthread_mutex_lock(&saver->lock);
    wait_idle(saver);
    rc = saver->last;
    if (rc != APD_OK)
        *err = saver->last_err;
    pthread_mutex_unlock(&saver->lock);
    return rc;
}
