/* Checkpoints: a file that rank 1 has written exists only once its record is in the commit log.
 * Only this start's generation may commit; older files are deleted only after the record of a newer
 * one. */
#include "daemon/coord_private.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void answer(struct apd_coord *coord, const struct apd_worker *worker, uint64_t step,
                   const char *why_not)
{
    Advprop__V1__CoordinatorMessage message = ADVPROP__V1__COORDINATOR_MESSAGE__INIT;
    Advprop__V1__CheckpointCommitted committed = ADVPROP__V1__CHECKPOINT_COMMITTED__INIT;

    if (worker->conn == 0)
        return;
    committed.step = step;
    committed.accepted = why_not == NULL;
    if (why_not != NULL)
        committed.text = (char *)why_not;
    message.generation = coord->generation;
    message.kind_case = ADVPROP__V1__COORDINATOR_MESSAGE__KIND_COMMITTED;
    message.committed = &committed;
    coord->world.worker_send(coord->world.ctx, worker->conn, &message);
}

static int is_sha256(const char *text)
{
    size_t n = strspn(text, "0123456789abcdef");

    return n == APD_SHA256_HEX - 1 && text[n] == '\0';
}

static int is_inside(const char *path)
{
    return path[0] != '\0' && path[0] != '/' && strcmp(path, "..") != 0 &&
           strncmp(path, "../", 3) != 0 && strstr(path, "/../") == NULL &&
           strlen(path) < APD_COMMIT_PATH;
}

/* NULL if the checkpoint may be committed. */
static const char *why_not(const struct apd_coord *coord, uint64_t generation,
                           const Advprop__V1__CheckpointWritten *written)
{
    const Advprop__V1__CheckpointInfo *info = written->info;

    if (generation != coord->generation || (info != NULL && info->generation != coord->generation))
        return "another generation owns the run";
    if (coord->plan == NULL || info == NULL)
        return "nothing was assigned, or the message says nothing of the file";
    if (coord->committing)
        return "another checkpoint is being committed";
    if (info->step < coord->first_step || info->step > coord->steps_total)
        return "its step is not one of this start";
    if (!is_inside(info->path) || !is_sha256(info->sha256))
        return "its path must lie in the run directory and its SHA-256 must be 64 hex digits";
    return NULL;
}

static void take(struct apd_coord *coord, const Advprop__V1__CheckpointWritten *written)
{
    const Advprop__V1__CheckpointInfo *info = written->info;
    struct apd_commit *commit = &coord->commit;

    *commit = (struct apd_commit){
        .step = info->step,
        .epoch = info->epoch,
        .bytes = info->bytes,
        .generation = coord->generation,
        .date_s = coord->world.date_s(coord->world.ctx),
        .main_top1 = written->main_top1,
        .main_images = written->main_images,
    };
    (void)snprintf(commit->path, sizeof commit->path, "%s", info->path);
    (void)snprintf(commit->sha256, sizeof commit->sha256, "%s", info->sha256);
    (void)snprintf(commit->reason, sizeof commit->reason, "%s", written->reason);
    coord->committing = 1;
    coord->world.commit(coord->world.ctx, commit);
}

void coord_written(struct apd_coord *coord, const struct apd_worker *worker, uint64_t generation,
                   const Advprop__V1__CheckpointWritten *written)
{
    uint64_t step = written->info != NULL ? written->info->step : 0;
    const char *text = why_not(coord, generation, written);

    if (text != NULL) {
        coord_event(coord, "warn", "checkpoint-refused", "step %" PRIu64 ": %s", step, text);
        answer(coord, worker, step, text);
        return;
    }
    if ((strcmp(written->reason, "end") == 0 || strcmp(written->reason, "drain") == 0) &&
        apd_state_may_move(coord->state, STATE(SAVING)))
        coord_move(coord, STATE(SAVING));
    take(coord, written);
}

static void remove_surplus(struct apd_coord *coord)
{
    struct apd_commit old;

    while (apd_checkpoints_take_surplus(&coord->checkpoints,
                                        (size_t)coord->config.checkpoint.keep_last,
                                        (uint32_t)coord->config.checkpoint.keep_every_epochs, &old))
        coord->world.remove(coord->world.ctx, old.path);
}

static void committed(struct apd_coord *coord)
{
    const struct apd_commit *commit = &coord->commit;
    Advprop__V1__CheckpointInfo info;
    struct apd_err err;

    if (apd_checkpoints_add(&coord->checkpoints, commit, &err) != APD_OK)
        coord_event(coord, "warn", "checkpoint", "%s: its file will not be cleaned up", err.msg);
    apd_report_checkpoint(commit, &info);
    coord->world.metric(coord->world.ctx, "checkpoint", commit->step, &info.base);
    coord_event(coord, "info", "checkpoint", "step %" PRIu64 ", %s, %" PRIu64 " bytes, %s",
                commit->step, commit->path, commit->bytes, commit->reason);
    answer(coord, &coord->roster.worker[0], commit->step, NULL);
    coord_answer_checkpoint(coord, commit);
    remove_surplus(coord);
}

void apd_coord_commit_done(struct apd_coord *coord, const struct apd_err *failed)
{
    coord->committing = 0;
    if (coord->finished)
        return; /* the next start will find the record */
    if (failed == NULL) {
        committed(coord);
    } else {
        coord_event(coord, "error", "checkpoint-failed", "step %" PRIu64 ": %s", coord->commit.step,
                    failed->msg);
        answer(coord, &coord->roster.worker[0], coord->commit.step, failed->msg);
        coord_refuse_checkpoint(coord, failed->msg);
    }
    coord->publish_ms = coord_now(coord); /* the status is out of date */
    coord_end_if_over(coord);
    coord_schedule(coord);
}

void apd_coord_remove_done(struct apd_coord *coord, const char *path, const struct apd_err *failed)
{
    if (coord->finished)
        return;
    if (failed != NULL)
        coord_event(coord, "warn", "checkpoint-kept", "%s: %s", path, failed->msg);
    else
        coord_event(coord, "info", "checkpoint-deleted", "%s", path);
}
