/* The coordinator's servers against peers that misbehave, on a real loop, in one thread: the loop
 * is run until what is awaited has happened. Deadlines are short here; nothing sleeps. */
#include "base/clock.h"
#include "daemon/server.h"
#include "proto/advprop.pb-c.h"
#include "proto/frame.h"
#include "tests/support/scratch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 20000

struct fixture {
    uv_loop_t loop;
    struct apd_server server;
    uint16_t port;
    char dir[4096];
    unsigned frames, malformed, closed;
    uint64_t last_conn;
    size_t last_size;
    char reason[256];
    int refuse; /* frames are not what we speak */
};

static enum apd_code on_frame(void *ctx, uint64_t conn, const uint8_t *payload, size_t size,
                              struct apd_err *err)
{
    struct fixture *f = ctx;

    (void)payload;
    f->frames++;
    f->last_conn = conn;
    f->last_size = size;
    return f->refuse ? apd_fail(err, APD_PROTO, "not our language") : APD_OK;
}

static void on_malformed(void *ctx, uint64_t conn, const char *text)
{
    struct fixture *f = ctx;
    Advprop__V1__ServerReply reply = ADVPROP__V1__SERVER_REPLY__INIT;
    Advprop__V1__Error error = ADVPROP__V1__ERROR__INIT;

    f->malformed++;
    error.code = "protocol";
    error.text = (char *)text;
    reply.kind_case = ADVPROP__V1__SERVER_REPLY__KIND_ERROR;
    reply.error = &error;
    apd_server_send(&f->server, conn, &reply.base);
}

static void on_closed(void *ctx, uint64_t conn, const char *reason)
{
    struct fixture *f = ctx;

    f->closed++;
    f->last_conn = conn;
    (void)snprintf(f->reason, sizeof f->reason, "%s", reason);
}

static const struct apd_server_rules short_rules = {
    .cap_new = APD_FRAME_CAP_NEW,
    .cap_accepted = APD_FRAME_CAP_ACCEPTED,
    .connections_max = 4,
    .strangers_max = 3,
    .partial_ms = 300,
    .unsent_ms = 300,
    .unsent_bytes = 4 * 1024 * 1024,
};

static void listen_unix(struct fixture *f, const struct apd_server_rules *rules, const char *dir)
{
    const struct apd_server_events events = {f, on_frame, on_malformed, on_closed};
    struct apd_err err = {0};

    memset(f, 0, sizeof *f);
    (void)snprintf(f->dir, sizeof f->dir, "%s", dir);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    if (apd_server_listen_unix(&f->server, &f->loop, rules, &events, dir, "ctl.sock", &err) !=
        APD_OK)
        fail_msg("%s", err.msg);
}

static void listen_tcp(struct fixture *f, const struct apd_server_rules *rules)
{
    const struct apd_server_events events = {f, on_frame, on_malformed, on_closed};
    struct apd_err err = {0};

    memset(f, 0, sizeof *f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    if (apd_server_listen_tcp(&f->server, &f->loop, rules, &events, 1, &f->port, &err) != APD_OK)
        fail_msg("%s", err.msg);
}

static void stop(struct fixture *f)
{
    apd_server_stop(&f->server);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    apd_server_fini(&f->server);
}

/* Runs the loop until the expression holds. */
#define AWAIT(f, expression)                                                                       \
    do {                                                                                           \
        uint64_t end_ = apd_now_ms() + PATIENCE_MS;                                                \
        while (!(expression)) {                                                                    \
            uv_run(&(f)->loop, UV_RUN_ONCE);                                                       \
            if (apd_now_ms() > end_)                                                               \
                fail_msg("never: %s", #expression);                                                \
        }                                                                                          \
    } while (0)

static int connect_unix(const char *dir)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/ctl.sock", dir_fd);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(dir_fd);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static int connect_tcp(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* 1: the peer has closed, 0: not (what it has sent is counted). */
static int drained(int fd, size_t *bytes)
{
    char buffer[65536];
    ssize_t n;

    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        *bytes += (size_t)n;
    return n == 0 || (errno != EAGAIN && errno != EINTR);
}

static void send_frame(int fd, size_t size)
{
    uint8_t frame[70000] = {0};
    size_t n = apd_frame_header((uint32_t)size, frame);

    assert_int_equal(write(fd, frame, n + size), (ssize_t)(n + size));
}

static void frames_arrive_and_replies_return(void **state)
{
    struct fixture f;
    Advprop__V1__Error message = ADVPROP__V1__ERROR__INIT;
    size_t bytes = 0;
    int fd;

    (void)state;
    listen_unix(&f, &short_rules, scratch_path("."));
    fd = connect_unix(f.dir);
    send_frame(fd, 10);
    send_frame(fd, 0);
    AWAIT(&f, f.frames == 2);
    assert_int_equal(f.last_size, 0);
    message.text = "hello";
    apd_server_send(&f.server, f.last_conn, &message.base);
    AWAIT(&f, (drained(fd, &bytes), bytes > 0));
    assert_int_equal(bytes, 8);
    close(fd);
    AWAIT(&f, f.closed == 1);
    stop(&f);
}

static void large_frame_is_refused_until_accepted(void **state)
{
    struct fixture f;
    size_t bytes = 0;
    int fd;

    (void)state;
    listen_unix(&f, &short_rules, scratch_path("."));
    fd = connect_unix(f.dir);
    send_frame(fd, 1024);
    AWAIT(&f, f.frames == 1);
    apd_server_accept(&f.server, f.last_conn);
    send_frame(fd, 60000);
    AWAIT(&f, f.frames == 2);
    close(fd);
    AWAIT(&f, f.closed == 1);

    fd = connect_unix(f.dir);
    send_frame(fd, 1025);
    AWAIT(&f, f.malformed == 1 && f.closed == 2);
    assert_non_null(strstr(f.reason, "1025 bytes"));
    AWAIT(&f, drained(fd, &bytes));
    assert_true(bytes > 0); /* it was told why */
    close(fd);
    assert_int_equal(f.frames, 2);
    stop(&f);
}

static void peer_of_another_language_is_told_and_closed(void **state)
{
    struct fixture f;
    size_t bytes = 0;
    int fd;

    (void)state;
    listen_unix(&f, &short_rules, scratch_path("."));
    f.refuse = 1;
    fd = connect_unix(f.dir);
    send_frame(fd, 5);
    send_frame(fd, 5); /* not looked at any more */
    AWAIT(&f, drained(fd, &bytes));
    assert_true(bytes > 0);
    assert_int_equal(f.frames, 1);
    assert_int_equal(f.closed, 1);
    close(fd);
    stop(&f);
}

static void partial_frame_is_given_up(void **state)
{
    struct fixture f;
    size_t bytes = 0;
    int fd, idle;

    (void)state;
    listen_unix(&f, &short_rules, scratch_path("."));
    idle = connect_unix(f.dir); /* between frames one may be silent */
    fd = connect_unix(f.dir);
    assert_int_equal(write(fd,
                           "\x0a"
                           "abc",
                           4),
                     4);
    AWAIT(&f, f.closed == 1);
    assert_non_null(strstr(f.reason, "not completed"));
    assert_true(drained(fd, &bytes));
    assert_false(drained(idle, &bytes));
    close(fd);
    close(idle);
    stop(&f);
}

static void reader_that_does_not_read_is_dropped(void **state)
{
    struct fixture f;
    Advprop__V1__ConfigText big = ADVPROP__V1__CONFIG_TEXT__INIT;
    int slow, good;

    (void)state;
    listen_unix(&f, &short_rules, scratch_path("."));
    big.yaml = calloc(1, 60001);
    memset(big.yaml, 'x', 60000);
    slow = connect_unix(f.dir);
    send_frame(slow, 1);
    AWAIT(&f, f.frames == 1);
    /* More than the kernel's buffer takes: the rest stays with us and grows old. */
    for (int i = 0; i < 20; i++)
        apd_server_send(&f.server, f.last_conn, &big.base);
    AWAIT(&f, f.closed == 1);
    assert_non_null(strstr(f.reason, "not read for too long"));

    /* And more than we keep for anybody. */
    good = connect_unix(f.dir);
    send_frame(good, 1);
    AWAIT(&f, f.frames == 2);
    for (int i = 0; i < 200; i++)
        apd_server_send(&f.server, f.last_conn, &big.base);
    AWAIT(&f, f.closed == 2);
    assert_non_null(strstr(f.reason, "does not read what it is sent"));
    free(big.yaml);
    close(slow);
    close(good);
    stop(&f);
}

static void too_many_connections_are_turned_away(void **state)
{
    struct fixture f;
    size_t bytes = 0;
    int fd[6];

    (void)state;
    listen_unix(&f, &short_rules, scratch_path("."));
    for (int i = 0; i < 2; i++) {
        fd[i] = connect_unix(f.dir);
        send_frame(fd[i], 1);
        AWAIT(&f, f.frames == (unsigned)i + 1);
        apd_server_accept(&f.server, f.last_conn);
    }
    for (int i = 2; i < 6; i++) /* 4 connections at most, 3 of them strangers */
        fd[i] = connect_unix(f.dir);
    AWAIT(&f, drained(fd[4], &bytes) && drained(fd[5], &bytes));
    for (int i = 0; i < 4; i++)
        assert_false(drained(fd[i], &bytes));
    assert_int_equal(f.server.count, 4);
    for (int i = 0; i < 6; i++)
        close(fd[i]);
    AWAIT(&f, f.server.count == 0);
    stop(&f);
}

static void stranger_over_tcp_is_dropped_in_time(void **state)
{
    struct apd_server_rules rules = short_rules;
    struct fixture f;
    size_t bytes = 0;
    int stranger, known;

    (void)state;
    rules.stranger_ms = 300;
    listen_tcp(&f, &rules);
    known = connect_tcp(f.port);
    send_frame(known, 1);
    AWAIT(&f, f.frames == 1);
    apd_server_accept(&f.server, f.last_conn);
    stranger = connect_tcp(f.port);
    AWAIT(&f, f.closed == 1);
    assert_non_null(strstr(f.reason, "who it is"));
    assert_true(drained(stranger, &bytes));
    assert_false(drained(known, &bytes));
    close(stranger);
    close(known);
    stop(&f);
}

static void close_sends_what_is_queued_first(void **state)
{
    struct fixture f;
    Advprop__V1__Error message = ADVPROP__V1__ERROR__INIT;
    size_t bytes = 0;
    int fd;

    (void)state;
    listen_tcp(&f, &short_rules);
    fd = connect_tcp(f.port);
    send_frame(fd, 1);
    AWAIT(&f, f.frames == 1);
    message.text = "goodbye";
    apd_server_send(&f.server, f.last_conn, &message.base);
    apd_server_close(&f.server, f.last_conn);
    apd_server_send(&f.server, f.last_conn, &message.base); /* too late: not sent */
    send_frame(fd, 1);                                      /* not read any more */
    AWAIT(&f, drained(fd, &bytes));
    assert_int_equal(bytes, 10);
    assert_int_equal(f.frames, 1);
    close(fd);
    AWAIT(&f, f.server.count == 0);
    assert_int_equal(f.closed, 0); /* who closes is not told */
    stop(&f);
}

static void stale_socket_is_replaced(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct fixture f;
    int old = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;

    (void)state;
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", scratch_path("ctl.sock"));
    (void)unlink(address.sun_path);
    assert_int_equal(bind(old, (struct sockaddr *)&address, sizeof address), 0);
    close(old); /* its file stays, as after a crash */
    listen_unix(&f, &short_rules, scratch_path("."));
    fd = connect_unix(f.dir);
    send_frame(fd, 1);
    AWAIT(&f, f.frames == 1);
    close(fd);
    stop(&f);
}

static void socket_in_a_deep_folder_works(void **state)
{
    char deep[4096];
    struct fixture f;
    struct stat st;
    int fd, n = snprintf(deep, sizeof deep, "%s", scratch_path("."));

    (void)state;
    for (int i = 0; i < 4; i++) {
        n += snprintf(deep + n, sizeof deep - (size_t)n, "/%050d", i);
        assert_int_equal(mkdir(deep, 0700), 0);
    }
    assert_true(n > 200);
    listen_unix(&f, &short_rules, deep);
    fd = connect_unix(deep);
    send_frame(fd, 1);
    AWAIT(&f, f.frames == 1);
    (void)snprintf(deep + n, sizeof deep - (size_t)n, "/ctl.sock");
    assert_int_equal(stat(deep, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    close(fd);
    stop(&f);
}

static void folder_that_is_missing_is_an_error(void **state)
{
    const struct apd_server_events events = {NULL, on_frame, on_malformed, on_closed};
    struct apd_server server;
    struct apd_err err = {0};
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(apd_server_listen_unix(&server, &loop, &short_rules, &events,
                                            scratch_path("missing"), "ctl.sock", &err),
                     APD_IO);
    assert_non_null(strstr(err.msg, "missing"));
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    apd_server_fini(&server);
}

static int make_scratch(void **state)
{
    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    return scratch_create() == NULL;
}

static int remove_scratch(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_arrive_and_replies_return),
        cmocka_unit_test(large_frame_is_refused_until_accepted),
        cmocka_unit_test(peer_of_another_language_is_told_and_closed),
        cmocka_unit_test(partial_frame_is_given_up),
        cmocka_unit_test(reader_that_does_not_read_is_dropped),
        cmocka_unit_test(too_many_connections_are_turned_away),
        cmocka_unit_test(stranger_over_tcp_is_dropped_in_time),
        cmocka_unit_test(close_sends_what_is_queued_first),
        cmocka_unit_test(stale_socket_is_replaced),
        cmocka_unit_test(socket_in_a_deep_folder_works),
        cmocka_unit_test(folder_that_is_missing_is_an_error),
    };

    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
