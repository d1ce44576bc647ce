/* What the logic does to the outside (world.h), done with libuv and files. */
#include "daemon/daemon_private.h"

#include "base/clock.h"
#include "base/log.h"
#include "daemon/status_file.h"
#include "proto/message_json.h"

#include <stdlib.h>
#include <string.h>

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
    apd_journal_flush(&daemon->bad);
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
    add_record(strcmp(kind, "bad_sample") == 0 ? &daemon->bad : &daemon->metrics, record);
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

static void world_finish(void *ctx, int exit_status, int abort)
{
    struct apd_daemon *daemon = ctx;

    daemon->exit_status = exit_status;
    daemon->abort = abort;
    daemon_close_all(daemon);
}

struct apd_world daemon_world(struct apd_daemon *daemon)
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
