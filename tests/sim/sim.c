/* See sim.h: time, the workers' side, faults. The coordinator's world is in sim_world.c. */
#include "tests/sim/sim.h"

#include "base/rng.h"
#include "tests/sim/sim_world.h"

#include <stdlib.h>
#include <string.h>

#define HOUR_MS   3600000u
#define SHARDS    6
#define PER_SHARD 100

static const uint8_t secret[APD_SECRET_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
static uint64_t shard_samples[SHARDS] = {PER_SHARD, PER_SHARD, PER_SHARD,
                                         PER_SHARD, PER_SHARD, PER_SHARD};

void sim_check(const struct sim *sim, int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "seed %" PRIu64 ", at %" PRIu64 " ms, step %" PRIu64 ", last event %s: %s\n",
            sim->seed, sim->now_ms, sim->step, sim->last_event, what);
    abort();
}

/* ---------------------------------------------------------------- sending to the coordinator */

static void tell(struct sim *sim, struct sim_worker *worker, Advprop__V1__WorkerMessage *message)
{
    if (worker->conn == 0 || sim->finishes > 0)
        return;
    if (message->generation == 0 && message->kind_case != ADVPROP__V1__WORKER_MESSAGE__KIND_JOIN)
        message->generation = sim->generation;
    apd_coord_worker_message(sim->coord, worker->conn, message);
}

void sim_fill_join(struct sim *sim, uint32_t rank, Advprop__V1__Join *out)
{
    advprop__v1__join__init(out);
    out->secret.data = (uint8_t *)secret;
    out->secret.len = sizeof secret;
    out->rank = rank;
    out->workers = sim->workers;
    out->host = "host";
    out->pid = 1000 + rank;
    out->backend = "sim";
    out->layout = "conv1.weight 8x1x3x3";
    out->config_digest = "config";
    out->data_digest = "data";
    out->samples = SHARDS * PER_SHARD;
    out->classes = 10;
    out->n_shard_samples = SHARDS;
    out->shard_samples = shard_samples;
    out->plan_version = APD_PLAN_VERSION;
}

uint64_t sim_join(struct sim *sim, Advprop__V1__Join *join, const uint8_t *other_secret)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    uint64_t conn = ++sim->next_conn;

    if (other_secret != NULL)
        join->secret.data = (uint8_t *)other_secret;
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_JOIN;
    message.join = join;
    apd_coord_worker_message(sim->coord, conn, &message);
    return conn;
}

static void join_now(struct sim *sim, struct sim_worker *worker)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Join join;

    worker->joined = 1;
    worker->conn = ++sim->next_conn;
    worker->beat_ms = sim->now_ms;
    sim_fill_join(sim, worker->rank, &join);
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_JOIN;
    message.join = &join;
    tell(sim, worker, &message);
}

static void beat(struct sim *sim, struct sim_worker *worker)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Heartbeat body = ADVPROP__V1__HEARTBEAT__INIT;

    worker->beat_ms = sim->now_ms + 500;
    body.phase = ADVPROP__V1__PHASE__PHASE_EXCHANGE;
    body.step = worker->step;
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_HEARTBEAT;
    message.heartbeat = &body;
    tell(sim, worker, &message);
}

static void leave(struct sim *sim, struct sim_worker *worker, int exit_status)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Leaving leaving = ADVPROP__V1__LEAVING__INIT;

    if (worker->exit_status >= 0 || worker->conn == 0)
        return;
    worker->exit_status = exit_status;
    leaving.exit_status = exit_status;
    leaving.step = worker->step;
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_LEAVING;
    message.leaving = &leaving;
    tell(sim, worker, &message);
}

void sim_written(struct sim *sim, uint32_t rank, uint64_t generation, uint64_t step,
                 const char *reason)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__CheckpointWritten written = ADVPROP__V1__CHECKPOINT_WRITTEN__INIT;
    Advprop__V1__CheckpointInfo info = ADVPROP__V1__CHECKPOINT_INFO__INIT;
    char path[64], sha256[APD_SHA256_HEX];

    (void)snprintf(path, sizeof path, "checkpoints/step-%" PRIu64 "-gen-%" PRIu64, step,
                   generation);
    memset(sha256, 'a', sizeof sha256 - 1);
    sha256[sizeof sha256 - 1] = '\0';
    info.step = step;
    info.epoch = (uint32_t)(step * (uint64_t)sim->config.train.batch / sim->samples);
    info.path = path;
    info.sha256 = sha256;
    info.bytes = 1000;
    info.generation = generation;
    written.info = &info;
    written.reason = (char *)reason;
    written.main_images = test_below(&sim->random, 2) ? 1000 : 0;
    written.main_top1 = written.main_images > 0 ? test_below(&sim->random, 1000) : 0;
    message.generation = generation;
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_WRITTEN;
    message.written = &written;
    tell(sim, &sim->worker[rank - 1], &message);
}

/* ---------------------------------------------------------------- the workers' training */

void sim_report_step(struct sim *sim, uint64_t step)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__StepReport report = ADVPROP__V1__STEP_REPORT__INIT;

    report.step = step;
    report.position = step * (uint64_t)sim->config.train.batch;
    report.epoch = (uint32_t)((report.position - 1) / sim->samples);
    report.loss_clean = 1;
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_STEP;
    message.step = &report;
    tell(sim, &sim->worker[0], &message);
}

/* Tells of the epoch that this step completed, if it did. */
static void report_receipt(struct sim *sim)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Receipt receipt = ADVPROP__V1__RECEIPT__INIT;
    uint64_t batch = (uint64_t)sim->config.train.batch, before = (sim->step - 1) * batch;

    if (before / sim->samples == (before + batch) / sim->samples)
        return;
    receipt.epoch = (uint32_t)(before / sim->samples);
    receipt.samples = sim->samples;
    for (uint64_t i = 0; i < sim->samples; i++)
        receipt.sum += apd_receipt(receipt.epoch, i);
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_RECEIPT;
    message.receipt = &receipt;
    tell(sim, &sim->worker[0], &message);
}

static void save(struct sim *sim, const char *reason)
{
    sim->saving = 1;
    sim->save_answered = 0;
    sim->save_step = sim->step;
    sim_written(sim, 1, sim->generation, sim->step, reason);
}

static int any(const struct sim *sim, int (*what)(const struct sim_worker *))
{
    for (uint32_t i = 0; i < sim->workers; i++)
        if (what(&sim->worker[i]))
            return 1;
    return 0;
}

static int is_draining(const struct sim_worker *worker)
{
    return worker->draining;
}

static int is_stopped(const struct sim_worker *worker)
{
    return worker->stopped;
}

static int is_not_assigned(const struct sim_worker *worker)
{
    return !worker->assigned;
}

/* A dead or frozen rank makes the next collective hang for all. */
static int is_stuck(const struct sim_worker *worker)
{
    return worker->hung || worker->gone || worker->silent;
}

static void leave_all(struct sim *sim, int exit_status)
{
    for (uint32_t i = 0; i < sim->workers; i++)
        leave(sim, &sim->worker[i], exit_status);
}

static void one_step(struct sim *sim)
{
    sim->next_step_ms = sim->now_ms + SIM_STEP_MS;
    if (any(sim, is_not_assigned) || any(sim, is_stuck) || sim->ending > 1)
        return;
    if (sim->saving && !sim->save_answered)
        return;
    sim->saving = 0;
    if (sim->ending == 1) {
        sim->ending = 2;
        leave_all(sim, sim->step == sim->steps_total ? APD_EXIT_DONE : APD_EXIT_RESTART);
        return;
    }
    if (any(sim, is_stopped)) {
        sim->ending = 2;
        leave_all(sim, APD_EXIT_RESTART);
        return;
    }
    if (sim->step < sim->steps_total) {
        sim->step++;
        for (uint32_t i = 0; i < sim->workers; i++)
            sim->worker[i].step = sim->step;
        sim_report_step(sim, sim->step);
        report_receipt(sim);
    }
    if (sim->step == sim->steps_total || any(sim, is_draining)) {
        sim->ending = 1;
        save(sim, sim->step == sim->steps_total ? "end" : "drain");
    } else if (sim->wants_checkpoint || sim->step % sim->checkpoint_every == 0) {
        save(sim, sim->wants_checkpoint ? "request" : "interval");
        sim->wants_checkpoint = 0;
    }
}

static void obey(struct sim *sim, struct sim_worker *worker,
                 const Advprop__V1__CoordinatorMessage *message)
{
    switch (message->kind_case) {
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_ASSIGNMENT:
        worker->assigned = 1;
        sim_check(sim, message->assignment->lane_count > 0, "a worker without lanes");
        sim_check(sim,
                  (message->assignment->resume != NULL ? message->assignment->resume->step : 0) ==
                      sim->first_step,
                  "assigned to another step than the newest checkpoint's");
        break;
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_SHARDS:
        sim_check(sim, message->shards->n_lane > 0, "an assignment of no lane");
        worker->epochs_assigned = message->shards->lane[0]->epoch + 1;
        break;
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_COMMITTED:
        if (sim->saving && message->committed->step == sim->save_step) {
            sim->save_answered = 1;
            sim->save_accepted = message->committed->accepted;
        }
        break;
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_COMMAND:
        sim->wants_checkpoint |=
            message->command->kind == ADVPROP__V1__COMMAND_KIND__COMMAND_CHECKPOINT;
        worker->draining |= message->command->kind == ADVPROP__V1__COMMAND_KIND__COMMAND_DRAIN;
        worker->stopped |= message->command->kind == ADVPROP__V1__COMMAND_KIND__COMMAND_STOP;
        if (!worker->assigned && (worker->draining || worker->stopped))
            leave(sim, worker, APD_EXIT_RESTART);
        /* In a failed run the others sit in a collective; a real worker leaves by polling. */
        if (worker->stopped && worker->assigned && worker->hung)
            leave(sim, worker, APD_EXIT_RESTART);
        break;
    default:
        break;
    }
}

static void read_inbox(struct sim *sim, struct sim_worker *worker)
{
    struct sim_inbox *in = &worker->inbox[worker->inbox_first];
    Advprop__V1__CoordinatorMessage *message =
        advprop__v1__coordinator_message__unpack(NULL, in->size, in->bytes);

    free(in->bytes);
    in->bytes = NULL;
    worker->inbox_first = (worker->inbox_first + 1) % SIM_INBOX;
    worker->inbox_count--;
    sim_check(sim, message != NULL, "a message that cannot be read");
    if (!worker->gone && !worker->silent)
        obey(sim, worker, message);
    advprop__v1__coordinator_message__free_unpacked(message, NULL);
}

/* ---------------------------------------------------------------- time */

static uint64_t worker_due(const struct sim_worker *worker)
{
    uint64_t at = UINT64_MAX;

    if (worker->gone)
        return at;
    if (!worker->joined)
        return worker->join_ms;
    if (worker->inbox_count > 0)
        at = worker->inbox[worker->inbox_first].at_ms;
    if (worker->conn != 0 && !worker->silent && worker->exit_status < 0 && worker->beat_ms < at)
        at = worker->beat_ms;
    return at;
}

static void run_worker(struct sim *sim, struct sim_worker *worker)
{
    if (!worker->joined)
        join_now(sim, worker);
    else if (worker->inbox_count > 0 && worker->inbox[worker->inbox_first].at_ms <= sim->now_ms)
        read_inbox(sim, worker);
    else
        beat(sim, worker);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_due(const struct sim *sim)
{
    uint64_t at = least(sim->wake_ms, sim->next_step_ms);

    for (uint32_t i = 0; i < sim->workers; i++)
        at = least(at, worker_due(&sim->worker[i]));
    return least(at, sim_world_disk_due(sim));
}

/* One thing that is due; what of several is drawn. */
static void run_one(struct sim *sim)
{
    uint64_t first = test_below(&sim->random, sim->workers + 3);

    for (uint64_t k = 0; k < sim->workers + 3; k++) {
        uint64_t which = (first + k) % (sim->workers + 3);

        if (which < sim->workers && worker_due(&sim->worker[which]) <= sim->now_ms)
            run_worker(sim, &sim->worker[which]);
        else if (which == sim->workers && sim->wake_ms <= sim->now_ms)
            sim_world_wake(sim);
        else if (which == sim->workers + 1 && sim->next_step_ms <= sim->now_ms)
            one_step(sim);
        else if (which == sim->workers + 2 && sim_world_disk_due(sim) <= sim->now_ms)
            sim_world_disk_run(sim);
        else
            continue;
        return;
    }
}

void sim_run_until(struct sim *sim, uint64_t at_ms)
{
    while (sim->finishes == 0 && next_due(sim) <= at_ms) {
        uint64_t due = next_due(sim);

        if (due > sim->now_ms)
            sim->now_ms = due;
        run_one(sim);
    }
    if (sim->now_ms < at_ms && sim->finishes == 0)
        sim->now_ms = at_ms;
}

void sim_run_to_step(struct sim *sim, uint64_t step)
{
    for (uint64_t end = sim->now_ms + HOUR_MS;
         sim->step < step && sim->finishes == 0 && sim->now_ms < end;)
        sim_run_until(sim, sim->now_ms + 10);
    sim_check(sim, sim->step >= step || sim->finishes > 0, "the step was not reached");
}

void sim_run(struct sim *sim)
{
    sim_run_until(sim, sim->now_ms + HOUR_MS);
    sim_check(sim, sim->finishes == 1, "the run does not end");
    sim_check(sim,
              sim->first_causes == (sim->state == ADVPROP__V1__RUN_STATE__RUN_STATE_FAILED ? 1 : 0),
              "not exactly one first cause");
    sim_check(sim, sim->abort == (sim->state == ADVPROP__V1__RUN_STATE__RUN_STATE_FAILED),
              "aborted though done, or not though failed");
}

/* ---------------------------------------------------------------- faults and visitors */

static void hang_others(struct sim *sim, const struct sim_worker *dead)
{
    for (uint32_t i = 0; i < sim->workers; i++)
        if (&sim->worker[i] != dead)
            sim->worker[i].hung = 1;
}

void sim_kill(struct sim *sim, uint32_t rank)
{
    struct sim_worker *worker = &sim->worker[rank - 1];
    uint64_t conn = worker->conn;

    worker->gone = 1;
    worker->conn = 0;
    hang_others(sim, worker);
    if (conn != 0 && sim->finishes == 0)
        apd_coord_worker_closed(sim->coord, conn, "the peer closed the connection");
}

void sim_silence(struct sim *sim, uint32_t rank)
{
    sim->worker[rank - 1].silent = 1;
    hang_others(sim, &sim->worker[rank - 1]);
}

void sim_fail(struct sim *sim, uint32_t rank, int exit_status)
{
    struct sim_worker *worker = &sim->worker[rank - 1];
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Failure failure = ADVPROP__V1__FAILURE__INIT;

    failure.exit_status = exit_status;
    failure.phase = ADVPROP__V1__PHASE__PHASE_TRAIN_PASS;
    failure.text = "a value is not finite";
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_FAILURE;
    message.failure = &failure;
    hang_others(sim, worker);
    tell(sim, worker, &message);
    worker->gone = 1;
    worker->conn = 0;
}

void sim_request(struct sim *sim, int index, Advprop__V1__ClientRequest__KindCase kind)
{
    Advprop__V1__ClientRequest request = ADVPROP__V1__CLIENT_REQUEST__INIT;
    Advprop__V1__GetStatus status = ADVPROP__V1__GET_STATUS__INIT;
    Advprop__V1__Watch watch = ADVPROP__V1__WATCH__INIT;
    Advprop__V1__GetShards shards = ADVPROP__V1__GET_SHARDS__INIT;
    Advprop__V1__GetEvents events = ADVPROP__V1__GET_EVENTS__INIT;
    Advprop__V1__GetConfig config = ADVPROP__V1__GET_CONFIG__INIT;
    Advprop__V1__Checkpoint checkpoint = ADVPROP__V1__CHECKPOINT__INIT;
    Advprop__V1__Drain drain = ADVPROP__V1__DRAIN__INIT;
    Advprop__V1__Stop stop = ADVPROP__V1__STOP__INIT;
    void *const body[] = {[ADVPROP__V1__CLIENT_REQUEST__KIND_GET_STATUS] = &status,
                          [ADVPROP__V1__CLIENT_REQUEST__KIND_WATCH] = &watch,
                          [ADVPROP__V1__CLIENT_REQUEST__KIND_GET_SHARDS] = &shards,
                          [ADVPROP__V1__CLIENT_REQUEST__KIND_GET_EVENTS] = &events,
                          [ADVPROP__V1__CLIENT_REQUEST__KIND_GET_CONFIG] = &config,
                          [ADVPROP__V1__CLIENT_REQUEST__KIND_CHECKPOINT] = &checkpoint,
                          [ADVPROP__V1__CLIENT_REQUEST__KIND_DRAIN] = &drain,
                          [ADVPROP__V1__CLIENT_REQUEST__KIND_STOP] = &stop};

    if (sim->client[index].id == 0)
        sim->client[index] = (struct sim_client){.id = ++sim->next_conn};
    request.id = 1;
    request.kind_case = kind;
    watch.interval_ms = 100;
    request.get_status = (size_t)kind < sizeof body / sizeof *body ? body[kind] : NULL;
    apd_coord_client_request(sim->coord, sim->client[index].id, &request);
}

void sim_client_gone(struct sim *sim, int index)
{
    uint64_t id = sim->client[index].id;

    sim->client[index].id = 0;
    if (id != 0)
        apd_coord_client_closed(sim->coord, id);
}

/* ---------------------------------------------------------------- life */

static void start(struct sim *sim, uint64_t seed, uint32_t workers, uint64_t steps,
                  const struct apd_commit *commit)
{
    struct apd_coord_setup setup = {
        .run_dir = "run",
        .config_yaml = "seed: 0\n",
        .config = &sim->config,
        .config_digest = "config",
        .version = "test",
        .workers = workers,
        .secret = secret,
        .commit = commit,
        .commit_count = commit != NULL,
    };
    struct apd_world world = sim_world(sim);
    struct apd_err err;

    sim->seed = seed;
    sim->random.state = seed;
    sim->now_ms = 1000;
    sim->wake_ms = UINT64_MAX;
    sim->workers = workers;
    sim->samples = SHARDS * PER_SHARD;
    sim->state = ADVPROP__V1__RUN_STATE__RUN_STATE_STARTING;
    sim->generation = commit != NULL ? commit->generation + 1 : 1;
    setup.generation = sim->generation;
    sim->steps_total = steps;
    sim->checkpoint_every = 7;
    sim_check(sim, apd_config_load(NULL, NULL, 0, &sim->config, &err) == APD_OK, "no defaults");
    sim->config.train.batch = 80;
    sim->config.train.lanes = SIM_WORKERS;
    sim->config.train.max_steps = (int64_t)steps;
    sim->config.checkpoint.keep_last = 2;
    sim->config.cluster.join_timeout_s = 30;
    sim->config.cluster.silent_timeout_s = 10;
    for (uint32_t i = 0; i < workers; i++) {
        sim->worker[i].rank = i + 1;
        sim->worker[i].exit_status = -1;
        sim->worker[i].join_ms = sim->now_ms + test_below(&sim->random, 1000);
    }
    sim->next_step_ms = sim->now_ms + SIM_STEP_MS;
    sim_check(sim, apd_coord_create(&setup, &world, &sim->coord, &err) == APD_OK, "no coordinator");
}

void sim_init(struct sim *sim, uint64_t seed, uint32_t workers, uint64_t steps)
{
    memset(sim, 0, sizeof *sim);
    start(sim, seed, workers, steps, NULL);
}

void sim_init_resumed(struct sim *sim, uint64_t seed, uint32_t workers, uint64_t steps,
                      uint64_t step)
{
    struct apd_commit commit = {
        .step = step, .path = "checkpoints/old", .sha256 = "aa", .bytes = 1, .generation = 4};

    memset(sim, 0, sizeof *sim);
    sim->step = step;
    sim->first_step = step;
    sim->committed_step = step;
    sim->reported_step = step;
    start(sim, seed, workers, steps, &commit);
}

void sim_fini(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->workers; i++)
        for (size_t k = 0; k < SIM_INBOX; k++)
            free(sim->worker[i].inbox[k].bytes);
    apd_coord_destroy(&sim->coord);
}
