/* What workers tell the coordinator: joining, reports, leaving, failing, falling silent. */
#include "daemon/coord_private.h"
#include "proto/message_json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void send(struct apd_coord *coord, uint64_t conn, Advprop__V1__CoordinatorMessage *message)
{
    message->generation = coord->generation;
    coord->world.worker_send(coord->world.ctx, conn, message);
}

void coord_command(struct apd_coord *coord, const struct apd_worker *worker,
                   Advprop__V1__CommandKind kind)
{
    Advprop__V1__CoordinatorMessage message = ADVPROP__V1__COORDINATOR_MESSAGE__INIT;
    Advprop__V1__Command command = ADVPROP__V1__COMMAND__INIT;

    command.kind = kind;
    message.kind_case = ADVPROP__V1__COORDINATOR_MESSAGE__KIND_COMMAND;
    message.command = &command;
    send(coord, worker->conn, &message);
}

void coord_command_all(struct apd_coord *coord, Advprop__V1__CommandKind kind)
{
    for (uint32_t i = 0; i < coord->roster.count; i++)
        if (coord->roster.worker[i].conn != 0)
            coord_command(coord, &coord->roster.worker[i], kind);
}

static void refuse(struct apd_coord *coord, uint64_t conn, const char *text)
{
    Advprop__V1__CoordinatorMessage message = ADVPROP__V1__COORDINATOR_MESSAGE__INIT;
    Advprop__V1__Refused refused = ADVPROP__V1__REFUSED__INIT;

    refused.text = (char *)text;
    message.kind_case = ADVPROP__V1__COORDINATOR_MESSAGE__KIND_REFUSED;
    message.refused = &refused;
    send(coord, conn, &message);
    coord->world.worker_close(coord->world.ctx, conn);
}

/* Takes the same time wherever the difference is. */
static int secret_is_right(const struct apd_coord *coord, const ProtobufCBinaryData *secret)
{
    volatile uint8_t differ = 0;

    if (secret->len != sizeof coord->secret)
        return 0;
    for (size_t i = 0; i < sizeof coord->secret; i++)
        differ |= (uint8_t)(coord->secret[i] ^ secret->data[i]);
    return differ == 0;
}

static void take_in(struct apd_coord *coord, uint64_t conn)
{
    struct apd_worker *worker = apd_roster_find(&coord->roster, conn);

    coord->world.worker_accept(coord->world.ctx, conn);
    coord_event(coord, "info", "worker-joined", "rank %u on %s, pid %u, %s",
                apd_roster_rank(&coord->roster, worker), worker->host, worker->pid,
                worker->backend);
    if (coord->stop_asked)
        coord_command(coord, worker, ADVPROP__V1__COMMAND_KIND__COMMAND_STOP);
    else if (coord->drain_asked)
        coord_command(coord, worker, ADVPROP__V1__COMMAND_KIND__COMMAND_DRAIN);
    else if (coord->roster.joined == coord->roster.count)
        coord_assign_all(coord);
}

static void handle_join(struct apd_coord *coord, uint64_t conn, const Advprop__V1__Join *join)
{
    struct apd_err err;

    if (!secret_is_right(coord, &join->secret)) {
        coord_event(coord, "warn", "join-refused", "a connection without the secret of this job");
        refuse(coord, conn, "the secret is not that of this job");
        return;
    }
    if (apd_state_ended(coord->state)) {
        refuse(coord, conn, "the run has ended");
        return;
    }
    if (join->failure[0] != '\0') {
        refuse(coord, conn, "the run ends");
        coord_fail(coord, join->exit_status != 0 ? join->exit_status : APD_EXIT_INTERNAL,
                   "rank %u on %s, starting: %s", join->rank, join->host, join->failure);
        return;
    }
    switch (apd_roster_join(&coord->roster, conn, coord_now(coord), join, &err)) {
    case APD_OK:
        take_in(coord, conn);
        break;
    case APD_PROTO:
        coord_event(coord, "warn", "join-refused", "%s", err.msg);
        refuse(coord, conn, err.msg);
        break;
    default:
        refuse(coord, conn, err.msg);
        coord_fail(coord, apd_exit_status(err.code), "%s", err.msg);
        break;
    }
}

static void handle_heartbeat(struct apd_worker *worker, const Advprop__V1__Heartbeat *beat)
{
    worker->phase = beat->phase;
    worker->images_per_s = beat->images_per_s;
    worker->data_wait_share = beat->data_wait_share;
    worker->rss_bytes = beat->rss_bytes;
    (void)snprintf(worker->detail, sizeof worker->detail, "%s", beat->detail);
    if (beat->step > worker->step)
        worker->step = beat->step;
}

static void record_step(struct apd_coord *coord)
{
    coord->recorded_ms = coord_now(coord);
    coord->metrics.last.data_wait_share = apd_metrics_take_wait_share(&coord->metrics);
    coord->world.metric(coord->world.ctx, "step", coord->metrics.last.step,
                        &coord->metrics.last.base);
}

static void handle_step(struct apd_coord *coord, const Advprop__V1__StepReport *report)
{
    uint64_t every_ms = (uint64_t)(1000 * coord->config.log.every_s);

    if (coord->plan == NULL || report->step <= coord->first_step ||
        report->step > coord->steps_total ||
        !apd_metrics_step(&coord->metrics, coord_now(coord), report)) {
        coord_event(coord, "warn", "bad-report",
                    "a report of step %" PRIu64 " after step %" PRIu64 " of %" PRIu64, report->step,
                    coord_step(coord), coord->steps_total);
        return;
    }
    if (coord->config.log.per_step || report->step == coord->steps_total ||
        coord_now(coord) >= coord->recorded_ms + every_ms)
        record_step(coord);
    coord_assign_shards(coord);
}

static void handle_receipt(struct apd_coord *coord, const Advprop__V1__Receipt *told)
{
    Advprop__V1__Receipt *receipt;

    if (coord->plan == NULL)
        return;
    receipt = apd_metrics_receipt(&coord->metrics, told);
    receipt->samples_expected = coord->roster.facts.samples;
    receipt->complete = receipt->samples == receipt->samples_expected;
    receipt->match = 0; /* until the expected sum is known */
    coord->receipts_asked++;
    coord->world.receipt(coord->world.ctx, coord->plan, receipt->epoch);
}

static void compare_receipt(struct apd_coord *coord, Advprop__V1__Receipt *receipt, uint64_t sum)
{
    receipt->sum_expected = sum;
    receipt->match = receipt->complete && receipt->sum == sum;
    coord->world.metric(coord->world.ctx, "receipt", coord_step(coord), &receipt->base);
    coord_event(coord, receipt->match ? "info" : "error", "epoch",
                "epoch %u: %" PRIu64 " of %" PRIu64 " samples, receipts %s", receipt->epoch,
                receipt->samples, receipt->samples_expected,
                receipt->match ? "match" : "do NOT match");
}

void apd_coord_recall_receipt(struct apd_coord *coord, const Advprop__V1__Receipt *receipt)
{
    (void)apd_metrics_receipt(&coord->metrics, receipt);
}

void apd_coord_recall_evaluation(struct apd_coord *coord, const Advprop__V1__Evaluation *evaluation)
{
    apd_metrics_evaluation(&coord->metrics, evaluation);
}

void apd_coord_receipt_expected(struct apd_coord *coord, uint32_t epoch, uint64_t sum)
{
    Advprop__V1__Receipt *receipt = apd_metrics_find_receipt(&coord->metrics, epoch);

    coord->receipts_asked--;
    if (coord->finished)
        return;
    if (receipt != NULL) /* NULL: 16 epochs have passed since */
        compare_receipt(coord, receipt, sum);
    coord_end_if_over(coord);
    coord_schedule(coord);
}

void apd_coord_recall_bad_sample(struct apd_coord *coord, uint64_t sample)
{
    (void)apd_bad_samples_add(&coord->bad, sample);
}

static void handle_bad_sample(struct apd_coord *coord, const Advprop__V1__BadSample *told)
{
    if (!apd_bad_samples_add(&coord->bad, told->sample))
        return; /* in an epoch before */
    coord->world.metric(coord->world.ctx, "bad_sample", told->step, &told->base);
    coord_event(coord, "warn", "bad-sample", "sample %" PRIu64 " is left out: %s", told->sample,
                told->reason);
}

static void handle_evaluation(struct apd_coord *coord, const Advprop__V1__Evaluation *evaluation)
{
    apd_metrics_evaluation(&coord->metrics, evaluation);
    coord->world.metric(coord->world.ctx, "evaluation", evaluation->step, &evaluation->base);
    coord_event(coord, "info", "evaluation",
                "%.31s at step %" PRIu64 ": top-1 %" PRIu64 " of %" PRIu64 " (%.2f %%)",
                evaluation->name, evaluation->step, evaluation->top1, evaluation->images,
                evaluation->images > 0
                    ? 100.0 * (double)evaluation->top1 / (double)evaluation->images
                    : 0.0);
}

static void handle_notice(struct apd_coord *coord, const Advprop__V1__Notice *notice)
{
    (void)snprintf(coord->notice, sizeof coord->notice, "%s", notice->text);
    coord_event(coord, "info", "notice", "%s", coord->notice);
}

struct phase_word {
    char text[32];
};

static struct phase_word phase_word(Advprop__V1__Phase phase)
{
    struct phase_word word;

    apd_enum_word(&advprop__v1__phase__descriptor, (int)phase, word.text, sizeof word.text);
    return word;
}

static void handle_leaving(struct apd_coord *coord, struct apd_worker *worker,
                           const Advprop__V1__Leaving *leaving)
{
    uint32_t rank = apd_roster_rank(&coord->roster, worker);
    uint64_t conn = worker->conn;

    worker->left = 1;
    worker->conn = 0;
    worker->exit_status = leaving->exit_status;
    worker->phase = ADVPROP__V1__PHASE__PHASE_LEAVING;
    coord->roster.left++;
    coord->world.worker_close(coord->world.ctx, conn);
    coord_event(coord, "info", "worker-left", "rank %u at step %" PRIu64 ", exit status %d", rank,
                leaving->step, leaving->exit_status);
    if (leaving->exit_status != APD_EXIT_DONE && leaving->exit_status != APD_EXIT_RESTART)
        coord_fail(coord, leaving->exit_status, "rank %u on %s left with exit status %d", rank,
                   worker->host, leaving->exit_status);
    coord_end_if_over(coord);
}

static void handle_failure(struct apd_coord *coord, struct apd_worker *worker,
                           const Advprop__V1__Failure *failure)
{
    uint64_t conn = worker->conn;
    int status = failure->exit_status != APD_EXIT_DONE ? failure->exit_status : APD_EXIT_INTERNAL;

    worker->conn = 0;
    worker->exit_status = status;
    coord->world.worker_close(coord->world.ctx, conn);
    coord_fail(coord, status,
               "rank %u on %s, pid %u, failed in phase %s after step %" PRIu64 ": %s",
               apd_roster_rank(&coord->roster, worker), worker->host, worker->pid,
               phase_word(failure->phase).text, failure->step, failure->text);
    coord_end_if_over(coord);
}

/* A message of another start: nothing in it may count. */
static void handle_stale(struct apd_coord *coord, struct apd_worker *worker,
                         const Advprop__V1__WorkerMessage *message)
{
    if (!worker->told_stale)
        coord_event(coord, "warn", "stale-generation",
                    "rank %u sends generation %" PRIu64 ", this is %" PRIu64,
                    apd_roster_rank(&coord->roster, worker), message->generation,
                    coord->generation);
    worker->told_stale = 1;
    if (message->kind_case == ADVPROP__V1__WORKER_MESSAGE__KIND_WRITTEN)
        coord_written(coord, worker, message->generation, message->written);
}

static void from_first_worker(struct apd_coord *coord, struct apd_worker *worker,
                              const Advprop__V1__WorkerMessage *message)
{
    if (worker != &coord->roster.worker[0]) {
        coord_event(coord, "warn", "bad-report",
                    "rank %u sends what only rank 1 may send (kind %u)",
                    apd_roster_rank(&coord->roster, worker), (unsigned)message->kind_case);
        return;
    }
    switch (message->kind_case) {
    case ADVPROP__V1__WORKER_MESSAGE__KIND_STEP:
        handle_step(coord, message->step);
        break;
    case ADVPROP__V1__WORKER_MESSAGE__KIND_RECEIPT:
        handle_receipt(coord, message->receipt);
        break;
    case ADVPROP__V1__WORKER_MESSAGE__KIND_EVALUATION:
        handle_evaluation(coord, message->evaluation);
        break;
    case ADVPROP__V1__WORKER_MESSAGE__KIND_WRITTEN:
        coord_written(coord, worker, message->generation, message->written);
        break;
    case ADVPROP__V1__WORKER_MESSAGE__KIND_NOTICE:
        handle_notice(coord, message->notice);
        break;
    default:
        break; /* a kind of a later version */
    }
}

static void from_joined(struct apd_coord *coord, struct apd_worker *worker,
                        const Advprop__V1__WorkerMessage *message)
{
    if (message->generation != coord->generation) {
        handle_stale(coord, worker, message);
        return;
    }
    worker->heard_ms = coord_now(coord);
    switch (message->kind_case) {
    case ADVPROP__V1__WORKER_MESSAGE__KIND_HEARTBEAT:
        handle_heartbeat(worker, message->heartbeat);
        break;
    case ADVPROP__V1__WORKER_MESSAGE__KIND_BAD_SAMPLE:
        handle_bad_sample(coord, message->bad_sample);
        break;
    case ADVPROP__V1__WORKER_MESSAGE__KIND_LEAVING:
        handle_leaving(coord, worker, message->leaving);
        break;
    case ADVPROP__V1__WORKER_MESSAGE__KIND_FAILURE:
        handle_failure(coord, worker, message->failure);
        break;
    default:
        from_first_worker(coord, worker, message);
        break;
    }
}

void apd_coord_worker_message(struct apd_coord *coord, uint64_t conn,
                              const Advprop__V1__WorkerMessage *message)
{
    struct apd_worker *worker = apd_roster_find(&coord->roster, conn);
    int is_join = message->kind_case == ADVPROP__V1__WORKER_MESSAGE__KIND_JOIN;

    if (coord->finished)
        return;
    if (worker == NULL && is_join)
        handle_join(coord, conn, message->join);
    else if (worker == NULL)
        refuse(coord, conn, "join first");
    else if (!is_join)
        from_joined(coord, worker, message);
    coord_schedule(coord);
}

void apd_coord_worker_closed(struct apd_coord *coord, uint64_t conn, const char *reason)
{
    struct apd_worker *worker = apd_roster_find(&coord->roster, conn);

    if (coord->finished || worker == NULL)
        return;
    worker->conn = 0;
    worker->exit_status = APD_EXIT_RESTART;
    coord_fail(coord, APD_EXIT_RESTART,
               "rank %u on %s, pid %u, was lost in phase %s after step %" PRIu64 ": %s",
               apd_roster_rank(&coord->roster, worker), worker->host, worker->pid,
               phase_word(worker->phase).text, worker->step, reason);
    coord_end_if_over(coord);
    coord_schedule(coord);
}

void coord_check_silence(struct apd_coord *coord)
{
    uint64_t now = coord_now(coord),
             limit_ms = (uint64_t)(1000 * coord->config.cluster.silent_timeout_s);

    for (uint32_t i = 0; i < coord->roster.count; i++) {
        const struct apd_worker *worker = &coord->roster.worker[i];

        if (worker->conn == 0 || apd_state_ended(coord->state) || now < worker->heard_ms + limit_ms)
            continue;
        coord_fail(coord, APD_EXIT_RESTART,
                   "rank %u on %s, pid %u, is silent for %.1f s, last seen in phase %s after step "
                   "%" PRIu64,
                   i + 1, worker->host, worker->pid, (double)(now - worker->heard_ms) / 1000,
                   phase_word(worker->phase).text, worker->step);
    }
}
