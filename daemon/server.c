/* See server.h. */
#include "daemon/server.h"

#include "base/clock.h"
#include "daemon/conn.h"
#include "proto/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SCAN_MS 100
#define BACKLOG 128

static struct apd_conn *find(const struct apd_server *server, uint64_t id)
{
    struct apd_conn *conn = server->conns;

    while (conn != NULL && conn->id != id)
        conn = conn->next;
    return conn;
}

static void close_scan_if_over(struct apd_server *server)
{
    if (server->stopping && server->conns == NULL && !uv_is_closing((uv_handle_t *)&server->scan))
        uv_close((uv_handle_t *)&server->scan, NULL);
}

static void on_scan(uv_timer_t *timer)
{
    struct apd_server *server = timer->data;
    uint64_t now = apd_now_ms(), before = server->last_id + 1;
    struct apd_conn *conn;

    /* What a drop tells may close others: start over after each, with ids falling. */
    for (conn = server->conns; conn != NULL; conn = server->conns) {
        while (conn != NULL && conn->id >= before)
            conn = conn->next;
        if (conn == NULL)
            break;
        before = conn->id;
        apd_conn_check(conn, now);
    }
    close_scan_if_over(server);
}

static void on_connection(uv_stream_t *stream, int status)
{
    if (status == 0)
        apd_conn_open(stream->data);
}

static enum apd_code start(struct apd_server *server, uv_loop_t *loop,
                           const struct apd_server_rules *rules,
                           const struct apd_server_events *events, struct apd_err *err)
{
    *server = (struct apd_server){.loop = loop, .rules = *rules, .events = *events};
    server->input = malloc(APD_INPUT_BYTES);
    if (server->input == NULL)
        return apd_fail(err, APD_NOMEM, "a server's input buffer");
    (void)uv_timer_init(loop, &server->scan); /* cannot fail */
    server->scan.data = server;
    return APD_OK;
}

static enum apd_code listen_now(struct apd_server *server, const char *what, struct apd_err *err)
{
    int status;

    server->listener.stream.data = server;
    status = uv_listen(&server->listener.stream, BACKLOG, on_connection);
    if (status == 0)
        status = uv_timer_start(&server->scan, on_scan, SCAN_MS, SCAN_MS);
    if (status != 0)
        return apd_fail(err, APD_IO, "listening on %s: %s", what, uv_strerror(status));
    return APD_OK;
}

/* After a failure to listen: the handles leave the loop when it runs. */
static void give_up(struct apd_server *server)
{
    server->stopping = 1;
    uv_close((uv_handle_t *)&server->listener.stream, NULL);
    close_scan_if_over(server);
}

static int bind_tcp(struct apd_server *server, int local_only)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    (void)uv_ip4_addr(local_only ? "127.0.0.1" : "0.0.0.0", 0, &v4);
    (void)uv_ip6_addr("::", 0, &v6);
    /* "::" takes IPv4 too; a host without IPv6 has only the other. */
    if (!local_only && uv_tcp_bind(&server->listener.tcp, (struct sockaddr *)&v6, 0) == 0)
        return 0;
    return uv_tcp_bind(&server->listener.tcp, (struct sockaddr *)&v4, 0);
}

enum apd_code apd_server_listen_tcp(struct apd_server *server, uv_loop_t *loop,
                                    const struct apd_server_rules *rules,
                                    const struct apd_server_events *events, int local_only,
                                    uint16_t *out_port, struct apd_err *err)
{
    struct sockaddr_storage bound;
    int size = sizeof bound, status;
    enum apd_code rc;

    APD_TRY(start(server, loop, rules, events, err));
    (void)uv_tcp_init(loop, &server->listener.tcp); /* cannot fail: no descriptor is made yet */
    status = bind_tcp(server, local_only);
    if (status != 0)
        rc = apd_fail(err, APD_IO, "binding a TCP port for workers: %s", uv_strerror(status));
    else
        rc = listen_now(server, "a TCP port for workers", err);
    if (rc == APD_OK) {
        status = uv_tcp_getsockname(&server->listener.tcp, (struct sockaddr *)&bound, &size);
        if (status != 0)
            rc = apd_fail(err, APD_IO, "the TCP port for workers: %s", uv_strerror(status));
    }
    if (rc != APD_OK) {
        give_up(server);
        return rc;
    }
    *out_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                  : ((struct sockaddr_in *)&bound)->sin_port);
    return APD_OK;
}

/* Binds through /proc/self/fd, so that only the last part of the path must fit a socket address. */
static enum apd_code bind_unix(const char *dir, const char *name, int *out_fd, struct apd_err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    enum apd_code rc = APD_OK;
    int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1, n;

    if (dir_fd < 0)
        return apd_fail_errno(err, "opening folder %s", dir);
    n = snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", dir_fd, name);
    if (n < 0 || (size_t)n >= sizeof address.sun_path) {
        rc = apd_fail(err, APD_BUG, "socket name %s is too long", name);
        goto done;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        rc = apd_fail_errno(err, "creating a socket");
        goto done;
    }
    if ((unlinkat(dir_fd, name, 0) != 0 && errno != ENOENT) ||
        bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        chmod(address.sun_path, 0600) != 0) {
        rc = apd_fail_errno(err, "binding %s/%s", dir, name);
        goto done;
    }
    *out_fd = fd;
    fd = -1;
done:
    if (fd >= 0)
        close(fd);
    close(dir_fd);
    return rc;
}

enum apd_code apd_server_listen_unix(struct apd_server *server, uv_loop_t *loop,
                                     const struct apd_server_rules *rules,
                                     const struct apd_server_events *events, const char *dir,
                                     const char *name, struct apd_err *err)
{
    enum apd_code rc;
    int fd = -1, status;

    APD_TRY(start(server, loop, rules, events, err));
    server->unix_socket = 1;
    (void)uv_pipe_init(loop, &server->listener.pipe, 0); /* cannot fail */
    rc = bind_unix(dir, name, &fd, err);
    if (rc == APD_OK) {
        status = uv_pipe_open(&server->listener.pipe, fd);
        if (status != 0) {
            rc = apd_fail(err, APD_IO, "socket %s/%s: %s", dir, name, uv_strerror(status));
            close(fd);
        }
    }
    if (rc == APD_OK)
        rc = listen_now(server, name, err);
    if (rc != APD_OK)
        give_up(server);
    return rc;
}

void apd_server_send(struct apd_server *server, uint64_t id, const ProtobufCMessage *message)
{
    struct apd_conn *conn = find(server, id);
    uint8_t *bytes;
    size_t size;
    struct apd_err err;

    if (conn == NULL || conn->closing_ms != 0 || conn->overrun)
        return;
    if (apd_frame_pack(message, &bytes, &size, &err) != APD_OK)
        conn->overrun = 1;
    else
        apd_conn_write(conn, bytes, size);
}

void apd_server_accept(struct apd_server *server, uint64_t id)
{
    struct apd_conn *conn = find(server, id);

    if (conn == NULL || conn->accepted)
        return;
    conn->accepted = 1;
    conn->reader.cap = server->rules.cap_accepted;
    server->strangers--;
}

void apd_server_close(struct apd_server *server, uint64_t id)
{
    struct apd_conn *conn = find(server, id);

    if (conn != NULL)
        apd_conn_close(conn);
}

void apd_server_stop(struct apd_server *server)
{
    struct apd_conn *next;

    if (server->stopping || server->loop == NULL)
        return;
    server->stopping = 1;
    uv_close((uv_handle_t *)&server->listener.stream, NULL);
    for (struct apd_conn *conn = server->conns; conn != NULL; conn = next) {
        next = conn->next;
        apd_conn_close(conn);
    }
    close_scan_if_over(server);
}

void apd_server_fini(struct apd_server *server)
{
    free(server->input);
    server->input = NULL;
}
