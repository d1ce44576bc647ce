/* See disk.h. */
#include "daemon/disk.h"

#include "base/log.h"
#include "proto/run_dir.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct apd_disk_job {
    uv_work_t work;
    struct apd_disk *disk;
    enum { COMMIT, REMOVE, RECEIPT } kind;
    struct apd_commit commit;    /* COMMIT; its path also for REMOVE */
    const struct apd_plan *plan; /* RECEIPT */
    uint32_t epoch;
    uint64_t sum;
    enum apd_code rc;
    struct apd_err err;
};

static enum apd_code do_commit(struct apd_disk_job *job)
{
    char path[APD_RUN_PATH_MAX];
    struct stat st;

    APD_TRY(apd_run_dir_path(job->disk->run_dir, job->commit.path, path, &job->err));
    if (stat(path, &st) != 0)
        return apd_fail_errno(&job->err, "%s", path);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != job->commit.bytes)
        return apd_fail(&job->err, APD_DATA, "%s: expected a file of %" PRIu64 " bytes, found %lld",
                        path, job->commit.bytes, (long long)st.st_size);
    return apd_commit_log_append(job->disk->run_dir, &job->commit, &job->err);
}

static enum apd_code do_remove(struct apd_disk_job *job)
{
    char path[APD_RUN_PATH_MAX];

    APD_TRY(apd_run_dir_path(job->disk->run_dir, job->commit.path, path, &job->err));
    if (unlink(path) != 0 && errno != ENOENT)
        return apd_fail_errno(&job->err, "deleting %s", path);
    return APD_OK;
}

static void on_work(uv_work_t *work)
{
    struct apd_disk_job *job = work->data;

    switch (job->kind) {
    case COMMIT:
        job->rc = do_commit(job);
        break;
    case REMOVE:
        job->rc = do_remove(job);
        break;
    case RECEIPT:
        job->sum = apd_plan_receipt(job->plan, job->epoch);
        break;
    }
}

static void on_done(uv_work_t *work, int status)
{
    struct apd_disk_job *job = work->data;
    struct apd_disk_events *events = &job->disk->events;
    const struct apd_err *failed = job->rc != APD_OK ? &job->err : NULL;

    (void)status; /* jobs are never cancelled */
    switch (job->kind) {
    case COMMIT:
        events->committed(events->ctx, failed);
        break;
    case REMOVE:
        events->removed(events->ctx, job->commit.path, failed);
        break;
    case RECEIPT:
        events->receipt(events->ctx, job->epoch, job->sum);
        break;
    }
    if (job != job->disk->commit)
        free(job);
}

static void queue(struct apd_disk *disk, struct apd_disk_job *job)
{
    job->disk = disk;
    job->work.data = job;
    (void)uv_queue_work(disk->loop, &job->work, on_work, on_done); /* fails only without on_work */
}

/* A job that may be left out when memory is short. */
static void queue_copy(struct apd_disk *disk, const struct apd_disk_job *wanted)
{
    struct apd_disk_job *job = malloc(sizeof *job);

    if (job == NULL) {
        apd_log(APD_LOG_ERROR, "out of memory", "for=\"a disk job\"");
        return;
    }
    *job = *wanted;
    queue(disk, job);
}

enum apd_code apd_disk_init(struct apd_disk *disk, uv_loop_t *loop, const char *run_dir,
                            const struct apd_disk_events *events, struct apd_err *err)
{
    *disk = (struct apd_disk){.loop = loop, .run_dir = run_dir, .events = *events};
    disk->commit = malloc(sizeof *disk->commit);
    if (disk->commit == NULL)
        return apd_fail(err, APD_NOMEM, "a disk job");
    return APD_OK;
}

void apd_disk_fini(struct apd_disk *disk)
{
    free(disk->commit);
    *disk = (struct apd_disk){0};
}

void apd_disk_commit(struct apd_disk *disk, const struct apd_commit *commit)
{
    *disk->commit = (struct apd_disk_job){.kind = COMMIT, .commit = *commit};
    queue(disk, disk->commit);
}

void apd_disk_remove(struct apd_disk *disk, const char *path)
{
    struct apd_disk_job job = {.kind = REMOVE};

    (void)snprintf(job.commit.path, sizeof job.commit.path, "%s", path);
    queue_copy(disk, &job);
}

void apd_disk_receipt(struct apd_disk *disk, const struct apd_plan *plan, uint32_t epoch)
{
    queue_copy(disk, &(struct apd_disk_job){.kind = RECEIPT, .plan = plan, .epoch = epoch});
}
