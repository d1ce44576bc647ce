/* The coordinator's real loop, real sockets and files, with the workers' real links and a client,
 * in one process without MPI: the loop runs on a thread of its own, each worker on another. */
#include "base/clock.h"
#include "base/fs.h"
#include "daemon/daemon.h"
#include "proto/frame.h"
#include "proto/pack.h"
#include "proto/run_dir.h"
#include "tests/support/scratch.h"
#include "worker/link.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WORKERS     2
#define SHARDS      3
#define PATIENCE_MS 30000

static uint64_t shard_samples[SHARDS] = {200, 200, 200};

/* ---------------------------------------------------------------- coordinator on a thread */

struct service {
    struct apd_prepared prepared;
    struct apd_daemon *daemon;
    struct apd_wireup wireup;
    pthread_t thread;
    int status, abort;
};

static void *serve(void *arg)
{
    struct service *service = arg;

    service->status = apd_daemon_run(service->daemon, &service->abort);
    return NULL;
}

static void service_start(struct service *service, const char *dir)
{
    static const char *const overrides[] = {"data.path=/data", "train.batch=60", "train.lanes=4",
                                            "train.max_steps=50", "log.per_step=on"};
    const struct apd_prepare_args args = {.run_dir = dir,
                                          .overrides = overrides,
                                          .override_count = 5,
                                          .workers = WORKERS,
                                          .lock_wait_ms = 0};
    struct apd_err err = {0};

    memset(service, 0, sizeof *service);
    if (apd_prepare(&args, &service->prepared, &err) != APD_OK ||
        apd_daemon_create(&service->prepared, WORKERS, 1, 0, &service->daemon, &service->wireup,
                          &err) != APD_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(pthread_create(&service->thread, NULL, serve, service), 0);
}

static void service_end(struct service *service)
{
    assert_int_equal(pthread_join(service->thread, NULL), 0);
    apd_daemon_destroy(&service->daemon);
    apd_prepared_fini(&service->prepared);
}

static json_t *status_json(const char *dir)
{
    char path[APD_RUN_PATH_MAX];
    json_t *status;

    (void)snprintf(path, sizeof path, "%s/%s", dir, APD_RUN_STATUS);
    status = json_load_file(path, 0, NULL);
    assert_non_null(status);
    return status;
}

static void assert_status(const char *dir, const char *state, int exit_status, const char *cause)
{
    json_t *status = status_json(dir);

    assert_string_equal(json_string_value(json_object_get(status, "state")), state);
    assert_int_equal(json_integer_value(json_object_get(status, "exit_status")), exit_status);
    if (strstr(json_string_value(json_object_get(status, "first_cause")), cause) == NULL)
        fail_msg("%s", json_string_value(json_object_get(status, "first_cause")));
    json_decref(status);
}

/* ---------------------------------------------------------------- workers on threads */

struct joiner {
    const struct apd_wireup *wireup;
    uint32_t rank;
    const char *digest;
    uint64_t timeout_ms;
    pthread_t thread;
    struct apd_link *link;
    struct apd_link_assignment assignment;
    enum apd_code rc;
    struct apd_err err;
};

static void *join_coordinator(void *arg)
{
    struct joiner *joiner = arg;
    Advprop__V1__Join join = ADVPROP__V1__JOIN__INIT;

    join.rank = joiner->rank;
    join.workers = WORKERS;
    join.host = "host";
    join.pid = joiner->rank;
    join.backend = "test";
    join.layout = "layout";
    join.config_digest = (char *)joiner->digest;
    join.data_digest = "data";
    join.samples = 600;
    join.classes = 10;
    join.n_shard_samples = SHARDS;
    join.shard_samples = shard_samples;
    join.plan_version = 1;
    joiner->rc = apd_link_open(joiner->wireup, &join, joiner->timeout_ms, &joiner->link,
                               &joiner->assignment, &joiner->err);
    return NULL;
}

static void join_start(struct joiner *joiner, const struct service *service, uint32_t rank)
{
    *joiner = (struct joiner){.wireup = &service->wireup,
                              .rank = rank,
                              .digest = service->prepared.config_digest,
                              .timeout_ms = PATIENCE_MS};
    assert_int_equal(pthread_create(&joiner->thread, NULL, join_coordinator, joiner), 0);
}

static void join_end(struct joiner *joiner)
{
    assert_int_equal(pthread_join(joiner->thread, NULL), 0);
}

static void join_all(struct joiner joiner[WORKERS], const struct service *service)
{
    for (uint32_t i = 0; i < WORKERS; i++)
        join_start(&joiner[i], service, i + 1);
    for (uint32_t i = 0; i < WORKERS; i++) {
        join_end(&joiner[i]);
        if (joiner[i].rc != APD_OK)
            fail_msg("rank %u: %s", i + 1, joiner[i].err.msg);
    }
}

static void report_steps(struct apd_link *link, uint64_t from, uint64_t to)
{
    for (uint64_t step = from; step <= to; step++) {
        Advprop__V1__StepReport report = ADVPROP__V1__STEP_REPORT__INIT;

        report.step = step;
        report.position = step * 60;
        report.epoch = (uint32_t)((report.position - 1) / 600);
        report.loss_clean = 2.5;
        apd_link_progress(link, step, 100, 0.25);
        apd_link_report_step(link, &report);
    }
}

static enum apd_code commit_file(const char *dir, struct apd_link *link, uint64_t step,
                                 uint64_t claimed_bytes, struct apd_err *err)
{
    Advprop__V1__CheckpointWritten written = ADVPROP__V1__CHECKPOINT_WRITTEN__INIT;
    Advprop__V1__CheckpointInfo info = ADVPROP__V1__CHECKPOINT_INFO__INIT;
    char path[64], whole[APD_RUN_PATH_MAX + 64], sha256[APD_SHA256_HEX];

    (void)snprintf(path, sizeof path, "checkpoints/step-%" PRIu64, step);
    (void)snprintf(whole, sizeof whole, "%s/%s", dir, path);
    assert_int_equal(apd_write_file(whole, "weights", 7, 0, err), APD_OK);
    assert_int_equal(apd_sha256_of("weights", 7, sha256, err), APD_OK);
    info.step = step;
    info.path = path;
    info.sha256 = sha256;
    info.bytes = claimed_bytes;
    info.generation = 1;
    written.info = &info;
    written.reason = "request";
    return apd_link_commit(link, &written, PATIENCE_MS, err);
}

/* ---------------------------------------------------------------- a client */

static int client_connect(const char *dir)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", dir, APD_RUN_SOCKET);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void client_ask(int fd, Advprop__V1__ClientRequest__KindCase kind, void *body)
{
    Advprop__V1__ClientRequest request = ADVPROP__V1__CLIENT_REQUEST__INIT;
    struct apd_err err;
    uint8_t *bytes;
    size_t size;

    request.id = 9;
    request.kind_case = kind;
    request.get_status = body;
    assert_int_equal(apd_frame_pack(&request.base, &bytes, &size, &err), APD_OK);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    free(bytes);
}

/* NULL: the server closed. */
static Advprop__V1__ServerReply *client_read(int fd)
{
    struct apd_frame_reader reader = {.cap = APD_FRAME_CAP_ACCEPTED};
    Advprop__V1__ServerReply *reply = NULL;
    struct apd_err err;
    uint8_t byte;
    const uint8_t *frame = NULL;
    size_t used, size;

    while (frame == NULL && read(fd, &byte, 1) == 1)
        assert_int_equal(apd_frame_feed(&reader, &byte, 1, &used, &frame, &size, &err), APD_OK);
    if (frame != NULL) {
        reply = advprop__v1__server_reply__unpack(NULL, size, frame);
        assert_non_null(reply);
        assert_int_equal(reply->id, 9);
    }
    apd_frame_reader_fini(&reader);
    return reply;
}

/* Watches until the status shows this state (and step); nothing is polled. */
static void client_await(const char *dir, Advprop__V1__RunState state, uint64_t step)
{
    Advprop__V1__Watch watch = ADVPROP__V1__WATCH__INIT;
    int fd = client_connect(dir), seen = 0;

    watch.interval_ms = 50;
    client_ask(fd, ADVPROP__V1__CLIENT_REQUEST__KIND_WATCH, &watch);
    for (uint64_t end = apd_now_ms() + PATIENCE_MS; !seen;) {
        Advprop__V1__ServerReply *reply = client_read(fd);

        assert_non_null(reply);
        seen = reply->status->state == state && reply->status->step >= step;
        advprop__v1__server_reply__free_unpacked(reply, NULL);
        assert_true(apd_now_ms() < end);
    }
    close(fd);
}

static void client_drain(const char *dir)
{
    Advprop__V1__Drain drain = ADVPROP__V1__DRAIN__INIT;
    Advprop__V1__ServerReply *reply;
    int fd = client_connect(dir);

    client_ask(fd, ADVPROP__V1__CLIENT_REQUEST__KIND_DRAIN, &drain);
    reply = client_read(fd);
    assert_non_null(reply);
    assert_int_equal(reply->kind_case, ADVPROP__V1__SERVER_REPLY__KIND_ACK);
    advprop__v1__server_reply__free_unpacked(reply, NULL);
    close(fd);
}

/* The link's own thread sets the bits: waits for it with a deadline, yielding. */
static void await_command(struct apd_link *link, unsigned bit)
{
    uint64_t end = apd_now_ms() + PATIENCE_MS;
    unsigned seen = 0;

    while (!(seen & bit)) {
        seen |= apd_link_commands(link);
        assert_true(apd_now_ms() < end);
        sched_yield();
    }
}

/* ---------------------------------------------------------------- cases */

static int count_lines(const char *dir, const char *file, const char *with)
{
    char path[APD_RUN_PATH_MAX], *text = NULL, *line;
    struct apd_err err;
    int n = 0;

    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    assert_int_equal(apd_read_file(path, 1 << 24, &text, NULL, &err), APD_OK);
    for (line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_t *record = json_loads(line, 0, NULL);

        assert_non_null(record);
        json_decref(record);
        n += strstr(line, with) != NULL;
    }
    free(text);
    return n;
}

static void assert_shards_are_the_plan(struct apd_link *link,
                                       const struct apd_link_assignment *assignment)
{
    uint32_t list[SHARDS];
    int truncated = 1;

    for (uint32_t lane = assignment->lane_first;
         lane < assignment->lane_first + assignment->lane_count; lane++) {
        int count = apd_link_shards(link, 1, lane, SHARDS, list, &truncated);

        assert_in_range(count, 1, SHARDS);
        assert_false(truncated);
    }
    assert_int_equal(apd_link_shards(link, 1, 3 - assignment->lane_first, SHARDS, list, &truncated),
                     -1); /* a lane of the other worker */
    assert_int_equal(apd_link_shards(link, 7, 0, SHARDS, list, &truncated), -1);
}

static void run_from_join_to_drain_and_again(void **state)
{
    const char *dir = scratch_path("whole");
    struct service service;
    struct joiner joiner[WORKERS];
    struct apd_err err = {0};

    (void)state;
    service_start(&service, dir);
    join_all(joiner, &service);
    assert_int_equal(joiner[0].assignment.lane_count, 2);
    assert_int_equal(joiner[1].assignment.lane_first, 2);
    assert_false(joiner[0].assignment.resume);
    report_steps(joiner[0].link, 1, 12);
    client_await(dir, ADVPROP__V1__RUN_STATE__RUN_STATE_TRAINING, 12);
    assert_shards_are_the_plan(joiner[0].link, &joiner[0].assignment);
    assert_int_equal(commit_file(dir, joiner[0].link, 12, 8, &err), APD_CANCELED);
    assert_non_null(strstr(err.msg, "expected a file of 8 bytes, found 7"));
    assert_int_equal(commit_file(dir, joiner[0].link, 12, 7, &err), APD_OK);
    client_drain(dir);
    for (int i = 0; i < WORKERS; i++) {
        await_command(joiner[i].link, APD_LINK_DRAIN);
        apd_link_close(&joiner[i].link, 75, NULL);
    }
    service_end(&service);
    assert_int_equal(service.status, 75);
    assert_false(service.abort);
    assert_status(dir, "done", 75, "");
    assert_int_equal(count_lines(dir, APD_RUN_METRICS, "\"kind\":\"step\""), 12);
    assert_int_equal(count_lines(dir, APD_RUN_METRICS, "\"kind\":\"checkpoint\""), 1);
    assert_int_equal(count_lines(dir, APD_RUN_EVENTS, "\"name\":\"worker-joined\""), 2);

    /* The same again goes on where that was. */
    service_start(&service, dir);
    join_all(joiner, &service);
    assert_int_equal(joiner[1].assignment.generation, 2);
    assert_true(joiner[1].assignment.resume);
    assert_int_equal(joiner[1].assignment.resume_step, 12);
    assert_string_equal(joiner[1].assignment.resume_path, "checkpoints/step-12");
    report_steps(joiner[0].link, 13, 50);
    for (int i = 0; i < WORKERS; i++)
        apd_link_close(&joiner[i].link, 0, NULL);
    service_end(&service);
    assert_int_equal(service.status, 0);
    assert_status(dir, "done", 0, "");
    assert_int_equal(count_lines(dir, APD_RUN_METRICS, "\"gen\":2"), 38);
}

static void failure_of_a_worker_stops_the_others_and_aborts(void **state)
{
    const char *dir = scratch_path("failure");
    struct service service;
    struct joiner joiner[WORKERS];
    struct apd_err err = {0};

    (void)state;
    service_start(&service, dir);
    join_all(joiner, &service);
    (void)apd_fail(&err, APD_DEVICE, "the device is on fire");
    apd_link_phase(joiner[1].link, ADVPROP__V1__PHASE__PHASE_NOISE_PASS);
    apd_link_close(&joiner[1].link, APD_EXIT_UNAVAILABLE, &err);
    await_command(joiner[0].link, APD_LINK_STOP);
    assert_status(
        dir, "failed", APD_EXIT_UNAVAILABLE,
        "rank 2 on host, pid 2, failed in phase noise_pass after step 0: the device is on "
        "fire");
    apd_link_close(&joiner[0].link, 75, NULL);
    service_end(&service);
    assert_int_equal(service.status, APD_EXIT_UNAVAILABLE);
    assert_true(service.abort);
}

static void refused_worker_hears_why(void **state)
{
    const char *dir = scratch_path("refused");
    struct service service;
    struct joiner joiner;

    (void)state;
    service_start(&service, dir);
    joiner = (struct joiner){
        .wireup = &service.wireup, .rank = 1, .digest = "other", .timeout_ms = PATIENCE_MS};
    join_coordinator(&joiner);
    assert_int_equal(joiner.rc, APD_CONFIG);
    assert_non_null(strstr(joiner.err.msg, "configuration digest"));
    service_end(&service);
    assert_int_equal(service.status, APD_EXIT_CONFIG);
    assert_status(dir, "failed", APD_EXIT_CONFIG, "configuration digest");
}

static void drain_before_all_have_joined_cancels(void **state)
{
    const char *dir = scratch_path("early");
    struct service service;
    struct joiner joiner[WORKERS];

    (void)state;
    service_start(&service, dir);
    join_start(&joiner[0], &service, 1);
    client_drain(dir);
    join_end(&joiner[0]);
    assert_int_equal(joiner[0].rc, APD_CANCELED);
    join_start(&joiner[1], &service, 2);
    join_end(&joiner[1]);
    assert_int_equal(joiner[1].rc, APD_CANCELED);
    service_end(&service);
    assert_int_equal(service.status, 75);
    assert_false(service.abort);
    assert_status(dir, "done", 75, "");
}

/* Another language with nothing but its protobuf library, as docs/protocol.md prints it. */
static void documented_python_client_works(void **state)
{
    const char *dir = scratch_path("python");
    char command[3 * APD_RUN_PATH_MAX];
    struct service service;
    struct joiner joiner[WORKERS];
    int status;

    (void)state;
    service_start(&service, dir);
    join_all(joiner, &service);
    report_steps(joiner[0].link, 1, 3);
    client_await(dir, ADVPROP__V1__RUN_STATE__RUN_STATE_TRAINING, 3);
    (void)snprintf(command, sizeof command, "'%s' '%s' '%s' '%s' '%s' '%s'", TEST_PYTHON,
                   TEST_SCRIPT, TEST_DOC, TEST_PROTO, dir, scratch_path("."));
    status = system(command);
    for (int i = 0; i < WORKERS; i++)
        apd_link_close(&joiner[i].link, 75, NULL);
    service_end(&service);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(status, 0);
}

/* ---------------------------------------------------------------- a coordinator that misbehaves */

static int listen_local(struct apd_wireup *wireup)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *wireup = (struct apd_wireup){.port = ntohs(address.sin_port), .generation = 3};
    (void)snprintf(wireup->address[0], sizeof wireup->address[0], "127.0.0.1");
    return fd;
}

static void nobody_listens_is_told(void **state)
{
    struct apd_wireup wireup;
    struct joiner joiner = {.wireup = &wireup, .rank = 1, .digest = "d", .timeout_ms = PATIENCE_MS};

    (void)state;
    close(listen_local(&wireup));
    join_coordinator(&joiner);
    assert_int_equal(joiner.rc, APD_PEER);
    assert_non_null(strstr(joiner.err.msg, "connecting to 127.0.0.1 port"));
}

static void coordinator_that_does_not_answer_is_given_up(void **state)
{
    struct apd_wireup wireup;
    struct joiner joiner = {.wireup = &wireup, .rank = 1, .digest = "d", .timeout_ms = 100};
    int fd = listen_local(&wireup);

    (void)state;
    join_coordinator(&joiner);
    assert_int_equal(joiner.rc, APD_TIMEOUT);
    close(fd);
}

/* Accepts, and assigns if asked to; then the connection is the test's. */
static int accept_and_assign(int listener, uint64_t generation)
{
    Advprop__V1__CoordinatorMessage message = ADVPROP__V1__COORDINATOR_MESSAGE__INIT;
    Advprop__V1__Assignment assignment = ADVPROP__V1__ASSIGNMENT__INIT;
    struct apd_err err;
    uint8_t *bytes;
    size_t size;
    int fd = accept(listener, NULL, NULL);

    assert_true(fd >= 0);
    message.generation = generation;
    message.kind_case = ADVPROP__V1__COORDINATOR_MESSAGE__KIND_ASSIGNMENT;
    message.assignment = &assignment;
    assert_int_equal(apd_frame_pack(&message.base, &bytes, &size, &err), APD_OK);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    free(bytes);
    return fd;
}

static void lost_coordinator_is_told(void **state)
{
    struct apd_wireup wireup;
    struct joiner joiner = {.wireup = &wireup, .rank = 1, .digest = "d", .timeout_ms = PATIENCE_MS};
    struct apd_err err = {0};
    int listener = listen_local(&wireup), fd;

    (void)state;
    /* The first address leads nowhere, the second one works. */
    memcpy(wireup.address[1], wireup.address[0], sizeof wireup.address[0]);
    (void)snprintf(wireup.address[0], sizeof wireup.address[0], "no address");
    assert_int_equal(pthread_create(&joiner.thread, NULL, join_coordinator, &joiner), 0);
    fd = accept_and_assign(listener, 3);
    join_end(&joiner);
    assert_int_equal(joiner.rc, APD_OK);
    assert_int_equal(apd_link_commands(joiner.link), 0);
    close(fd);
    await_command(joiner.link, APD_LINK_LOST);
    assert_int_equal(commit_file(scratch_path("whole"), joiner.link, 1, 7, &err), APD_PEER);
    apd_link_close(&joiner.link, 75, NULL);
    close(listener);
}

static void coordinator_of_another_generation_is_left(void **state)
{
    struct apd_wireup wireup;
    struct joiner joiner = {.wireup = &wireup, .rank = 1, .digest = "d", .timeout_ms = PATIENCE_MS};
    int listener = listen_local(&wireup), fd;

    (void)state;
    assert_int_equal(pthread_create(&joiner.thread, NULL, join_coordinator, &joiner), 0);
    fd = accept_and_assign(listener, 4);
    join_end(&joiner);
    assert_int_equal(joiner.rc, APD_PEER);
    assert_non_null(strstr(joiner.err.msg, "another generation"));
    close(fd);
    close(listener);
}

static void *close_link(void *arg)
{
    struct joiner *joiner = arg;

    apd_link_close(&joiner->link, 0, NULL);
    return NULL;
}

static void steps_are_dropped_when_nobody_reads_but_nothing_else(void **state)
{
    struct apd_wireup wireup;
    struct joiner joiner = {.wireup = &wireup, .rank = 1, .digest = "d", .timeout_ms = PATIENCE_MS};
    struct apd_frame_reader reader = {.cap = APD_FRAME_CAP_ACCEPTED};
    int listener = listen_local(&wireup), fd, receipts = 0, steps = 0, left = 0, small = 4096;
    uint64_t last_step = 0;
    struct apd_err err;
    uint8_t bytes[65536];
    ssize_t n;

    (void)state;
    (void)setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_int_equal(pthread_create(&joiner.thread, NULL, join_coordinator, &joiner), 0);
    fd = accept_and_assign(listener, 3);
    join_end(&joiner);
    for (uint64_t i = 0; i < 200; i++) {
        Advprop__V1__Receipt receipt = ADVPROP__V1__RECEIPT__INIT;

        receipt.epoch = (uint32_t)i;
        report_steps(joiner.link, i * 1000 + 1, i * 1000 + 1000);
        apd_link_report_receipt(joiner.link, &receipt);
    }
    /* Now somebody reads, to the end. */
    assert_int_equal(pthread_create(&joiner.thread, NULL, close_link, &joiner), 0);
    while ((n = read(fd, bytes, sizeof bytes)) > 0) {
        for (size_t at = 0; at < (size_t)n;) {
            Advprop__V1__WorkerMessage *message;
            const uint8_t *frame;
            size_t used, size;

            assert_int_equal(
                apd_frame_feed(&reader, bytes + at, (size_t)n - at, &used, &frame, &size, &err),
                APD_OK);
            at += used;
            if (frame == NULL)
                continue;
            message = advprop__v1__worker_message__unpack(NULL, size, frame);
            assert_non_null(message);
            receipts += message->kind_case == ADVPROP__V1__WORKER_MESSAGE__KIND_RECEIPT;
            left += message->kind_case == ADVPROP__V1__WORKER_MESSAGE__KIND_LEAVING;
            if (message->kind_case == ADVPROP__V1__WORKER_MESSAGE__KIND_STEP) {
                assert_true(message->step->step > last_step);
                last_step = message->step->step;
                steps++;
            }
            advprop__v1__worker_message__free_unpacked(message, NULL);
        }
    }
    close(fd);
    assert_int_equal(pthread_join(joiner.thread, NULL), 0);
    assert_int_equal(receipts, 200);
    assert_int_equal(left, 1);
    assert_int_equal(last_step, 200000);
    assert_true(steps < 200000);
    apd_frame_reader_fini(&reader);
    close(listener);
}

static int make_scratch(void **state)
{
    (void)state;
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
        cmocka_unit_test(run_from_join_to_drain_and_again),
        cmocka_unit_test(failure_of_a_worker_stops_the_others_and_aborts),
        cmocka_unit_test(refused_worker_hears_why),
        cmocka_unit_test(drain_before_all_have_joined_cancels),
        cmocka_unit_test(documented_python_client_works),
        cmocka_unit_test(nobody_listens_is_told),
        cmocka_unit_test(coordinator_that_does_not_answer_is_given_up),
        cmocka_unit_test(lost_coordinator_is_told),
        cmocka_unit_test(coordinator_of_another_generation_is_left),
        cmocka_unit_test(steps_are_dropped_when_nobody_reads_but_nothing_else),
    };

    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
