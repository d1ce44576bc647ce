/* See link_state.h. */
#include "worker/link_state.h"

#include <stdio.h>
#include <string.h>

void apd_link_state_init(struct apd_link_state *state, const struct apd_wireup *wireup)
{
    pthread_condattr_t attr;

    memset(state, 0, sizeof *state);
    state->wireup = *wireup;
    atomic_store(&state->phase, ADVPROP__V1__PHASE__PHASE_STARTING);
    apd_link_queue_init(&state->queue);
    pthread_mutex_init(&state->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&state->changed, &attr);
    pthread_condattr_destroy(&attr);
}

void apd_link_state_fini(struct apd_link_state *state)
{
    apd_link_queue_fini(&state->queue);
    apd_link_shards_fini(&state->shards);
    pthread_cond_destroy(&state->changed);
    pthread_mutex_destroy(&state->mutex);
    explicit_bzero(&state->wireup, sizeof state->wireup);
}

static void copy_text(char *out, size_t size, const char *text)
{
    (void)snprintf(out, size, "%s", text);
}

void apd_link_state_set(struct apd_link_state *state, enum apd_link_stage stage, const char *text)
{
    pthread_mutex_lock(&state->mutex);
    if (state->stage != APD_LINK_STAGE_REFUSED && state->stage != APD_LINK_STAGE_LOST) {
        state->stage = stage;
        copy_text(state->text, sizeof state->text, text);
    }
    pthread_cond_broadcast(&state->changed);
    pthread_mutex_unlock(&state->mutex);
}

void apd_link_state_note(struct apd_link_state *state, const char *text)
{
    pthread_mutex_lock(&state->mutex);
    copy_text(state->text, sizeof state->text, text);
    pthread_mutex_unlock(&state->mutex);
}

static void take_assignment(struct apd_link_state *state, uint64_t generation,
                            const Advprop__V1__Assignment *told)
{
    struct apd_link_assignment *to = &state->assignment;

    pthread_mutex_lock(&state->mutex);
    *to = (struct apd_link_assignment){.generation = generation,
                                       .worker = told->worker,
                                       .workers = told->workers,
                                       .lane_first = told->lane_first,
                                       .lane_count = told->lane_count};
    copy_text(to->plan_digest, sizeof to->plan_digest, told->plan_digest);
    if (told->resume != NULL) {
        to->resume = 1;
        to->resume_step = told->resume->step;
        copy_text(to->resume_path, sizeof to->resume_path, told->resume->path);
        copy_text(to->resume_sha256, sizeof to->resume_sha256, told->resume->sha256);
    }
    pthread_mutex_unlock(&state->mutex);
    apd_link_state_set(state, APD_LINK_STAGE_ASSIGNED, "");
}

static void take_shards(struct apd_link_state *state, const Advprop__V1__ShardAssignment *told)
{
    pthread_mutex_lock(&state->mutex);
    for (size_t i = 0; i < told->n_lane; i++)
        if (!apd_link_shards_add(&state->shards, told->lane[i]))
            break; /* no memory: the lane stays unknown */
    pthread_mutex_unlock(&state->mutex);
}

static void take_committed(struct apd_link_state *state,
                           const Advprop__V1__CheckpointCommitted *told)
{
    pthread_mutex_lock(&state->mutex);
    if (state->commit_waits && told->step == state->commit_step) {
        state->commit_answered = 1;
        state->commit_accepted = told->accepted;
        copy_text(state->commit_text, sizeof state->commit_text, told->text);
        pthread_cond_broadcast(&state->changed);
    }
    pthread_mutex_unlock(&state->mutex);
}

static int is_assigned(struct apd_link_state *state)
{
    int assigned;

    pthread_mutex_lock(&state->mutex);
    assigned = state->stage == APD_LINK_STAGE_ASSIGNED;
    pthread_mutex_unlock(&state->mutex);
    return assigned;
}

static void take_command(struct apd_link_state *state, Advprop__V1__CommandKind kind)
{
    switch (kind) {
    case ADVPROP__V1__COMMAND_KIND__COMMAND_CHECKPOINT:
        atomic_fetch_or(&state->commands, APD_LINK_CHECKPOINT);
        return;
    case ADVPROP__V1__COMMAND_KIND__COMMAND_DRAIN:
        atomic_fetch_or(&state->commands, APD_LINK_DRAIN);
        break;
    case ADVPROP__V1__COMMAND_KIND__COMMAND_STOP:
        atomic_fetch_or(&state->commands, APD_LINK_STOP);
        break;
    default:
        return; /* of a later version */
    }
    if (!is_assigned(state))
        apd_link_state_set(state, APD_LINK_STAGE_CANCELED,
                           "the run was asked to end before it began");
}

const char *apd_link_state_take(struct apd_link_state *state,
                                const Advprop__V1__CoordinatorMessage *message)
{
    if (message->generation != state->wireup.generation)
        return "a message of another generation";
    switch (message->kind_case) {
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_ASSIGNMENT:
        take_assignment(state, message->generation, message->assignment);
        return NULL;
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_SHARDS:
        take_shards(state, message->shards);
        return NULL;
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_COMMAND:
        take_command(state, message->command->kind);
        return NULL;
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_COMMITTED:
        take_committed(state, message->committed);
        return NULL;
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_REFUSED:
        apd_link_state_set(state, APD_LINK_STAGE_REFUSED, message->refused->text);
        return message->refused->text;
    default:
        return NULL; /* of a later version */
    }
}

struct timespec apd_link_deadline(uint64_t ms)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)(ms / 1000);
    at.tv_nsec += (long)(ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}
