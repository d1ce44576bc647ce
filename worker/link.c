/* See link.h: the side of the worker's own threads. What they share with the link thread is in
 * link_state.h; sockets are in link_thread.c. */
#include "worker/link.h"

#include "worker/link_state.h"
#include "worker/link_thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct apd_link {
    struct apd_link_state state;
    struct apd_link_thread *thread;
};

/* Without memory for it a report is lost; the next one tells as much. */
static void post(struct apd_link *link, Advprop__V1__WorkerMessage *message)
{
    struct apd_link_frame *frame;

    message->generation = link->state.wireup.generation;
    frame = apd_link_frame_create(message);
    if (frame == NULL)
        return;
    apd_link_queue_push(&link->state.queue, frame);
    apd_link_thread_wake(link->thread);
}

void apd_link_phase(struct apd_link *link, Advprop__V1__Phase phase)
{
    atomic_store_explicit(&link->state.phase, (int)phase, memory_order_relaxed);
    atomic_store_explicit(&link->state.has_detail, 0, memory_order_relaxed);
}

void apd_link_progress(struct apd_link *link, uint64_t step, double images_per_s,
                       double data_wait_share)
{
    atomic_store_explicit(&link->state.step, step, memory_order_relaxed);
    atomic_store_explicit(&link->state.images_per_s, images_per_s, memory_order_relaxed);
    atomic_store_explicit(&link->state.data_wait_share, data_wait_share, memory_order_relaxed);
}

void apd_link_detail(struct apd_link *link, const char *text)
{
    pthread_mutex_lock(&link->state.mutex);
    (void)snprintf(link->state.detail, sizeof link->state.detail, "%s", text);
    pthread_mutex_unlock(&link->state.mutex);
    atomic_store(&link->state.has_detail, 1);
}

void apd_link_report_step(struct apd_link *link, const Advprop__V1__StepReport *report)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;

    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_STEP;
    message.step = (Advprop__V1__StepReport *)report;
    post(link, &message);
}

void apd_link_report_receipt(struct apd_link *link, const Advprop__V1__Receipt *receipt)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;

    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_RECEIPT;
    message.receipt = (Advprop__V1__Receipt *)receipt;
    post(link, &message);
}

void apd_link_report_evaluation(struct apd_link *link, const Advprop__V1__Evaluation *evaluation)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;

    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_EVALUATION;
    message.evaluation = (Advprop__V1__Evaluation *)evaluation;
    post(link, &message);
}

void apd_link_report_bad_sample(struct apd_link *link, const Advprop__V1__BadSample *bad)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;

    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_BAD_SAMPLE;
    message.bad_sample = (Advprop__V1__BadSample *)bad;
    post(link, &message);
}

void apd_link_report_notice(struct apd_link *link, const char *text)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Notice notice = ADVPROP__V1__NOTICE__INIT;

    notice.text = (char *)text;
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_NOTICE;
    message.notice = &notice;
    post(link, &message);
}

unsigned apd_link_commands(struct apd_link *link)
{
    return atomic_fetch_and(&link->state.commands, ~(unsigned)APD_LINK_CHECKPOINT);
}

enum apd_code apd_link_commit(struct apd_link *link, const Advprop__V1__CheckpointWritten *written,
                              uint64_t timeout_ms, struct apd_err *err)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    struct timespec until = apd_link_deadline(timeout_ms);
    enum apd_code rc = APD_OK;
    int late = 0;

    if (written->info == NULL)
        return apd_fail(err, APD_BUG, "a checkpoint without a description");
    pthread_mutex_lock(&link->state.mutex);
    link->state.commit_waits = 1;
    link->state.commit_answered = 0;
    link->state.commit_step = written->info->step;
    pthread_mutex_unlock(&link->state.mutex);
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_WRITTEN;
    message.written = (Advprop__V1__CheckpointWritten *)written;
    post(link, &message);
    pthread_mutex_lock(&link->state.mutex);
    while (!link->state.commit_answered && link->state.stage == APD_LINK_STAGE_ASSIGNED &&
           late == 0)
        late = pthread_cond_timedwait(&link->state.changed, &link->state.mutex, &until);
    if (link->state.commit_answered && !link->state.commit_accepted)
        rc = apd_fail(err, APD_CANCELED, "the coordinator refuses the checkpoint: %s",
                      link->state.commit_text);
    else if (!link->state.commit_answered && link->state.stage != APD_LINK_STAGE_ASSIGNED)
        rc = apd_fail(err, APD_PEER, "the coordinator is gone: %s", link->state.text);
    else if (!link->state.commit_answered)
        rc = apd_fail(err, APD_TIMEOUT, "no answer to a checkpoint within %llu ms",
                      (unsigned long long)timeout_ms);
    link->state.commit_waits = 0;
    pthread_mutex_unlock(&link->state.mutex);
    return rc;
}

int apd_link_shards(struct apd_link *link, uint32_t epoch, uint32_t lane, uint32_t cap,
                    uint32_t *out_shards, int *out_truncated)
{
    const struct apd_link_lane *found;
    int count = -1;

    pthread_mutex_lock(&link->state.mutex);
    found = apd_link_shards_find(&link->state.shards, epoch, lane);
    if (found != NULL) {
        count = (int)found->count;
        *out_truncated = found->truncated;
        if (found->count > 0)
            memcpy(out_shards, found->shard,
                   (found->count < cap ? found->count : cap) * sizeof *out_shards);
    }
    pthread_mutex_unlock(&link->state.mutex);
    return count;
}

static enum apd_code start(struct apd_link *link, const Advprop__V1__Join *join,
                           struct apd_err *err)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Join copy = *join;
    struct apd_link_frame *frame;
    enum apd_code rc;

    copy.secret.data = link->state.wireup.secret;
    copy.secret.len = sizeof link->state.wireup.secret;
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_JOIN;
    message.join = &copy;
    frame = apd_link_frame_create(&message);
    if (frame == NULL)
        return apd_fail(err, APD_DATA, "the list of %zu shards does not fit a frame",
                        join->n_shard_samples);
    rc = apd_link_thread_start(&link->state, frame, &link->thread, err);
    if (rc != APD_OK)
        apd_link_frame_free(frame);
    return rc;
}

/* Waits for the coordinator's verdict on our Join. */
static enum apd_code wait_assignment(struct apd_link_state *state, uint64_t timeout_ms,
                                     struct apd_link_assignment *out, struct apd_err *err)
{
    struct timespec until = apd_link_deadline(timeout_ms);
    enum apd_code rc = APD_OK;
    int late = 0;

    pthread_mutex_lock(&state->mutex);
    while ((state->stage == APD_LINK_STAGE_CONNECTING || state->stage == APD_LINK_STAGE_JOINING) &&
           late == 0)
        late = pthread_cond_timedwait(&state->changed, &state->mutex, &until);
    switch (state->stage) {
    case APD_LINK_STAGE_ASSIGNED:
        *out = state->assignment;
        break;
    case APD_LINK_STAGE_REFUSED:
        rc = apd_fail(err, APD_CONFIG, "the coordinator refuses this worker: %s", state->text);
        break;
    case APD_LINK_STAGE_CANCELED:
        rc = apd_fail(err, APD_CANCELED, "%s", state->text);
        break;
    case APD_LINK_STAGE_LOST:
        rc = apd_fail(err, APD_PEER, "the coordinator is gone: %s", state->text);
        break;
    default:
        rc = apd_fail(err, APD_TIMEOUT, "no assignment within %llu ms",
                      (unsigned long long)timeout_ms);
        break;
    }
    pthread_mutex_unlock(&state->mutex);
    return rc;
}

enum apd_code apd_link_open(const struct apd_wireup *wireup, const Advprop__V1__Join *join,
                            uint64_t timeout_ms, struct apd_link **out,
                            struct apd_link_assignment *out_assignment, struct apd_err *err)
{
    struct apd_link *link = malloc(sizeof *link);
    enum apd_code rc;

    if (link == NULL)
        return apd_fail(err, APD_NOMEM, "the link to the coordinator");
    link->thread = NULL;
    apd_link_state_init(&link->state, wireup);
    rc = start(link, join, err);
    if (rc != APD_OK) {
        apd_link_state_fini(&link->state);
        free(link);
        return rc;
    }
    rc = wait_assignment(&link->state, timeout_ms, out_assignment, err);
    if (rc == APD_OK)
        *out = link;
    else
        apd_link_close(&link, apd_exit_status(rc), rc == APD_CANCELED ? NULL : err);
    return rc;
}

static void post_leaving(struct apd_link *link, int exit_status)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Leaving leaving = ADVPROP__V1__LEAVING__INIT;

    leaving.exit_status = exit_status;
    leaving.step = atomic_load(&link->state.step);
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_LEAVING;
    message.leaving = &leaving;
    post(link, &message);
}

static void post_failure(struct apd_link *link, int exit_status, const struct apd_err *why)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Failure failure = ADVPROP__V1__FAILURE__INIT;

    failure.exit_status = exit_status;
    failure.phase = (Advprop__V1__Phase)atomic_load(&link->state.phase);
    failure.step = atomic_load(&link->state.step);
    failure.text = (char *)why->msg;
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_FAILURE;
    message.failure = &failure;
    post(link, &message);
}

void apd_link_close(struct apd_link **link, int exit_status, const struct apd_err *err)
{
    struct apd_link *dead = *link;

    if (dead == NULL)
        return;
    if (err != NULL)
        post_failure(dead, exit_status, err);
    else
        post_leaving(dead, exit_status);
    apd_link_thread_end(&dead->thread);
    apd_link_state_fini(&dead->state);
    free(dead);
    *link = NULL;
}
