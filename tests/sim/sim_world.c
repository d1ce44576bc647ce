/* See sim_world.h. */
#include "tests/sim/sim_world.h"

#include "daemon/state.h"
#include "proto/frame.h"

#include <stdlib.h>
#include <string.h>

static uint64_t now_ms(void *ctx)
{
    struct sim *sim = ctx;

    return sim->now_ms;
}

static double date_s(void *ctx)
{
    struct sim *sim = ctx;

    return (double)sim->now_ms / 1000;
}

static void alive(struct sim *sim)
{
    sim_check(sim, sim->finishes == 0, "something is done after the end");
}

static void wake_at(void *ctx, uint64_t at_ms)
{
    struct sim *sim = ctx;

    alive(sim);
    sim->wake_ms = at_ms;
}

void sim_world_wake(struct sim *sim)
{
    sim->wake_ms = UINT64_MAX;
    apd_coord_wake(sim->coord);
    sim_check(sim, sim->finishes > 0 || sim->wake_ms != UINT64_MAX, "no further wake-up asked for");
    sim_check(sim, sim->finishes > 0 || sim->wake_ms > sim->now_ms,
              "a wake-up that is over already");
}

static struct sim_worker *worker_of(struct sim *sim, uint64_t conn)
{
    for (uint32_t i = 0; i < sim->workers; i++)
        if (sim->worker[i].conn == conn)
            return &sim->worker[i];
    return NULL;
}

static void worker_send(void *ctx, uint64_t conn, const Advprop__V1__CoordinatorMessage *message)
{
    struct sim *sim = ctx;
    struct sim_worker *worker = worker_of(sim, conn);
    size_t size = advprop__v1__coordinator_message__get_packed_size(message);
    struct sim_inbox *in;
    uint64_t last_ms;

    alive(sim);
    sim_check(sim, conn != 0, "a message to no connection");
    sim_check(sim, size <= APD_FRAME_CAP_ACCEPTED, "a message that does not fit a frame");
    sim_check(sim, message->generation == sim->generation, "a message of another generation");
    sim->joins_refused += message->kind_case == ADVPROP__V1__COORDINATOR_MESSAGE__KIND_REFUSED;
    if (message->kind_case == ADVPROP__V1__COORDINATOR_MESSAGE__KIND_COMMITTED)
        sim->refused_commits += !message->committed->accepted;
    if (worker == NULL)
        return; /* a visitor of the test */
    sim_check(sim, worker->inbox_count < SIM_INBOX, "a flood of messages");
    last_ms = worker->inbox_count > 0
                  ? worker->inbox[(worker->inbox_first + worker->inbox_count - 1) % SIM_INBOX].at_ms
                  : 0;
    in = &worker->inbox[(worker->inbox_first + worker->inbox_count++) % SIM_INBOX];
    in->at_ms = sim->now_ms + test_below(&sim->random, 20);
    if (in->at_ms < last_ms)
        in->at_ms = last_ms;
    in->size = size;
    in->bytes = malloc(size + 1);
    sim_check(sim, in->bytes != NULL, "no memory");
    advprop__v1__coordinator_message__pack(message, in->bytes);
}

static void worker_accept(void *ctx, uint64_t conn)
{
    (void)conn;
    alive(ctx);
}

static void worker_close(void *ctx, uint64_t conn)
{
    struct sim *sim = ctx;
    struct sim_worker *worker = worker_of(sim, conn);

    alive(sim);
    if (worker != NULL)
        worker->conn = 0;
}

static struct sim_client *client_of(struct sim *sim, uint64_t id)
{
    for (int i = 0; i < SIM_CLIENTS; i++)
        if (id != 0 && sim->client[i].id == id)
            return &sim->client[i];
    return NULL;
}

static void client_send(void *ctx, uint64_t id, const Advprop__V1__ServerReply *reply)
{
    struct sim *sim = ctx;
    struct sim_client *client = client_of(sim, id);

    alive(sim);
    sim_check(sim, advprop__v1__server_reply__get_packed_size(reply) <= APD_FRAME_CAP_ACCEPTED,
              "a reply that does not fit a frame");
    sim_check(sim, client != NULL, "a reply to a client that has gone");
    sim_check(sim, reply->id == 1, "a reply without the request's number");
    switch (reply->kind_case) {
    case ADVPROP__V1__SERVER_REPLY__KIND_STATUS:
        client->statuses++;
        client->last_state = reply->status->state;
        break;
    case ADVPROP__V1__SERVER_REPLY__KIND_SHARDS:
        client->shards++;
        break;
    case ADVPROP__V1__SERVER_REPLY__KIND_EVENTS:
        client->events += (unsigned)reply->events->n_event;
        break;
    case ADVPROP__V1__SERVER_REPLY__KIND_CONFIG:
        client->configs++;
        break;
    case ADVPROP__V1__SERVER_REPLY__KIND_CHECKPOINT:
        client->checkpoints++;
        client->last_checkpoint_step = reply->checkpoint->step;
        break;
    case ADVPROP__V1__SERVER_REPLY__KIND_ACK:
        client->acks++;
        break;
    case ADVPROP__V1__SERVER_REPLY__KIND_ERROR:
        client->errors++;
        (void)snprintf(client->last_error, sizeof client->last_error, "%s: %s", reply->error->code,
                       reply->error->text);
        break;
    default:
        sim_check(sim, 0, "a reply of no kind");
    }
}

static void client_close(void *ctx, uint64_t id)
{
    struct sim *sim = ctx;
    struct sim_client *client = client_of(sim, id);

    alive(sim);
    sim_check(sim, client != NULL, "a client closed twice");
    client->closed_by_server = 1;
}

static struct sim_disk_job *new_job(struct sim *sim, int kind)
{
    for (size_t i = 0; i < sizeof sim->disk / sizeof *sim->disk; i++) {
        struct sim_disk_job *job = &sim->disk[i];

        if (job->kind != 0)
            continue;
        *job = (struct sim_disk_job){.kind = kind,
                                     .at_ms = sim->now_ms + test_below(&sim->random, 300)};
        return job;
    }
    sim_check(sim, 0, "more disk jobs than a disk has");
    return NULL;
}

static void commit(void *ctx, const struct apd_commit *record)
{
    struct sim *sim = ctx;

    alive(sim);
    for (size_t i = 0; i < sizeof sim->disk / sizeof *sim->disk; i++)
        sim_check(sim, sim->disk[i].kind != 1, "two commits at a time");
    sim_check(sim, record->generation == sim->generation, "a commit of another generation");
    sim_check(sim, record->step >= sim->committed_step, "committed steps fall");
    new_job(sim, 1)->commit = *record;
}

static void remove_file(void *ctx, const char *path)
{
    struct sim *sim = ctx;
    struct sim_disk_job *job = new_job(sim, 3);

    alive(sim);
    sim_check(sim, sim->newest_path[0] != '\0' && strcmp(path, sim->newest_path) != 0,
              "a checkpoint is deleted before a newer one is on record");
    (void)snprintf(job->commit.path, sizeof job->commit.path, "%s", path);
}

static void receipt(void *ctx, const struct apd_plan *plan, uint32_t epoch)
{
    struct sim *sim = ctx;
    struct sim_disk_job *job = new_job(sim, 2);

    alive(sim);
    job->plan = plan;
    job->epoch = epoch;
}

uint64_t sim_world_disk_due(const struct sim *sim)
{
    uint64_t at = UINT64_MAX;

    for (size_t i = 0; i < sizeof sim->disk / sizeof *sim->disk; i++)
        if (sim->disk[i].kind != 0 && sim->disk[i].at_ms < at)
            at = sim->disk[i].at_ms;
    return at;
}

static void finish_commit(struct sim *sim, const struct apd_commit *record)
{
    struct apd_err err;

    if (sim->fail_next_commit) {
        sim->fail_next_commit = 0;
        (void)apd_fail(&err, APD_DATA, "no space left on device");
        apd_coord_commit_done(sim->coord, &err);
        return;
    }
    sim->committed_step = record->step;
    (void)snprintf(sim->newest_path, sizeof sim->newest_path, "%s", record->path);
    apd_coord_commit_done(sim->coord, NULL);
}

void sim_world_disk_run(struct sim *sim)
{
    for (size_t i = 0; i < sizeof sim->disk / sizeof *sim->disk; i++) {
        struct sim_disk_job job = sim->disk[i];

        if (job.kind == 0 || job.at_ms > sim->now_ms)
            continue;
        sim->disk[i].kind = 0;
        if (job.kind == 1) {
            finish_commit(sim, &job.commit);
        } else if (job.kind == 2) {
            apd_coord_receipt_expected(sim->coord, job.epoch,
                                       apd_plan_receipt(job.plan, job.epoch));
        } else {
            sim->removed++;
            apd_coord_remove_done(sim->coord, job.commit.path, NULL);
        }
        return;
    }
}

static void event(void *ctx, const Advprop__V1__Event *message)
{
    struct sim *sim = ctx;

    alive(sim);
    sim->events++;
    sim_check(sim, message->number == sim->events, "events are not numbered one by one");
    (void)snprintf(sim->last_event, sizeof sim->last_event, "%s", message->name);
    sim_check(sim, strcmp(message->name, "bug") != 0, message->text);
    if (strcmp(message->name, "first-cause") == 0) {
        sim->first_causes++;
        (void)snprintf(sim->first_cause, sizeof sim->first_cause, "%s", message->text);
    }
}

static void metric(void *ctx, const char *kind, uint64_t step, const ProtobufCMessage *body)
{
    struct sim *sim = ctx;

    (void)step;
    alive(sim);
    if (strcmp(kind, "receipt") == 0) {
        const Advprop__V1__Receipt *told = (const Advprop__V1__Receipt *)body;

        sim->receipts_matched += told->match != 0;
        sim->receipts_wrong += !told->match;
    }
}

static void publish(void *ctx)
{
    struct sim *sim = ctx;
    const Advprop__V1__Status *status;

    alive(sim);
    if (sim->coord == NULL)
        return;
    status = apd_coord_status(sim->coord);
    if (status->state != sim->state)
        sim_check(sim, apd_state_may_move(sim->state, status->state), "no legal move");
    sim->state = status->state;
    sim_check(sim, status->step >= sim->reported_step, "the reported step falls");
    sim->reported_step = status->step;
    sim_check(sim,
              (status->first_cause[0] != '\0') ==
                  (status->state == ADVPROP__V1__RUN_STATE__RUN_STATE_FAILED),
              "a first cause without a failure or a failure without one");
}

static void finish(void *ctx, int exit_status, int abort)
{
    struct sim *sim = ctx;

    alive(sim);
    for (size_t i = 0; i < sizeof sim->disk / sizeof *sim->disk; i++)
        sim_check(sim, sim->disk[i].kind != 1, "the end does not wait for a commit in flight");
    sim->finishes++;
    sim->exit_status = exit_status;
    sim->abort = abort;
}

struct apd_world sim_world(struct sim *sim)
{
    return (struct apd_world){.ctx = sim,
                              .now_ms = now_ms,
                              .date_s = date_s,
                              .wake_at = wake_at,
                              .worker_send = worker_send,
                              .worker_accept = worker_accept,
                              .worker_close = worker_close,
                              .client_send = client_send,
                              .client_close = client_close,
                              .commit = commit,
                              .remove = remove_file,
                              .receipt = receipt,
                              .event = event,
                              .metric = metric,
                              .publish = publish,
                              .finish = finish};
}
