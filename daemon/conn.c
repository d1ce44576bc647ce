/* See conn.h. */
#include "daemon/conn.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void free_conn(uv_handle_t *handle)
{
    struct apd_conn *conn = handle->data;

    apd_frame_reader_fini(&conn->reader);
    free(conn);
}

/* Takes the connection out of its server; the memory lives until libuv is done with the handle. */
static void close_handle(struct apd_conn *conn)
{
    struct apd_server *server = conn->server;
    struct apd_conn **at = &server->conns;

    conn->closed = 1;
    while (*at != conn)
        at = &(*at)->next;
    *at = conn->next;
    server->count--;
    server->strangers -= !conn->accepted;
    uv_close(&conn->h.handle, free_conn);
}

void apd_conn_drop(struct apd_conn *conn, const char *reason)
{
    int tell = conn->closing_ms == 0;
    struct apd_server_events events = conn->server->events;
    uint64_t id = conn->id;

    if (conn->closed)
        return;
    close_handle(conn);
    if (tell)
        events.closed(events.ctx, id, reason);
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
    (void)req;
    (void)status; /* the peer's end of file, or the deadline, closes the handle */
}

void apd_conn_close(struct apd_conn *conn)
{
    if (conn->closed || conn->closing_ms != 0)
        return;
    conn->closing_ms = apd_now_ms();
    if (uv_shutdown(&conn->shutdown, &conn->h.stream, on_shutdown) != 0)
        close_handle(conn);
}

static void on_written(uv_write_t *req, int status)
{
    struct apd_unsent *unsent = req->data;
    struct apd_conn *conn = unsent->conn;

    conn->unsent = unsent->next; /* libuv ends writes in the order they were queued */
    if (conn->unsent == NULL)
        conn->unsent_end = &conn->unsent;
    conn->unsent_bytes -= unsent->size;
    free(unsent->bytes);
    free(unsent);
    if (status < 0 && status != UV_ECANCELED)
        apd_conn_drop(conn, uv_strerror(status));
}

void apd_conn_write(struct apd_conn *conn, uint8_t *bytes, size_t size)
{
    struct apd_unsent *unsent = malloc(sizeof *unsent);
    uv_buf_t buffer = uv_buf_init((char *)bytes, (unsigned)size);

    if (unsent == NULL || conn->unsent_bytes + size > conn->server->rules.unsent_bytes)
        goto overrun;
    *unsent =
        (struct apd_unsent){.conn = conn, .queued_ms = apd_now_ms(), .size = size, .bytes = bytes};
    unsent->req.data = unsent;
    if (uv_write(&unsent->req, &conn->h.stream, &buffer, 1, on_written) != 0)
        goto overrun;
    *conn->unsent_end = unsent;
    conn->unsent_end = &unsent->next;
    conn->unsent_bytes += size;
    return;
overrun:
    conn->overrun = 1; /* dropped at the next scan: this function may not call back */
    free(unsent);
    free(bytes);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct apd_conn *conn = handle->data;

    (void)suggested;
    *out = uv_buf_init(conn->server->input, APD_INPUT_BYTES);
}

static void reject(struct apd_conn *conn, const char *text)
{
    struct apd_server_events *events = &conn->server->events;

    events->malformed(events->ctx, conn->id, text);
    if (conn->closing_ms == 0 && !conn->closed) {
        apd_conn_close(conn);
        events->closed(events->ctx, conn->id, text);
    }
}

/* Hands out all whole frames of a read. The connection may be closed by any of them. */
static void take_input(struct apd_conn *conn, const uint8_t *bytes, size_t size)
{
    struct apd_server_events *events = &conn->server->events;
    int was_partial = apd_frame_partial(&conn->reader);
    struct apd_err err;

    while (size > 0 && conn->closing_ms == 0 && !conn->closed) {
        const uint8_t *frame;
        size_t used, frame_size;
        enum apd_code rc =
            apd_frame_feed(&conn->reader, bytes, size, &used, &frame, &frame_size, &err);

        bytes += used;
        size -= used;
        if (rc == APD_OK && frame != NULL) {
            was_partial = 0;
            rc = events->frame(events->ctx, conn->id, frame, frame_size, &err);
        }
        if (rc != APD_OK) {
            reject(conn, err.msg);
            return;
        }
    }
    if (!was_partial && apd_frame_partial(&conn->reader))
        conn->partial_ms = apd_now_ms();
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct apd_conn *conn = stream->data;

    if (n < 0)
        apd_conn_drop(conn, n == UV_EOF ? "the peer closed the connection" : uv_strerror((int)n));
    else if (n > 0)
        take_input(conn, (const uint8_t *)buffer->base, (size_t)n);
}

void apd_conn_check(struct apd_conn *conn, uint64_t now_ms)
{
    const struct apd_server_rules *rules = &conn->server->rules;

    if (conn->closing_ms != 0) {
        if (now_ms >= conn->closing_ms + APD_LINGER_MS)
            apd_conn_drop(conn, "");
    } else if (conn->overrun) {
        apd_conn_drop(conn, "it does not read what it is sent");
    } else if (conn->unsent != NULL && now_ms >= conn->unsent->queued_ms + rules->unsent_ms) {
        apd_conn_drop(conn, "it has not read for too long");
    } else if (apd_frame_partial(&conn->reader) && now_ms >= conn->partial_ms + rules->partial_ms) {
        apd_conn_drop(conn, "a frame was not completed in time");
    } else if (!conn->accepted && rules->stranger_ms > 0 &&
               now_ms >= conn->opened_ms + rules->stranger_ms) {
        apd_conn_drop(conn, "it did not say in time who it is");
    }
}

/* Whether the other end belongs to our user or to root. */
static int peer_is_ours(struct apd_conn *conn)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    uv_os_fd_t fd;

    if (uv_fileno(&conn->h.handle, &fd) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return 0;
    return peer.uid == getuid() || peer.uid == 0;
}

static int may_stay(struct apd_conn *conn)
{
    const struct apd_server *server = conn->server;

    if (server->stopping || server->count > server->rules.connections_max ||
        server->strangers > server->rules.strangers_max)
        return 0;
    return !server->unix_socket || peer_is_ours(conn);
}

static void init_handle(struct apd_conn *conn)
{
    struct apd_server *server = conn->server;

    /* Cannot fail: no descriptor is made here. */
    if (server->unix_socket)
        (void)uv_pipe_init(server->loop, &conn->h.pipe, 0);
    else
        (void)uv_tcp_init(server->loop, &conn->h.tcp);
    conn->h.handle.data = conn;
}

static void set_tcp_options(struct apd_conn *conn)
{
    /* Without them it works, only slower or with a later verdict on a dead host. */
    (void)uv_tcp_nodelay(&conn->h.tcp, 1);
    (void)uv_tcp_keepalive(&conn->h.tcp, 1, 10);
}

void apd_conn_open(struct apd_server *server)
{
    struct apd_conn *conn = calloc(1, sizeof *conn);

    if (conn == NULL)
        return; /* the peer waits in the backlog and is taken when there is memory */
    conn->server = server;
    conn->id = ++server->last_id;
    conn->reader.cap = server->rules.cap_new;
    conn->opened_ms = apd_now_ms();
    conn->unsent_end = &conn->unsent;
    conn->next = server->conns;
    server->conns = conn;
    server->count++;
    server->strangers++;
    init_handle(conn);
    if (uv_accept(&server->listener.stream, &conn->h.stream) != 0 || !may_stay(conn) ||
        uv_read_start(&conn->h.stream, on_alloc, on_read) != 0) {
        close_handle(conn);
        return;
    }
    if (!server->unix_socket)
        set_tcp_options(conn);
}
