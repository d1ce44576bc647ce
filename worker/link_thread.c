/* See link_thread.h. */
#include "worker/link_thread.h"

#include "proto/frame.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#define BEAT_MS        500
#define CONNECT_MS     3000  /* per address */
#define FLUSH_MS       1000  /* on ending */
#define SILENT_HOST_MS 30000 /* unacknowledged for this long: the coordinator's host is gone */
#define UNSENT_BYTES   (256 * 1024)
#define INPUT_BYTES    65536

struct apd_link_thread {
    struct apd_link_state *state;
    pthread_t thread;
    uv_loop_t loop;
    uv_async_t wake;
    uv_timer_t beat, deadline;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_shutdown_t shutdown;
    unsigned address; /* index of the one being tried */
    int tcp_open, connected, shut;
    size_t unsent_bytes;
    struct apd_frame_reader reader;
    struct apd_link_frame *join; /* until it is sent */
    char input[INPUT_BYTES];
};

struct sending {
    uv_write_t req;
    struct apd_link_thread *thread;
    struct apd_link_frame *frame;
};

static int is_closing(const struct apd_link_thread *thread)
{
    return atomic_load(&thread->state->closing);
}

/* ---------------------------------------------------------------- ending */

static void close_tcp(struct apd_link_thread *thread, uv_close_cb then)
{
    if (thread->tcp_open) {
        thread->tcp_open = 0;
        thread->connected = 0;
        uv_close((uv_handle_t *)&thread->tcp, then);
    }
}

static void close_once(uv_handle_t *handle)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

/* Everything leaves the loop, so that uv_run returns. Only after the end was asked for: until
 * then the async handle must exist. */
static void end_loop(struct apd_link_thread *thread)
{
    close_tcp(thread, NULL);
    close_once((uv_handle_t *)&thread->beat);
    close_once((uv_handle_t *)&thread->deadline);
    close_once((uv_handle_t *)&thread->wake);
}

static void lose(struct apd_link_thread *thread, const char *text)
{
    close_tcp(thread, NULL);
    uv_timer_stop(&thread->beat);
    uv_timer_stop(&thread->deadline);
    atomic_fetch_or(&thread->state->commands, APD_LINK_LOST);
    apd_link_state_set(thread->state, APD_LINK_STAGE_LOST, text);
    if (is_closing(thread))
        end_loop(thread);
}

/* ---------------------------------------------------------------- sending */

static void flush(struct apd_link_thread *thread);

static void on_written(uv_write_t *req, int status)
{
    struct sending *sending = req->data;
    struct apd_link_thread *thread = sending->thread;

    thread->unsent_bytes -= sending->frame->size;
    apd_link_frame_free(sending->frame);
    free(sending);
    if (status == 0)
        flush(thread);
    else if (status != UV_ECANCELED)
        lose(thread, uv_strerror(status));
}

/* Takes ownership of the frame. */
static void write_frame(struct apd_link_thread *thread, struct apd_link_frame *frame)
{
    uv_buf_t buffer = uv_buf_init((char *)frame->bytes, (unsigned)frame->size);
    struct sending *sending = malloc(sizeof *sending);
    int status = UV_ENOMEM;

    if (sending != NULL) {
        *sending = (struct sending){.thread = thread, .frame = frame};
        sending->req.data = sending;
        status = uv_write(&sending->req, (uv_stream_t *)&thread->tcp, &buffer, 1, on_written);
    }
    if (status == 0) {
        thread->unsent_bytes += frame->size;
        return;
    }
    free(sending);
    apd_link_frame_free(frame);
    lose(thread, uv_strerror(status));
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
    (void)req;
    (void)status; /* the coordinator's end of file or the deadline ends the loop */
}

static void on_flush_deadline(uv_timer_t *timer)
{
    end_loop(timer->data);
}

/* All is queued on the socket: say so, and wait for the coordinator to have read it. */
static void begin_shutdown(struct apd_link_thread *thread)
{
    thread->shut = 1;
    uv_timer_stop(&thread->beat);
    if (uv_shutdown(&thread->shutdown, (uv_stream_t *)&thread->tcp, on_shutdown) != 0 ||
        uv_timer_start(&thread->deadline, on_flush_deadline, FLUSH_MS, 0) != 0)
        end_loop(thread);
}

static void flush(struct apd_link_thread *thread)
{
    int closing = is_closing(thread);
    struct apd_link_frame *frame;

    if (!thread->connected || thread->shut)
        return;
    while (thread->connected && (closing || thread->unsent_bytes < UNSENT_BYTES) &&
           (frame = apd_link_queue_pop(&thread->state->queue)) != NULL)
        write_frame(thread, frame);
    if (closing && thread->connected)
        begin_shutdown(thread);
}

static void on_wake_up(uv_async_t *async)
{
    struct apd_link_thread *thread = async->data;

    flush(thread);
    if (is_closing(thread) && !thread->connected)
        end_loop(thread);
}

static uint64_t resident_bytes(void)
{
    unsigned long long total, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");

    if (file == NULL)
        return 0;
    if (fscanf(file, "%llu %llu", &total, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void on_beat(uv_timer_t *timer)
{
    struct apd_link_thread *thread = timer->data;
    struct apd_link_state *state = thread->state;
    struct apd_link_frame *frame;
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Heartbeat beat = ADVPROP__V1__HEARTBEAT__INIT;
    char detail[sizeof state->detail] = "";

    if (thread->unsent_bytes >= UNSENT_BYTES)
        return; /* what is queued says that we live */
    beat.phase = (Advprop__V1__Phase)atomic_load(&state->phase);
    beat.step = atomic_load(&state->step);
    beat.images_per_s = atomic_load(&state->images_per_s);
    beat.data_wait_share = atomic_load(&state->data_wait_share);
    beat.rss_bytes = resident_bytes();
    if (atomic_load(&state->has_detail)) {
        pthread_mutex_lock(&state->mutex);
        memcpy(detail, state->detail, sizeof detail);
        pthread_mutex_unlock(&state->mutex);
        beat.detail = detail;
    }
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_HEARTBEAT;
    message.heartbeat = &beat;
    message.generation = state->wireup.generation;
    frame = apd_link_frame_create(&message);
    if (frame == NULL)
        return; /* no memory: the next one tells as much */
    apd_link_queue_push(&state->queue, frame);
    flush(thread);
}

/* ---------------------------------------------------------------- receiving */

static void take_frame(struct apd_link_thread *thread, const uint8_t *frame, size_t size)
{
    Advprop__V1__CoordinatorMessage *message =
        advprop__v1__coordinator_message__unpack(NULL, size, frame);
    const char *why;

    if (message == NULL) {
        lose(thread, "a frame that is no CoordinatorMessage");
        return;
    }
    why = apd_link_state_take(thread->state, message);
    if (why != NULL)
        lose(thread, why);
    advprop__v1__coordinator_message__free_unpacked(message, NULL);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct apd_link_thread *thread = handle->data;

    (void)suggested;
    *out = uv_buf_init(thread->input, sizeof thread->input);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct apd_link_thread *thread = stream->data;
    const uint8_t *bytes = (const uint8_t *)buffer->base, *frame;
    size_t size = n > 0 ? (size_t)n : 0, used, frame_size;
    struct apd_err err;

    if (n < 0)
        lose(thread, n == UV_EOF ? "the coordinator closed the connection" : uv_strerror((int)n));
    while (size > 0 && thread->connected) {
        if (apd_frame_feed(&thread->reader, bytes, size, &used, &frame, &frame_size, &err) !=
            APD_OK) {
            lose(thread, err.msg);
            return;
        }
        bytes += used;
        size -= used;
        if (frame != NULL)
            take_frame(thread, frame, frame_size);
    }
}

/* ---------------------------------------------------------------- connecting */

static void try_address(struct apd_link_thread *thread);

static void on_closed_try_next(uv_handle_t *handle)
{
    struct apd_link_thread *thread = handle->data;

    thread->address++;
    try_address(thread);
}

static void give_up_address(struct apd_link_thread *thread, const char *why)
{
    const struct apd_wireup *wireup = &thread->state->wireup;
    char text[256];

    (void)snprintf(text, sizeof text, "connecting to %s port %u: %s",
                   wireup->address[thread->address], wireup->port, why);
    apd_link_state_note(thread->state, text); /* told if no other address works either */
    uv_timer_stop(&thread->deadline);
    close_tcp(thread, on_closed_try_next);
}

static void on_connect_deadline(uv_timer_t *timer)
{
    give_up_address(timer->data, "no answer");
}

static void set_socket_options(struct apd_link_thread *thread)
{
    unsigned limit = SILENT_HOST_MS;
    uv_os_fd_t fd;

    /* Without them it works, only slower or with a later verdict on a dead host. */
    (void)uv_tcp_nodelay(&thread->tcp, 1);
    (void)uv_tcp_keepalive(&thread->tcp, 1, 10);
    if (uv_fileno((uv_handle_t *)&thread->tcp, &fd) == 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit, sizeof limit);
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct apd_link_thread *thread = connect->data;
    struct apd_link_frame *join = thread->join;

    if (status == UV_ECANCELED)
        return; /* its deadline was first */
    uv_timer_stop(&thread->deadline);
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&thread->tcp, on_alloc, on_read);
    if (status != 0) {
        give_up_address(thread, uv_strerror(status));
        return;
    }
    thread->connected = 1;
    set_socket_options(thread);
    apd_link_state_set(thread->state, APD_LINK_STAGE_JOINING, "");
    thread->join = NULL;
    write_frame(thread, join);
    (void)uv_timer_start(&thread->beat, on_beat, 0, BEAT_MS);
    flush(thread);
}

static int connect_to(struct apd_link_thread *thread, const char *address)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    const struct sockaddr *to = (const struct sockaddr *)&v4;
    int status = uv_ip4_addr(address, (int)thread->state->wireup.port, &v4);

    if (status != 0) {
        status = uv_ip6_addr(address, (int)thread->state->wireup.port, &v6);
        to = (const struct sockaddr *)&v6;
    }
    if (status == 0)
        status = uv_timer_start(&thread->deadline, on_connect_deadline, CONNECT_MS, 0);
    if (status == 0)
        status = uv_tcp_connect(&thread->connect, &thread->tcp, to, on_connected);
    return status;
}

/* No address is left: the last one's failure is the reason. */
static void lose_for_want_of_address(struct apd_link_thread *thread)
{
    char text[sizeof thread->state->text] = "no address to connect to";

    pthread_mutex_lock(&thread->state->mutex);
    if (thread->address > 0)
        memcpy(text, thread->state->text, sizeof text);
    pthread_mutex_unlock(&thread->state->mutex);
    lose(thread, text);
}

static void try_address(struct apd_link_thread *thread)
{
    const struct apd_wireup *wireup = &thread->state->wireup;
    int status;

    if (is_closing(thread)) {
        end_loop(thread);
        return;
    }
    if (thread->address >= APD_WIREUP_ADDRESSES || wireup->address[thread->address][0] == '\0') {
        lose_for_want_of_address(thread);
        return;
    }
    (void)uv_tcp_init(&thread->loop, &thread->tcp); /* cannot fail: no descriptor is made yet */
    thread->tcp.data = thread;
    thread->tcp_open = 1;
    status = connect_to(thread, wireup->address[thread->address]);
    if (status != 0)
        give_up_address(thread, uv_strerror(status));
}

/* ---------------------------------------------------------------- life */

static void *run(void *arg)
{
    struct apd_link_thread *thread = arg;

    try_address(thread);
    (void)uv_run(&thread->loop, UV_RUN_DEFAULT);
    return NULL;
}

static enum apd_code init_loop(struct apd_link_thread *thread, struct apd_err *err)
{
    int status = uv_loop_init(&thread->loop);

    if (status == 0) {
        status = uv_async_init(&thread->loop, &thread->wake, on_wake_up);
        if (status != 0)
            (void)uv_loop_close(&thread->loop);
    }
    if (status != 0)
        return apd_fail(err, APD_IO, "the link's event loop: %s", uv_strerror(status));
    (void)uv_timer_init(&thread->loop, &thread->beat); /* cannot fail */
    (void)uv_timer_init(&thread->loop, &thread->deadline);
    thread->wake.data = thread;
    thread->beat.data = thread;
    thread->deadline.data = thread;
    thread->connect.data = thread;
    return APD_OK;
}

static enum apd_code start_without_signals(struct apd_link_thread *thread, struct apd_err *err)
{
    sigset_t all, before;
    int status;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    status = pthread_create(&thread->thread, NULL, run, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status != 0)
        return apd_fail(err, APD_IO, "the link's thread: %s", strerror(status));
    return APD_OK;
}

enum apd_code apd_link_thread_start(struct apd_link_state *state, struct apd_link_frame *join,
                                    struct apd_link_thread **out, struct apd_err *err)
{
    struct apd_link_thread *thread = calloc(1, sizeof *thread);
    enum apd_code rc;

    if (thread == NULL)
        return apd_fail(err, APD_NOMEM, "the link to the coordinator");
    thread->state = state;
    thread->reader.cap = APD_FRAME_CAP_ACCEPTED;
    rc = init_loop(thread, err);
    if (rc != APD_OK) {
        free(thread);
        return rc;
    }
    thread->join = join;
    rc = start_without_signals(thread, err);
    if (rc != APD_OK) {
        end_loop(thread);
        (void)uv_run(&thread->loop, UV_RUN_DEFAULT);
        (void)uv_loop_close(&thread->loop);
        free(thread);
        return rc;
    }
    *out = thread;
    return APD_OK;
}

void apd_link_thread_wake(struct apd_link_thread *thread)
{
    uv_async_send(&thread->wake);
}

void apd_link_thread_end(struct apd_link_thread **thread)
{
    struct apd_link_thread *dead = *thread;

    atomic_store(&dead->state->closing, 1);
    uv_async_send(&dead->wake);
    pthread_join(dead->thread, NULL);
    (void)uv_loop_close(&dead->loop);
    apd_frame_reader_fini(&dead->reader);
    apd_link_frame_free(dead->join);
    free(dead);
    *thread = NULL;
}
