/* See coord.h: life of a run, its state, its end. */
#include "daemon/coord.h"

#include "daemon/coord_private.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PUBLISH_MS 1000
#define GRACE_MS   2000 /* how long a failed run waits for its other workers */

uint64_t coord_now(const struct apd_coord *coord)
{
    return coord->world.now_ms(coord->world.ctx);
}

uint64_t coord_step(const struct apd_coord *coord)
{
    return coord->metrics.last.step > coord->first_step ? coord->metrics.last.step
                                                        : coord->first_step;
}

void coord_event(struct apd_coord *coord, const char *level, const char *name, const char *format,
                 ...)
{
    const Advprop__V1__Event *event;
    va_list args;

    va_start(args, format);
    event = apd_event_ring_add(&coord->events, coord->world.date_s(coord->world.ctx),
                               coord->generation, level, name, format, args);
    va_end(args);
    coord->world.event(coord->world.ctx, event);
}

static void publish(struct apd_coord *coord)
{
    coord->world.publish(coord->world.ctx);
    coord->publish_ms = coord_now(coord) + PUBLISH_MS;
}

void coord_move(struct apd_coord *coord, Advprop__V1__RunState to)
{
    Advprop__V1__RunState from = coord->state;

    if (from == to)
        return;
    if (!apd_state_may_move(from, to)) {
        coord_event(coord, "error", "bug", "no legal move: %s -> %s", apd_state_name(from),
                    apd_state_name(to));
        return;
    }
    coord->state = to;
    coord_event(coord, "info", "state", "%s -> %s", apd_state_name(from), apd_state_name(to));
    publish(coord);
    coord_watchers(coord, 1);
}

static void finish(struct apd_coord *coord, int abort)
{
    coord->finished = 1;
    coord_refuse_checkpoint(coord, "the run has ended");
    publish(coord);
    coord->world.finish(coord->world.ctx, apd_coord_exit_status(coord), abort);
}

void coord_fail(struct apd_coord *coord, int exit_status, const char *format, ...)
{
    char text[sizeof coord->first_cause];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (apd_state_ended(coord->state)) {
        coord_event(coord, "warn", "after-failure", "%s", text);
        return;
    }
    memcpy(coord->first_cause, text, sizeof text);
    coord->failed_status = exit_status;
    coord->grace_deadline_ms = coord_now(coord) + GRACE_MS;
    coord_event(coord, "error", "first-cause", "%s", text);
    coord_move(coord, STATE(FAILED));
    coord_command_all(coord, ADVPROP__V1__COMMAND_KIND__COMMAND_STOP);
    coord_end_if_over(coord);
}

void coord_drain(struct apd_coord *coord, const char *who)
{
    if (coord->drain_asked || coord->stop_asked || apd_state_ended(coord->state))
        return;
    coord->drain_asked = 1;
    coord_event(coord, "info", "drain", "asked by %s", who);
    if (coord->state == STATE(SAVING))
        return; /* it is ending already */
    coord_move(coord, STATE(DRAINING));
    coord_command_all(coord, ADVPROP__V1__COMMAND_KIND__COMMAND_DRAIN);
}

void coord_stop(struct apd_coord *coord, const char *who)
{
    if (coord->stop_asked || apd_state_ended(coord->state))
        return;
    coord->stop_asked = 1;
    coord_event(coord, "warn", "stop", "asked by %s: workers end without saving", who);
    coord_command_all(coord, ADVPROP__V1__COMMAND_KIND__COMMAND_STOP);
}

void apd_coord_asked_to_end(struct apd_coord *coord, const char *who, int urgent)
{
    if (coord->finished)
        return;
    if (urgent && coord->urgent_asked)
        coord_stop(coord, who);
    else
        coord_drain(coord, who);
    coord->urgent_asked |= urgent;
    coord_schedule(coord);
}

int apd_coord_exit_status(const struct apd_coord *coord)
{
    int status = APD_EXIT_DONE;

    if (coord->state == STATE(FAILED))
        return coord->failed_status;
    for (uint32_t i = 0; i < coord->roster.count; i++)
        if (coord->roster.worker[i].exit_status != APD_EXIT_DONE)
            status = coord->roster.worker[i].exit_status;
    return status;
}

/* The last epoch's receipt belongs into the last status; it takes some milliseconds. */
static int waits_for_receipts(struct apd_coord *coord)
{
    if (coord->receipts_asked == 0)
        return 0;
    if (coord->grace_deadline_ms == 0)
        coord->grace_deadline_ms = coord_now(coord) + GRACE_MS;
    return coord_now(coord) < coord->grace_deadline_ms;
}

void coord_end_if_over(struct apd_coord *coord)
{
    if (coord->finished || coord->committing)
        return;
    if (coord->state == STATE(FAILED)) {
        if (apd_roster_connected(&coord->roster) == 0)
            finish(coord, 1);
    } else if (coord->roster.left == coord->roster.count && !waits_for_receipts(coord)) {
        coord_move(coord, STATE(DONE));
        finish(coord, 0);
    }
}

static void check_deadlines(struct apd_coord *coord)
{
    uint64_t now = coord_now(coord);

    if (coord->roster.joined < coord->roster.count && !apd_state_ended(coord->state) &&
        now >= coord->join_deadline_ms) {
        char missing[128];
        int used = 0;

        for (uint32_t i = 0; i < coord->roster.count && used < (int)sizeof missing - 16; i++)
            if (!coord->roster.worker[i].joined)
                used += snprintf(missing + used, sizeof missing - (size_t)used, " %u", i + 1);
        coord_fail(coord, APD_EXIT_RESTART, "%u of %u workers joined within %g s; missing: rank%s",
                   coord->roster.joined, coord->roster.count, coord->config.cluster.join_timeout_s,
                   missing);
    }
    coord_check_silence(coord);
    if (!coord->finished && coord->state == STATE(FAILED) && now >= coord->grace_deadline_ms)
        finish(coord, 1);
    coord_end_if_over(coord);
}

void apd_coord_wake(struct apd_coord *coord)
{
    if (coord->finished)
        return;
    check_deadlines(coord);
    if (!coord->finished) {
        coord_watchers(coord, 0);
        if (coord_now(coord) >= coord->publish_ms)
            publish(coord);
    }
    coord_schedule(coord);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void coord_schedule(struct apd_coord *coord)
{
    uint64_t at = coord->publish_ms;

    if (coord->finished)
        return;
    if (coord->grace_deadline_ms > 0)
        at = earlier(at, coord->grace_deadline_ms);
    else if (coord->roster.joined < coord->roster.count)
        at = earlier(at, coord->join_deadline_ms);
    for (uint32_t i = 0; i < coord->roster.count; i++)
        if (coord->roster.worker[i].conn != 0 && !apd_state_ended(coord->state))
            at = earlier(at, coord->roster.worker[i].heard_ms +
                                 (uint64_t)(1000 * coord->config.cluster.silent_timeout_s));
    for (uint32_t i = 0; i < APD_COORD_CLIENTS; i++)
        if (coord->client[i].watching)
            at = earlier(at, coord->client[i].next_ms);
    coord->world.wake_at(coord->world.ctx, at);
}

void apd_coord_warn(struct apd_coord *coord, const char *name, const char *text)
{
    coord_event(coord, "warn", name, "%s", text);
}

const Advprop__V1__Status *apd_coord_status(struct apd_coord *coord)
{
    apd_report_status(&coord->report, coord);
    return &coord->report.status;
}

static enum apd_code take_setup(struct apd_coord *coord, const struct apd_coord_setup *setup,
                                struct apd_err *err)
{
    coord->config = *setup->config;
    coord->generation = setup->generation;
    memcpy(coord->secret, setup->secret, sizeof coord->secret);
    (void)snprintf(coord->config_digest, sizeof coord->config_digest, "%s", setup->config_digest);
    (void)snprintf(coord->version, sizeof coord->version, "%s", setup->version);
    coord->run_dir = strdup(setup->run_dir);
    coord->config_yaml = strdup(setup->config_yaml);
    coord->shard_worker = calloc(setup->workers, sizeof *coord->shard_worker);
    coord->shard_worker_at = calloc(setup->workers, sizeof *coord->shard_worker_at);
    if (coord->run_dir == NULL || coord->config_yaml == NULL || coord->shard_worker == NULL ||
        coord->shard_worker_at == NULL || !apd_event_ring_init(&coord->events))
        return apd_fail(err, APD_NOMEM, "the coordinator's state");
    for (uint32_t i = 0; i < setup->workers; i++)
        coord->shard_worker_at[i] = &coord->shard_worker[i];
    APD_TRY(apd_roster_init(&coord->roster, setup->workers, setup->config_digest, err));
    APD_TRY(apd_report_init(&coord->report, setup->workers, err));
    for (size_t i = 0; i < setup->commit_count; i++)
        APD_TRY(apd_checkpoints_add(&coord->checkpoints, &setup->commit[i], err));
    apd_metrics_init(&coord->metrics);
    return APD_OK;
}

static void tell_start(struct apd_coord *coord, const struct apd_coord_setup *setup)
{
    const struct apd_commit *newest = apd_checkpoints_newest(&coord->checkpoints);

    coord_event(coord, "info", "start", "generation %" PRIu64 ", workers %u, version %s",
                coord->generation, coord->roster.count, coord->version);
    for (size_t i = 0; i < setup->skipped_count; i++)
        coord_event(coord, "warn", "checkpoint-skipped", "%s", setup->skipped[i]);
    if (newest != NULL) {
        coord->resume = 1;
        coord->first_step = newest->step;
        coord_event(coord, "info", "resume",
                    "from step %" PRIu64 ", %s, committed by generation %" PRIu64, newest->step,
                    newest->path, newest->generation);
    }
}

enum apd_code apd_coord_create(const struct apd_coord_setup *setup, const struct apd_world *world,
                               struct apd_coord **out, struct apd_err *err)
{
    struct apd_coord *coord = calloc(1, sizeof *coord);
    enum apd_code rc;

    if (coord == NULL)
        return apd_fail(err, APD_NOMEM, "the coordinator's state");
    coord->world = *world;
    coord->state = STATE(STARTING);
    APD_GO(take_setup(coord, setup, err));
    coord->started_ms = coord_now(coord);
    coord->join_deadline_ms =
        coord->started_ms + (uint64_t)(1000 * coord->config.cluster.join_timeout_s);
    *out = coord;
    tell_start(coord, setup);
    coord_move(coord, STATE(JOINING));
    coord_schedule(coord);
    coord = NULL;
done:
    apd_coord_destroy(&coord);
    return rc;
}

void apd_coord_destroy(struct apd_coord **coord)
{
    struct apd_coord *dead = *coord;

    if (dead == NULL)
        return;
    apd_plan_destroy(&dead->plan);
    apd_roster_fini(&dead->roster);
    apd_report_fini(&dead->report);
    apd_event_ring_fini(&dead->events);
    apd_checkpoints_fini(&dead->checkpoints);
    apd_bad_samples_fini(&dead->bad);
    free(dead->shard_worker);
    free(dead->shard_worker_at);
    free(dead->run_dir);
    free(dead->config_yaml);
    explicit_bzero(dead->secret, sizeof dead->secret);
    free(dead);
    *coord = NULL;
}
