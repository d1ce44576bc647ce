/* See link.h. Two sides: the functions of link.h run on the worker's threads and only touch what
 * the mutex guards (and atomics); everything of libuv runs on the link thread, woken by one async
 * handle. */
#include "worker/link.h"

#include "base/clock.h"
#include "proto/frame.h"
#include "proto/pack.h"
#include "worker/link_shards.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#define BEAT_MS        500
#define CONNECT_MS     3000  /* per address */
#define FLUSH_MS       1000  /* on close */
#define SILENT_HOST_MS 30000 /* unacknowledged for this long: the coordinator's host is gone */
#define UNSENT_BYTES   (256 * 1024)
#define STEPS_QUEUED   256
#define INPUT_BYTES    65536

enum stage { CONNECTING, JOINING, ASSIGNED, REFUSED, CANCELED, LOST };

struct item {
    struct item *next;
    uv_write_t write;
    struct apd_link *link;
    uint8_t *bytes;
    size_t size;
    int is_step;
};

struct apd_link {
    struct apd_wireup wireup;
    pthread_t thread;

    _Atomic int phase;
    _Atomic uint64_t step;
    _Atomic double images_per_s;
    _Atomic unsigned commands;

    pthread_mutex_t mutex; /* guards all down to the next blank line */
    pthread_cond_t changed;
    enum stage stage;
    char text[512]; /* why REFUSED or LOST */
    struct apd_link_assignment assignment;
    struct apd_link_shards shards;
    struct item *queue, **queue_end;
    unsigned steps_queued;
    int commit_waits, commit_answered, commit_accepted;
    uint64_t commit_step;
    char commit_text[256];
    int closing;

    uv_loop_t loop; /* of the link thread, as all below */
    uv_async_t wake;
    uv_timer_t beat, deadline;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_shutdown_t shutdown;
    unsigned address; /* index of the one being tried */
    int tcp_open, connected, shut;
    size_t unsent_bytes;
    struct apd_frame_reader reader;
    struct item *join;
    char input[INPUT_BYTES];
};

/* ---------------------------------------------------------------- queue */

static void free_item(struct item *item)
{
    free(item->bytes);
    free(item);
}

static struct item *make_item(struct apd_link *link, Advprop__V1__WorkerMessage *message)
{
    struct item *item = calloc(1, sizeof *item);
    struct apd_err err;

    if (item == NULL)
        return NULL;
    item->link = link;
    item->is_step = message->kind_case == ADVPROP__V1__WORKER_MESSAGE__KIND_STEP;
    if (apd_frame_pack(&message->base, &item->bytes, &item->size, &err) != APD_OK) {
        free(item);
        return NULL;
    }
    return item;
}

/* With the mutex held. */
static void drop_oldest_step(struct apd_link *link)
{
    struct item **at = &link->queue;

    while (*at != NULL && !(*at)->is_step)
        at = &(*at)->next;
    if (*at != NULL) {
        struct item *dead = *at;

        *at = dead->next;
        if (*at == NULL)
            link->queue_end = at;
        link->steps_queued--;
        free_item(dead);
    }
}

static struct item *take_item(struct apd_link *link)
{
    struct item *item;

    pthread_mutex_lock(&link->mutex);
    item = link->queue;
    if (item != NULL) {
        link->queue = item->next;
        if (link->queue == NULL)
            link->queue_end = &link->queue;
        link->steps_queued -= (unsigned)item->is_step;
        item->next = NULL;
    }
    pthread_mutex_unlock(&link->mutex);
    return item;
}

/* Without memory for it a report is lost; the next one tells as much. */
static void post(struct apd_link *link, Advprop__V1__WorkerMessage *message)
{
    struct item *item;

    message->generation = link->wireup.generation;
    item = make_item(link, message);
    if (item == NULL)
        return;
    pthread_mutex_lock(&link->mutex);
    if (item->is_step && link->steps_queued >= STEPS_QUEUED)
        drop_oldest_step(link);
    link->steps_queued += (unsigned)item->is_step;
    *link->queue_end = item;
    link->queue_end = &item->next;
    pthread_mutex_unlock(&link->mutex);
    uv_async_send(&link->wake);
}

/* ---------------------------------------------------------------- link thread: ending */

static void set_stage(struct apd_link *link, enum stage stage, const char *text)
{
    pthread_mutex_lock(&link->mutex);
    if (link->stage != REFUSED && link->stage != LOST) {
        link->stage = stage;
        (void)snprintf(link->text, sizeof link->text, "%s", text);
    }
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->mutex);
}

static void close_tcp(struct apd_link *link, uv_close_cb then)
{
    if (link->tcp_open) {
        link->tcp_open = 0;
        link->connected = 0;
        uv_close((uv_handle_t *)&link->tcp, then);
    }
}

static void close_once(uv_handle_t *handle)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

/* Everything leaves the loop, so that uv_run returns. Only after apd_link_close was called: until
 * then the async handle must exist. */
static void end_loop(struct apd_link *link)
{
    close_tcp(link, NULL);
    close_once((uv_handle_t *)&link->beat);
    close_once((uv_handle_t *)&link->deadline);
    close_once((uv_handle_t *)&link->wake);
}

static int is_closing(struct apd_link *link)
{
    int closing;

    pthread_mutex_lock(&link->mutex);
    closing = link->closing;
    pthread_mutex_unlock(&link->mutex);
    return closing;
}

static void lose(struct apd_link *link, const char *text)
{
    close_tcp(link, NULL);
    uv_timer_stop(&link->beat);
    uv_timer_stop(&link->deadline);
    atomic_fetch_or(&link->commands, APD_LINK_LOST);
    set_stage(link, LOST, text);
    if (is_closing(link))
        end_loop(link);
}

/* ---------------------------------------------------------------- link thread: sending */

static void flush(struct apd_link *link);

static void on_written(uv_write_t *write, int status)
{
    struct item *item = write->data;
    struct apd_link *link = item->link;

    link->unsent_bytes -= item->size;
    free_item(item);
    if (status == 0)
        flush(link);
    else if (status != UV_ECANCELED)
        lose(link, uv_strerror(status));
}

static void write_item(struct apd_link *link, struct item *item)
{
    uv_buf_t buffer = uv_buf_init((char *)item->bytes, (unsigned)item->size);
    int status;

    item->write.data = item;
    link->unsent_bytes += item->size;
    status = uv_write(&item->write, (uv_stream_t *)&link->tcp, &buffer, 1, on_written);
    if (status != 0) {
        link->unsent_bytes -= item->size;
        free_item(item);
        lose(link, uv_strerror(status));
    }
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
static void begin_shutdown(struct apd_link *link)
{
    link->shut = 1;
    uv_timer_stop(&link->beat);
    if (uv_shutdown(&link->shutdown, (uv_stream_t *)&link->tcp, on_shutdown) != 0 ||
        uv_timer_start(&link->deadline, on_flush_deadline, FLUSH_MS, 0) != 0)
        end_loop(link);
}

static void flush(struct apd_link *link)
{
    int closing = is_closing(link);
    struct item *item;

    if (!link->connected || link->shut)
        return;
    while (link->connected && (closing || link->unsent_bytes < UNSENT_BYTES) &&
           (item = take_item(link)) != NULL)
        write_item(link, item);
    if (closing && link->connected)
        begin_shutdown(link);
}

static void on_wake_up(uv_async_t *async)
{
    struct apd_link *link = async->data;

    flush(link);
    if (is_closing(link) && !link->connected)
        end_loop(link);
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
    struct apd_link *link = timer->data;
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Heartbeat beat = ADVPROP__V1__HEARTBEAT__INIT;

    if (link->unsent_bytes >= UNSENT_BYTES)
        return; /* what is queued says that we live */
    beat.phase = (Advprop__V1__Phase)atomic_load(&link->phase);
    beat.step = atomic_load(&link->step);
    beat.images_per_s = atomic_load(&link->images_per_s);
    beat.rss_bytes = resident_bytes();
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_HEARTBEAT;
    message.heartbeat = &beat;
    post(link, &message);
}

/* ---------------------------------------------------------------- link thread: receiving */

static void copy_text(char *out, size_t size, const char *text)
{
    (void)snprintf(out, size, "%s", text);
}

static void take_assignment(struct apd_link *link, uint64_t generation,
                            const Advprop__V1__Assignment *told)
{
    struct apd_link_assignment *to = &link->assignment;

    pthread_mutex_lock(&link->mutex);
    *to = (struct apd_link_assignment){.generation = generation,
                                       .worker = told->worker,
                                       .workers = told->workers,
                                       .lane_first = told->lane_first,
                                       .lane_count = told->lane_count};
    copy_text(to->plan_digest, sizeof to->plan_digest, told->plan_digest);
    if (told->resume != NULL) {
        to->resume = 1;
        to->resume_step = told->resume->step;
        copy_text(to->resume_path, sizeof to->resume_path, told->resume->path);
        copy_text(to->resume_sha256, sizeof to->resume_sha256, told->resume->sha256);
    }
    pthread_mutex_unlock(&link->mutex);
    set_stage(link, ASSIGNED, "");
}

static void take_shards(struct apd_link *link, const Advprop__V1__ShardAssignment *told)
{
    pthread_mutex_lock(&link->mutex);
    for (size_t i = 0; i < told->n_lane; i++)
        if (!apd_link_shards_add(&link->shards, told->lane[i]))
            break; /* no memory: the lane stays unknown */
    pthread_mutex_unlock(&link->mutex);
}

static void take_committed(struct apd_link *link, const Advprop__V1__CheckpointCommitted *told)
{
    pthread_mutex_lock(&link->mutex);
    if (link->commit_waits && told->step == link->commit_step) {
        link->commit_answered = 1;
        link->commit_accepted = told->accepted;
        copy_text(link->commit_text, sizeof link->commit_text, told->text);
        pthread_cond_broadcast(&link->changed);
    }
    pthread_mutex_unlock(&link->mutex);
}

static void take_command(struct apd_link *link, Advprop__V1__CommandKind kind)
{
    int assigned;

    pthread_mutex_lock(&link->mutex);
    assigned = link->stage == ASSIGNED;
    pthread_mutex_unlock(&link->mutex);
    switch (kind) {
    case ADVPROP__V1__COMMAND_KIND__COMMAND_CHECKPOINT:
        atomic_fetch_or(&link->commands, APD_LINK_CHECKPOINT);
        return;
    case ADVPROP__V1__COMMAND_KIND__COMMAND_DRAIN:
        atomic_fetch_or(&link->commands, APD_LINK_DRAIN);
        break;
    case ADVPROP__V1__COMMAND_KIND__COMMAND_STOP:
        atomic_fetch_or(&link->commands, APD_LINK_STOP);
        break;
    default:
        return; /* of a later version */
    }
    if (!assigned)
        set_stage(link, CANCELED, "the run was asked to end before it began");
}

static void take_message(struct apd_link *link, const Advprop__V1__CoordinatorMessage *message)
{
    if (message->generation != link->wireup.generation) {
        lose(link, "a message of another generation");
        return;
    }
    switch (message->kind_case) {
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_ASSIGNMENT:
        take_assignment(link, message->generation, message->assignment);
        break;
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_SHARDS:
        take_shards(link, message->shards);
        break;
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_COMMAND:
        take_command(link, message->command->kind);
        break;
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_COMMITTED:
        take_committed(link, message->committed);
        break;
    case ADVPROP__V1__COORDINATOR_MESSAGE__KIND_REFUSED:
        set_stage(link, REFUSED, message->refused->text);
        lose(link, message->refused->text);
        break;
    default:
        break; /* of a later version */
    }
}

static void take_frame(struct apd_link *link, const uint8_t *frame, size_t size)
{
    Advprop__V1__CoordinatorMessage *message =
        advprop__v1__coordinator_message__unpack(NULL, size, frame);

    if (message == NULL) {
        lose(link, "a frame that is no CoordinatorMessage");
        return;
    }
    take_message(link, message);
    advprop__v1__coordinator_message__free_unpacked(message, NULL);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct apd_link *link = handle->data;

    (void)suggested;
    *out = uv_buf_init(link->input, sizeof link->input);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct apd_link *link = stream->data;
    const uint8_t *bytes = (const uint8_t *)buffer->base, *frame;
    size_t size = n > 0 ? (size_t)n : 0, used, frame_size;
    struct apd_err err;

    if (n < 0)
        lose(link, n == UV_EOF ? "the coordinator closed the connection" : uv_strerror((int)n));
    while (size > 0 && link->connected) {
        if (apd_frame_feed(&link->reader, bytes, size, &used, &frame, &frame_size, &err) !=
            APD_OK) {
            lose(link, err.msg);
            return;
        }
        bytes += used;
        size -= used;
        if (frame != NULL)
            take_frame(link, frame, frame_size);
    }
}

/* ---------------------------------------------------------------- link thread: connecting */

static void try_address(struct apd_link *link);

static void on_closed_try_next(uv_handle_t *handle)
{
    struct apd_link *link = handle->data;

    link->address++;
    try_address(link);
}

static void give_up_address(struct apd_link *link, const char *why)
{
    pthread_mutex_lock(&link->mutex); /* told if no other address works either */
    (void)snprintf(link->text, sizeof link->text, "connecting to %s port %u: %s",
                   link->wireup.address[link->address], link->wireup.port, why);
    pthread_mutex_unlock(&link->mutex);
    uv_timer_stop(&link->deadline);
    close_tcp(link, on_closed_try_next);
}

static void on_connect_deadline(uv_timer_t *timer)
{
    give_up_address(timer->data, "no answer");
}

static void set_socket_options(struct apd_link *link)
{
    unsigned limit = SILENT_HOST_MS;
    uv_os_fd_t fd;

    /* Without them it works, only slower or with a later verdict on a dead host. */
    (void)uv_tcp_nodelay(&link->tcp, 1);
    (void)uv_tcp_keepalive(&link->tcp, 1, 10);
    if (uv_fileno((uv_handle_t *)&link->tcp, &fd) == 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit, sizeof limit);
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct apd_link *link = connect->data;
    struct item *join = link->join;

    if (status == UV_ECANCELED)
        return; /* its deadline was first */
    uv_timer_stop(&link->deadline);
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&link->tcp, on_alloc, on_read);
    if (status != 0) {
        give_up_address(link, uv_strerror(status));
        return;
    }
    link->connected = 1;
    set_socket_options(link);
    set_stage(link, JOINING, "");
    link->join = NULL;
    write_item(link, join);
    (void)uv_timer_start(&link->beat, on_beat, 0, BEAT_MS);
    flush(link);
}

static int connect_to(struct apd_link *link, const char *address)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    const struct sockaddr *to = (const struct sockaddr *)&v4;
    int status = uv_ip4_addr(address, (int)link->wireup.port, &v4);

    if (status != 0) {
        status = uv_ip6_addr(address, (int)link->wireup.port, &v6);
        to = (const struct sockaddr *)&v6;
    }
    if (status == 0)
        status = uv_timer_start(&link->deadline, on_connect_deadline, CONNECT_MS, 0);
    if (status == 0)
        status = uv_tcp_connect(&link->connect, &link->tcp, to, on_connected);
    return status;
}

static void try_address(struct apd_link *link)
{
    int status;

    if (is_closing(link)) {
        end_loop(link);
        return;
    }
    if (link->address >= APD_WIREUP_ADDRESSES || link->wireup.address[link->address][0] == '\0') {
        char text[sizeof link->text];

        pthread_mutex_lock(&link->mutex);
        copy_text(text, sizeof text, link->address > 0 ? link->text : "no address to connect to");
        pthread_mutex_unlock(&link->mutex);
        lose(link, text);
        return;
    }
    (void)uv_tcp_init(&link->loop, &link->tcp); /* cannot fail: no descriptor is made yet */
    link->tcp.data = link;
    link->tcp_open = 1;
    status = connect_to(link, link->wireup.address[link->address]);
    if (status != 0)
        give_up_address(link, uv_strerror(status));
}

static void *run(void *arg)
{
    struct apd_link *link = arg;

    try_address(link);
    (void)uv_run(&link->loop, UV_RUN_DEFAULT);
    return NULL;
}

/* ---------------------------------------------------------------- the worker's threads */

void apd_link_phase(struct apd_link *link, Advprop__V1__Phase phase)
{
    atomic_store_explicit(&link->phase, (int)phase, memory_order_relaxed);
}

void apd_link_progress(struct apd_link *link, uint64_t step, double images_per_s)
{
    atomic_store_explicit(&link->step, step, memory_order_relaxed);
    atomic_store_explicit(&link->images_per_s, images_per_s, memory_order_relaxed);
}

void apd_link_report_step(struct apd_link *link, const Advprop__V1__StepReport *report)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;

    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_STEP;
    message.step = (Advprop__V1__StepReport *)report;
    post(link, &message);
}

void apd_link_report_receipt(struct apd_link *link, const Advprop__V1__Receipt *receipt)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;

    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_RECEIPT;
    message.receipt = (Advprop__V1__Receipt *)receipt;
    post(link, &message);
}

void apd_link_report_evaluation(struct apd_link *link, const Advprop__V1__Evaluation *evaluation)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;

    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_EVALUATION;
    message.evaluation = (Advprop__V1__Evaluation *)evaluation;
    post(link, &message);
}

unsigned apd_link_commands(struct apd_link *link)
{
    return atomic_fetch_and(&link->commands, ~(unsigned)APD_LINK_CHECKPOINT);
}

static struct timespec deadline_in(uint64_t ms)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)(ms / 1000);
    at.tv_nsec += (long)(ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

enum apd_code apd_link_commit(struct apd_link *link, const Advprop__V1__CheckpointWritten *written,
                              uint64_t timeout_ms, struct apd_err *err)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    struct timespec until = deadline_in(timeout_ms);
    enum apd_code rc = APD_OK;
    int late = 0;

    if (written->info == NULL)
        return apd_fail(err, APD_BUG, "a checkpoint without a description");
    pthread_mutex_lock(&link->mutex);
    link->commit_waits = 1;
    link->commit_answered = 0;
    link->commit_step = written->info->step;
    pthread_mutex_unlock(&link->mutex);
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_WRITTEN;
    message.written = (Advprop__V1__CheckpointWritten *)written;
    post(link, &message);
    pthread_mutex_lock(&link->mutex);
    while (!link->commit_answered && link->stage == ASSIGNED && late == 0)
        late = pthread_cond_timedwait(&link->changed, &link->mutex, &until);
    if (link->commit_answered && !link->commit_accepted)
        rc = apd_fail(err, APD_CANCELED, "the coordinator refuses the checkpoint: %s",
                      link->commit_text);
    else if (!link->commit_answered && link->stage != ASSIGNED)
        rc = apd_fail(err, APD_PEER, "the coordinator is gone: %s", link->text);
    else if (!link->commit_answered)
        rc = apd_fail(err, APD_TIMEOUT, "no answer to a checkpoint within %llu ms",
                      (unsigned long long)timeout_ms);
    link->commit_waits = 0;
    pthread_mutex_unlock(&link->mutex);
    return rc;
}

int apd_link_shards(struct apd_link *link, uint32_t epoch, uint32_t lane, uint32_t cap,
                    uint32_t *out_shards, int *out_truncated)
{
    const struct apd_link_lane *found;
    int count = -1;

    pthread_mutex_lock(&link->mutex);
    found = apd_link_shards_find(&link->shards, epoch, lane);
    if (found != NULL) {
        count = (int)found->count;
        *out_truncated = found->truncated;
        if (found->count > 0)
            memcpy(out_shards, found->shard,
                   (found->count < cap ? found->count : cap) * sizeof *out_shards);
    }
    pthread_mutex_unlock(&link->mutex);
    return count;
}

/* ---------------------------------------------------------------- life */

static enum apd_code pack_join(struct apd_link *link, const Advprop__V1__Join *join,
                               struct apd_err *err)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Join copy = *join;

    copy.secret.data = link->wireup.secret;
    copy.secret.len = sizeof link->wireup.secret;
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_JOIN;
    message.join = &copy;
    link->join = make_item(link, &message);
    if (link->join == NULL)
        return apd_fail(err, APD_DATA, "the list of %zu shards does not fit a frame",
                        join->n_shard_samples);
    return APD_OK;
}

static enum apd_code init_loop(struct apd_link *link, struct apd_err *err)
{
    int status = uv_loop_init(&link->loop);

    if (status == 0) {
        status = uv_async_init(&link->loop, &link->wake, on_wake_up);
        if (status != 0)
            (void)uv_loop_close(&link->loop);
    }
    if (status != 0)
        return apd_fail(err, APD_IO, "the link's event loop: %s", uv_strerror(status));
    (void)uv_timer_init(&link->loop, &link->beat); /* cannot fail */
    (void)uv_timer_init(&link->loop, &link->deadline);
    link->wake.data = link;
    link->beat.data = link;
    link->deadline.data = link;
    link->connect.data = link;
    return APD_OK;
}

/* Signals stay with the worker's own threads. */
static enum apd_code start_thread(struct apd_link *link, struct apd_err *err)
{
    sigset_t all, before;
    int status;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    status = pthread_create(&link->thread, NULL, run, link);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status != 0)
        return apd_fail(err, APD_IO, "the link's thread: %s", strerror(status));
    return APD_OK;
}

static void init_locks(struct apd_link *link)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&link->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&link->changed, &attr);
    pthread_condattr_destroy(&attr);
}

static void free_link(struct apd_link *link)
{
    struct item *item;

    while ((item = take_item(link)) != NULL)
        free_item(item);
    if (link->join != NULL)
        free_item(link->join);
    apd_frame_reader_fini(&link->reader);
    apd_link_shards_fini(&link->shards);
    pthread_cond_destroy(&link->changed);
    pthread_mutex_destroy(&link->mutex);
    explicit_bzero(&link->wireup, sizeof link->wireup);
    free(link);
}

static enum apd_code create(const struct apd_wireup *wireup, const Advprop__V1__Join *join,
                            struct apd_link **out, struct apd_err *err)
{
    struct apd_link *link = calloc(1, sizeof *link);
    enum apd_code rc;

    if (link == NULL)
        return apd_fail(err, APD_NOMEM, "the link to the coordinator");
    link->wireup = *wireup;
    link->queue_end = &link->queue;
    link->reader.cap = APD_FRAME_CAP_ACCEPTED;
    atomic_store(&link->phase, ADVPROP__V1__PHASE__PHASE_STARTING);
    init_locks(link);
    rc = pack_join(link, join, err);
    if (rc == APD_OK)
        rc = init_loop(link, err);
    if (rc != APD_OK) {
        free_link(link);
        return rc;
    }
    rc = start_thread(link, err);
    if (rc != APD_OK) {
        end_loop(link);
        (void)uv_run(&link->loop, UV_RUN_DEFAULT);
        (void)uv_loop_close(&link->loop);
        free_link(link);
        return rc;
    }
    *out = link;
    return APD_OK;
}

/* Waits for the coordinator's verdict on our Join. */
static enum apd_code wait_assignment(struct apd_link *link, uint64_t timeout_ms,
                                     struct apd_link_assignment *out, struct apd_err *err)
{
    struct timespec until = deadline_in(timeout_ms);
    enum apd_code rc = APD_OK;
    int late = 0;

    pthread_mutex_lock(&link->mutex);
    while ((link->stage == CONNECTING || link->stage == JOINING) && late == 0)
        late = pthread_cond_timedwait(&link->changed, &link->mutex, &until);
    switch (link->stage) {
    case ASSIGNED:
        *out = link->assignment;
        break;
    case REFUSED:
        rc = apd_fail(err, APD_CONFIG, "the coordinator refuses this worker: %s", link->text);
        break;
    case CANCELED:
        rc = apd_fail(err, APD_CANCELED, "%s", link->text);
        break;
    case LOST:
        rc = apd_fail(err, APD_PEER, "the coordinator is gone: %s", link->text);
        break;
    default:
        rc = apd_fail(err, APD_TIMEOUT, "no assignment within %llu ms",
                      (unsigned long long)timeout_ms);
        break;
    }
    pthread_mutex_unlock(&link->mutex);
    return rc;
}

enum apd_code apd_link_open(const struct apd_wireup *wireup, const Advprop__V1__Join *join,
                            uint64_t timeout_ms, struct apd_link **out,
                            struct apd_link_assignment *out_assignment, struct apd_err *err)
{
    struct apd_link *link;
    enum apd_code rc;

    APD_TRY(create(wireup, join, &link, err));
    rc = wait_assignment(link, timeout_ms, out_assignment, err);
    if (rc == APD_OK)
        *out = link;
    else
        apd_link_close(&link, apd_exit_status(rc), rc == APD_CANCELED ? NULL : err);
    return rc;
}

static void post_leaving(struct apd_link *link, int exit_status)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Leaving leaving = ADVPROP__V1__LEAVING__INIT;

    leaving.exit_status = exit_status;
    leaving.step = atomic_load(&link->step);
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_LEAVING;
    message.leaving = &leaving;
    post(link, &message);
}

static void post_failure(struct apd_link *link, int exit_status, const struct apd_err *why)
{
    Advprop__V1__WorkerMessage message = ADVPROP__V1__WORKER_MESSAGE__INIT;
    Advprop__V1__Failure failure = ADVPROP__V1__FAILURE__INIT;

    failure.exit_status = exit_status;
    failure.phase = (Advprop__V1__Phase)atomic_load(&link->phase);
    failure.step = atomic_load(&link->step);
    failure.text = (char *)why->msg;
    message.kind_case = ADVPROP__V1__WORKER_MESSAGE__KIND_FAILURE;
    message.failure = &failure;
    post(link, &message);
}

void apd_link_close(struct apd_link **link, int exit_status, const struct apd_err *err)
{
    struct apd_link *dead = *link;

    if (dead == NULL)
        return;
    if (err != NULL)
        post_failure(dead, exit_status, err);
    else
        post_leaving(dead, exit_status);
    pthread_mutex_lock(&dead->mutex);
    dead->closing = 1;
    pthread_mutex_unlock(&dead->mutex);
    uv_async_send(&dead->wake);
    pthread_join(dead->thread, NULL);
    (void)uv_loop_close(&dead->loop);
    free_link(dead);
    *link = NULL;
}
