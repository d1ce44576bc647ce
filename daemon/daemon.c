/* See daemon.h: what comes in from sockets, signals and disk, and the loop's life. What the logic
 * does to the outside is in daemon_world.c. */
#include "daemon/daemon.h"

#include "daemon/addresses.h"
#include "daemon/daemon_private.h"
#include "daemon/history.h"
#include "proto/frame.h"
#include "proto/run_dir.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#define CLIENTS_MAX 64

static const int signal_numbers[APD_DAEMON_SIGNALS] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};

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

void daemon_close_all(struct apd_daemon *daemon)
{
    apd_server_stop(&daemon->workers);
    apd_server_stop(&daemon->clients);
    uv_close((uv_handle_t *)&daemon->wake, NULL);
    for (int i = 0; i < daemon->signals; i++)
        uv_close((uv_handle_t *)&daemon->signal[i], NULL);
}

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
    APD_TRY(apd_journal_open(&daemon->metrics, path, err));
    APD_TRY(apd_run_dir_path(daemon->prepared->run_dir, APD_RUN_BAD, path, err));
    return apd_journal_open(&daemon->bad, path, err);
}

static enum apd_code catch_signals(struct apd_daemon *daemon, struct apd_err *err)
{
    for (int i = 0; i < APD_DAEMON_SIGNALS; i++) {
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
    const struct apd_world world = daemon_world(daemon);
    char path[APD_RUN_PATH_MAX];

    APD_TRY(apd_coord_create(&setup, &world, &daemon->coord, err));
    APD_TRY(apd_run_dir_path(prepared->run_dir, APD_RUN_BAD, path, err));
    APD_TRY(apd_history_recall(path, 0, daemon->coord, err));
    if (prepared->commit_count == 0)
        return APD_OK;
    APD_TRY(apd_run_dir_path(prepared->run_dir, APD_RUN_METRICS, path, err));
    return apd_history_recall(path, prepared->commit[prepared->commit_count - 1].step,
                              daemon->coord, err);
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
            daemon_close_all(dead);
        (void)uv_run(&dead->loop, UV_RUN_DEFAULT);
        (void)uv_loop_close(&dead->loop);
    }
    remove_socket(dead);
    apd_server_fini(&dead->workers);
    apd_server_fini(&dead->clients);
    apd_disk_fini(&dead->disk);
    apd_journal_close(&dead->events);
    apd_journal_close(&dead->metrics);
    apd_journal_close(&dead->bad);
    apd_coord_destroy(&dead->coord);
    free(dead);
    *daemon = NULL;
}
