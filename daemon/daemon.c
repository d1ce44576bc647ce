/* See daemon.h. */
#include "daemon/daemon.h"

#include "base/clock.h"
#include "base/log.h"
#include "daemon/addresses.h"
#include "daemon/coord.h"
#include "daemon/disk.h"
#include "daemon/journal.h"
#include "daemon/server.h"
#include "daemon/status_file.h"
#include "proto/frame.h"
#include "proto/message_json.h"
#include "proto/run_dir.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <uv.h>

#define CLIENTS_MAX 64
#define SIGNALS     4

static const int signal_numbers[SIGNALS] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};

struct apd_daemon {
    const struct apd_prepared *prepared;
    uv_loop_t loop;
    int loop_ready;
    uv_timer_t wake;
    uv_signal_t signal[SIGNALS];
    int signals;
    struct apd_server workers, clients;
    struct apd_disk disk;
    struct apd_journal events, metrics;
    struct apd_coord *coord;
    int status_failed; /* writing status.json failed and was told */
    int exit_status, abort;
};

/* ---------------------------------------------------------------- the logic's world */

static uint64_t world_now_ms(void *ctx)
{
    (void)ctx;
    return apd_now_ms();
}

static double world_date_s(void *ctx)
{
    (void)ctx;
    return apd_date_s();
}

static void on_wake(uv_timer_t *timer)
{
    struct apd_daemon *daemon = timer->data;

    apd_coord_wake(daemon->coord);
}

static void world_wake_at(void *ctx, uint64_t at_ms)
{
    struct apd_daemon *daemon = ctx;
    uint64_t now = apd_now_ms();

    uv_update_time(&daemon->loop); /* the timer counts from the loop's idea of now */
    (void)uv_timer_start(&daemon->wake, on_wake, at_ms > now ? at_ms - now : 0, 0);
}

static void world_worker_send(void *ctx, uint64_t conn,
                              const Advprop__V1__CoordinatorMessage *message)
{
    struct apd_daemon *daemon = ctx;

    apd_server_send(&daemon->workers, conn, &message->base);
}

static void world_worker_accept(void *ctx, uint64_t conn)
{
    struct apd_daemon *daemon = ctx;

    apd_server_accept(&daemon->workers, conn);
}

static void world_worker_close(void *ctx, uint64_t conn)
{
    struct apd_daemon *daemon = ctx;

    apd_server_close(&daemon->workers, conn);
}

static void world_client_send(void *ctx, uint64_t client, const Advprop__V1__ServerReply *reply)
{
    struct apd_daemon *daemon = ctx;

    apd_server_send(&daemon->clients, client, &reply->base);
}

static void world_client_close(void *ctx, uint64_t client)
{
    struct apd_daemon *daemon = ctx;

    apd_server_close(&daemon->clients, client);
}

static void world_commit(void *ctx, const struct apd_commit *commit)
{
    struct apd_daemon *daemon = ctx;

    apd_disk_commit(&daemon->disk, commit);
}

static void world_remove(void *ctx, const char *path)
{
    struct apd_daemon *daemon = ctx;

    apd_disk_remove(&daemon->disk, path);
}

static void world_receipt(void *ctx, const struct apd_plan *plan, uint32_t epoch)
{
    struct apd_daemon *daemon = ctx;

    apd_disk_receipt(&daemon->disk, plan, epoch);
}

/* Takes over `object`. */
static void add_record(struct apd_journal *journal, json_t *object)
{
    char *line = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;

    if (line != NULL)
        apd_journal_add(journal, line);
    free(line);
    json_decref(object);
}

static void world_event(void *ctx, const Advprop__V1__Event *event)
{
    struct apd_daemon *daemon = ctx;
    int level = apd_log_level_parse(event->level);

    apd_log(level < 0 ? APD_LOG_INFO : (enum apd_log_level)level, event->text, "event=%s gen=%llu",
            event->name, (unsigned long long)event->generation);
    add_record(&daemon->events, apd_message_json(&event->base));
    apd_journal_flush(&daemon->events);
    apd_journal_flush(&daemon->metrics);
}

static void world_metric(void *ctx, const char *kind, uint64_t step, const ProtobufCMessage *body)
{
    struct apd_daemon *daemon = ctx;
    json_t *record = json_pack("{s:s, s:I, s:I, s:f}", "kind", kind, "gen",
                               (json_int_t)daemon->prepared->generation, "step", (json_int_t)step,
                               "date_s", apd_date_s());
    json_t *fields = apd_message_json(body);

    if (record != NULL && fields != NULL)
        (void)json_object_update_missing(record, fields); /* out of memory: a shorter record */
    json_decref(fields);
    add_record(&daemon->metrics, record);
}

static void world_publish(void *ctx)
{
    struct apd_daemon *daemon = ctx;
    struct apd_err err;
    int failed;

    apd_journal_flush(&daemon->metrics);
    failed =
        apd_status_file_write(daemon->prepared->run_dir, apd_coord_status(daemon->coord),
                              apd_date_s(), apd_coord_exit_status(daemon->coord), &err) != APD_OK;
    if (failed && !daemon->status_failed)
        apd_log(APD_LOG_ERROR, "status.json is out of date", "error=\"%s\"", err.msg);
    daemon->status_failed = failed;
}

/* Everything that keeps the loop alive ends here. */
static void close_all(struct apd_daemon *daemon)
{
    apd_server_stop(&daemon->workers);
    apd_server_stop(&daemon->clients);
    uv_close((uv_handle_t *)&daemon->wake, NULL);
    for (int i = 0; i < daemon->signals; i++)
        uv_close((uv_handle_t *)&daemon->signal[i], NULL);
}

static void world_finish(void *ctx, int exit_status, int abort)
{
    struct apd_daemon *daemon = ctx;

    daemon->exit_status = exit_status;
    daemon->abort = abort;
    close_all(daemon);
}

static struct apd_world make_world(struct apd_daemon *daemon)
{
    return (struct apd_world){
        .ctx = daemon,
        .now_ms = world_now_ms,
        .date_s = world_date_s,
        .wake_at = world_wake_at,
        .worker_send = world_worker_send,
        .worker_accept = world_worker_accept,
        .worker_close = world_worker_close,
        .client_send = world_client_send,
        .client_close = world_client_close,
        .commit = world_commit,
        .remove = world_remove,
        .receipt = world_receipt,
        .event = world_event,
        .metric = world_metric,
        .publish = world_publish,
        .finish = world_finish,
    };
}

/* ---------------------------------------------------------------- what comes in */

static enum apd_code on_worker_frame(void *ctx, uint64_t conn, const uint8_t *payload, size_t size,
                                     struct apd_err *err)
{
    struct apd_daemon *daemon = ctx;
    Advprop__V1__WorkerMessage *message = advprop__v1__worker_message__unpack(NULL, size, payload);

    if (message == NULL)
        return apd_fail(err, APD_PROTO, "a frame of %zu bytes is no WorkerMessage", size);
    apd_coord_worker_message(daemon->coord, conn, message);
    advprop__v1__worker_message__free_unpacked(message, NULL);
    return APD_OK;
}

static void on_worker_malformed(void *ctx, uint64_t conn, const char *text)
{
    struct apd_daemon *daemon = ctx;
    Advprop__V1__CoordinatorMessage message = ADVPROP__V1__COORDINATOR_MESSAGE__INIT;
    Advprop__V1__Refused refused = ADVPROP__V1__REFUSED__INIT;

    refused.text = (char *)text;
    message.generation = daemon->prepared->generation;
    message.kind_case = ADVPROP__V1__COORDINATOR_MESSAGE__KIND_REFUSED;
    message.refused = &refused;
    apd_server_send(&daemon->workers, conn, &message.base);
}

static void on_worker_closed(void *ctx, uint64_t conn, const char *reason)
{
    struct apd_daemon *daemon = ctx;

    apd_coord_worker_closed(daemon->coord, conn, reason);
}

static enum apd_code on_client_frame(void *ctx, uint64_t conn, const uint8_t *payload, size_t size,
                                     struct apd_err *err)
{
    struct apd_daemon *daemon = ctx;
    Advprop__V1__ClientRequest *request = advprop__v1__client_request__unpack(NULL, size, payload);

    if (request == NULL)
        return apd_fail(err, APD_PROTO, "a frame of %zu bytes is no ClientRequest", size);
    if (request->kind_case != ADVPROP__V1__CLIENT_REQUEST__KIND__NOT_SET)
        apd_server_accept(&daemon->clients, conn);
    apd_coord_client_request(daemon->coord, conn, request);
    advprop__v1__client_request__free_unpacked(request, NULL);
    return APD_OK;
}

static void on_client_malformed(void *ctx, uint64_t conn, const char *text)
{
    struct apd_daemon *daemon = ctx;
    Advprop__V1__ServerReply reply = ADVPROP__V1__SERVER_REPLY__INIT;
    Advprop__V1__Error error = ADVPROP__V1__ERROR__INIT;

    error.code = "protocol";
    error.text = (char *)text;
    reply.kind_case = ADVPROP__V1__SERVER_REPLY__KIND_ERROR;
    reply.error = &error;
    apd_server_send(&daemon->clients, conn, &reply.base);
}

static void on_client_closed(void *ctx, uint64_t conn, const char *reason)
{
    struct apd_daemon *daemon = ctx;

    (void)reason;
    apd_coord_client_closed(daemon->coord, conn);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct apd_daemon *daemon = handle->data;
    const char *name = number == SIGTERM   ? "SIGTERM"
                       : number == SIGINT  ? "SIGINT"
                       : number == SIGUSR1 ? "SIGUSR1"
                                           : "SIGUSR2";

    apd_coord_asked_to_end(daemon->coord, name, number == SIGTERM || number == SIGINT);
}

static void on_committed(void *ctx, const struct apd_err *failed)
{
    struct apd_daemon *daemon = ctx;

    apd_coord_commit_done(daemon->coord, failed);
}

static void on_removed(void *ctx, const char *path, const struct apd_err *failed)
{
    struct apd_daemon *daemon = ctx;

    apd_coord_remove_done(daemon->coord, path, failed);
}

static void on_receipt(void *ctx, uint32_t epoch, uint64_t sum)
{
    struct apd_daemon *daemon = ctx;

    apd_coord_receipt_expected(daemon->coord, epoch, sum);
}

/* ---------------------------------------------------------------- life */

static enum apd_code listen_for_workers(struct apd_daemon *daemon, uint32_t workers, int local_only,
                                        uint16_t *out_port, struct apd_err *err)
{
    const struct apd_server_rules rules = {
        .cap_new = APD_FRAME_CAP_ACCEPTED, /* a Join lists shards; few strangers are let in */
        .cap_accepted = APD_FRAME_CAP_ACCEPTED,
        .connections_max = 2 * workers + 8,
        .strangers_max = workers + 8,
        .stranger_ms = 5000,
        .partial_ms = 5000,
        .unsent_ms = 30000, /* a stopped worker is found by its silence */
        .unsent_bytes = 8 * 1024 * 1024,
    };
    const struct apd_server_events events = {daemon, on_worker_frame, on_worker_malformed,
                                             on_worker_closed};

    return apd_server_listen_tcp(&daemon->workers, &daemon->loop, &rules, &events, local_only,
                                 out_port, err);
}

static enum apd_code listen_for_clients(struct apd_daemon *daemon, struct apd_err *err)
{
    const struct apd_server_rules rules = {
        .cap_new = APD_FRAME_CAP_NEW,
        .cap_accepted = APD_FRAME_CAP_ACCEPTED,
        .connections_max = CLIENTS_MAX,
        .strangers_max = CLIENTS_MAX,
        .partial_ms = 5000,
        .unsent_ms = 5000,
        .unsent_bytes = 256 * 1024,
    };
    const struct apd_server_events events = {daemon, on_client_frame, on_client_malformed,
                                             on_client_closed};

    return apd_server_listen_unix(&daemon->clients, &daemon->loop, &rules, &events,
                                  daemon->prepared->run_dir, APD_RUN_SOCKET, err);
}

static enum apd_code open_records(struct apd_daemon *daemon, struct apd_err *err)
{
    char path[APD_RUN_PATH_MAX];

    APD_TRY(apd_run_dir_path(daemon->prepared->run_dir, APD_RUN_EVENTS, path, err));
    APD_TRY(apd_journal_open(&daemon->events, path, err));
    APD_TRY(apd_run_dir_path(daemon->prepared->run_dir, APD_RUN_METRICS, path, err));
    return apd_journal_open(&daemon->metrics, path, err);
}

static enum apd_code catch_signals(struct apd_daemon *daemon, struct apd_err *err)
{
    for (int i = 0; i < SIGNALS; i++) {
        int status = uv_signal_init(&daemon->loop, &daemon->signal[i]);

        if (status == 0) {
            daemon->signals++;
            daemon->signal[i].data = daemon;
            status = uv_signal_start(&daemon->signal[i], on_signal, signal_numbers[i]);
        }
        if (status != 0)
            return apd_fail(err, APD_IO, "signal %d: %s", signal_numbers[i], uv_strerror(status));
    }
    return APD_OK;
}

static enum apd_code fill_wireup(const struct apd_daemon *daemon, uint16_t port, int local_only,
                                 struct apd_wireup *out, struct apd_err *err)
{
    *out = (struct apd_wireup){
        .magic = APD_WIREUP_MAGIC, .port = port, .generation = daemon->prepared->generation};
    (void)snprintf(out->version, sizeof out->version, "%s", APD_VERSION);
    if (getrandom(out->secret, sizeof out->secret, 0) != (ssize_t)sizeof out->secret)
        return apd_fail_errno(err, "getrandom");
    return apd_addresses(local_only, out->address, err);
}

static enum apd_code start_logic(struct apd_daemon *daemon, uint32_t workers,
                                 const struct apd_wireup *wireup, struct apd_err *err)
{
    const struct apd_prepared *prepared = daemon->prepared;
    const struct apd_coord_setup setup = {
        .run_dir = prepared->run_dir,
        .config_yaml = prepared->config_yaml,
        .config = &prepared->config,
        .config_digest = prepared->config_digest,
        .version = APD_VERSION,
        .generation = prepared->generation,
        .workers = workers,
        .secret = wireup->secret,
        .commit = prepared->commit,
        .commit_count = prepared->commit_count,
        .skipped = prepared->skipped,
        .skipped_count = prepared->skipped_count,
    };
    const struct apd_world world = make_world(daemon);

    return apd_coord_create(&setup, &world, &daemon->coord, err);
}

static enum apd_code init_loop(struct apd_daemon *daemon, struct apd_err *err)
{
    int status = uv_loop_init(&daemon->loop);

    if (status != 0)
        return apd_fail(err, APD_IO, "the event loop: %s", uv_strerror(status));
    daemon->loop_ready = 1;
    (void)uv_timer_init(&daemon->loop, &daemon->wake); /* cannot fail */
    daemon->wake.data = daemon;
    return APD_OK;
}

enum apd_code apd_daemon_create(const struct apd_prepared *prepared, uint32_t workers,
                                int local_only, int with_signals, struct apd_daemon **out,
                                struct apd_wireup *out_wireup, struct apd_err *err)
{
    struct apd_daemon *daemon = calloc(1, sizeof *daemon);
    const struct apd_disk_events disk_events = {daemon, on_committed, on_removed, on_receipt};
    uint16_t port = 0;
    enum apd_code rc;

    if (daemon == NULL)
        return apd_fail(err, APD_NOMEM, "the coordinator");
    daemon->prepared = prepared;
    (void)signal(SIGPIPE, SIG_IGN); /* a write to a closed socket is an error code here */
    APD_GO(init_loop(daemon, err));
    APD_GO(apd_disk_init(&daemon->disk, &daemon->loop, prepared->run_dir, &disk_events, err));
    APD_GO(open_records(daemon, err));
    APD_GO(listen_for_workers(daemon, workers, local_only, &port, err));
    APD_GO(listen_for_clients(daemon, err));
    if (with_signals)
        APD_GO(catch_signals(daemon, err));
    APD_GO(fill_wireup(daemon, port, local_only, out_wireup, err));
    APD_GO(start_logic(daemon, workers, out_wireup, err));
    *out = daemon;
    daemon = NULL;
done:
    apd_daemon_destroy(&daemon);
    return rc;
}

int apd_daemon_run(struct apd_daemon *daemon, int *out_abort)
{
    (void)uv_run(&daemon->loop, UV_RUN_DEFAULT);
    *out_abort = daemon->abort;
    return daemon->exit_status;
}

/* Nobody listens there any more; a socket file left by a crash is replaced by the next start. */
static void remove_socket(const struct apd_daemon *daemon)
{
    char path[APD_RUN_PATH_MAX];
    struct apd_err err;

    if (daemon->clients.loop != NULL &&
        apd_run_dir_path(daemon->prepared->run_dir, APD_RUN_SOCKET, path, &err) == APD_OK)
        (void)unlink(path);
}

void apd_daemon_destroy(struct apd_daemon **daemon)
{
    struct apd_daemon *dead = *daemon;

    if (dead == NULL)
        return;
    if (dead->loop_ready) {
        if (!uv_is_closing((uv_handle_t *)&dead->wake))
            close_all(dead);
        (void)uv_run(&dead->loop, UV_RUN_DEFAULT);
        (void)uv_loop_close(&dead->loop);
    }
    remove_socket(dead);
    apd_server_fini(&dead->workers);
    apd_server_fini(&dead->clients);
    apd_disk_fini(&dead->disk);
    apd_journal_close(&dead->events);
    apd_journal_close(&dead->metrics);
    apd_coord_destroy(&dead->coord);
    free(dead);
    *daemon = NULL;
}
