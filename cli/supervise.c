/* See supervise.h.
 *
 * One start at a time: mpirun runs, signals and the status socket are polled; when it has ended,
 * status.json says how, and restart.c decides what comes next. What has to reach the coordinator
 * (drain) is tried until it listens; nothing else here waits for it. */
#include "cli/supervise.h"
#include "base/clock.h"
#include "cli/child.h"
#include "cli/client.h"
#include "cli/control.h"
#include "cli/fields.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/restart.h"
#include "cli/status_source.h"
#include "proto/run_dir.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WATCH_MS      500
#define PLAIN_LINE_MS 5000
#define RETRY_MS      200   /* until the coordinator listens */
#define REPLY_MS      2000  /* a reply that has begun to arrive */
#define KILL_AFTER_MS 10000 /* from INT to KILL of mpirun */

struct supervisor {
    const struct apd_supervision *setup;
    struct apd_restart restart;
    struct apd_progress progress;
    struct apd_shm shm;
    struct apd_client *client; /* NULL: not connected */
    int signals;
    pid_t mpirun; /* 0: none */
    int wait_status;
    int urgent; /* TERM, INT and HUP seen */
    int drain_asked, drain_told, stop_told;
    uint64_t kill_at_ms; /* mpirun; 0: never */
    uint64_t retry_at_ms;
    uint64_t generation; /* before this start */
    double speed_sum;
    unsigned long speed_count;
};

__attribute__((format(printf, 2, 3))) static void say(struct supervisor *s, const char *format, ...)
{
    va_list args;

    apd_progress_break(&s->progress);
    fprintf(stderr, "%s: ", s->setup->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* The status this start wrote, or NULL. */
static json_t *own_status(const struct supervisor *s)
{
    struct apd_err err = {0};
    json_t *status = NULL;

    if (apd_status_file(s->setup->run_dir, &status, &err) != APD_OK)
        return NULL;
    if (apd_field_u64(status, "generation") <= s->generation) {
        json_decref(status);
        return NULL;
    }
    return status;
}

/* The ranks end soon after their coordinator, and mpirun with them, unless it hangs: that of Open
 * MPI 4.1.4 has been seen waiting in PMIx_server_finalize for a lock that nobody gives back. */
static void disconnect(struct supervisor *s)
{
    if (s->client != NULL && s->kill_at_ms == 0)
        s->kill_at_ms = apd_now_ms() + s->setup->linger_ms;
    apd_client_close(&s->client);
    s->retry_at_ms = apd_now_ms() + RETRY_MS;
}

/* Failing is normal: the coordinator is starting or has ended. */
static void try_connect(struct supervisor *s)
{
    Advprop__V1__Watch watch = ADVPROP__V1__WATCH__INIT;
    Advprop__V1__ClientRequest request;
    struct apd_err err = {0};

    if (s->client != NULL || apd_now_ms() < s->retry_at_ms)
        return;
    watch.interval_ms = WATCH_MS;
    apd_request_init(&request, ADVPROP__V1__CLIENT_REQUEST__KIND_WATCH, &watch);
    if (apd_client_open(s->setup->run_dir, &s->client, &err) != APD_OK ||
        apd_client_send(s->client, &request, &err) != APD_OK)
        disconnect(s);
    else if (!s->stop_told)
        s->kill_at_ms = 0;
}

static void take_status(struct supervisor *s, const json_t *status)
{
    double speed = apd_field(status, "images_per_s");

    if (speed > 0 && strcmp(apd_field_text(status, "state"), "training") == 0) {
        s->speed_sum += speed;
        s->speed_count++;
    }
    if (!s->setup->quiet)
        apd_progress_show(&s->progress, status);
}

static void read_replies(struct supervisor *s)
{
    do {
        Advprop__V1__ServerReply *reply = NULL;
        struct apd_err err = {0};
        json_t *status = NULL;

        if (apd_client_next(s->client, REPLY_MS, &reply, &err) != APD_OK) {
            disconnect(s);
            return;
        }
        if (reply->kind_case == ADVPROP__V1__SERVER_REPLY__KIND_STATUS &&
            apd_reply_json(&reply->status->base, &status, &err) == APD_OK)
            take_status(s, status);
        json_decref(status);
        advprop__v1__server_reply__free_unpacked(reply, NULL);
    } while (apd_client_buffered(s->client));
}

/* Passes on what was asked of us; tried again until the coordinator has heard it. */
static void tell_coordinator(struct supervisor *s)
{
    struct apd_err err = {0};

    if (s->drain_asked && !s->drain_told)
        s->drain_told = apd_control_drain(s->setup->run_dir, &err) == APD_OK;
    if (s->urgent > 1 && !s->stop_told) {
        (void)!apd_control_stop(s->setup->run_dir, &err);
        s->stop_told = 1;
        s->kill_at_ms = apd_now_ms() + KILL_AFTER_MS;
        if (s->mpirun > 0)
            (void)kill(s->mpirun, SIGINT);
    }
    if (s->kill_at_ms != 0 && apd_now_ms() >= s->kill_at_ms && s->mpirun > 0) {
        if (!s->stop_told)
            say(s, "mpirun goes on without its coordinator: it is killed");
        (void)kill(s->mpirun, SIGKILL);
        s->kill_at_ms = 0;
    }
}

static void reap(struct supervisor *s)
{
    if (s->mpirun > 0 && waitpid(s->mpirun, &s->wait_status, WNOHANG) == s->mpirun)
        s->mpirun = 0;
}

static void take_signals(struct supervisor *s)
{
    for (int number; (number = apd_signals_next(s->signals)) != 0;) {
        if (number == SIGCHLD) {
            reap(s);
            continue;
        }
        if (number != SIGUSR1 && number != SIGUSR2)
            s->urgent++;
        if (!s->drain_asked)
            say(s, "%s: the run finishes its step and saves", strsignal(number));
        else if (s->urgent == 2 && number != SIGUSR1 && number != SIGUSR2)
            say(s, "%s again: the run stops without saving", strsignal(number));
        s->drain_asked = 1;
    }
}

static int poll_timeout(const struct supervisor *s)
{
    int asking = (s->drain_asked && !s->drain_told) || s->kill_at_ms != 0;

    return s->client == NULL || asking ? RETRY_MS : 10 * WATCH_MS;
}

static enum apd_code run_once(struct supervisor *s, const char *log, struct apd_err *err)
{
    s->drain_told = 0;
    s->retry_at_ms = 0;
    s->kill_at_ms = 0;
    APD_TRY(apd_child_start(s->setup->line, log, &s->mpirun, err));
    while (s->mpirun > 0) {
        struct pollfd fds[] = {
            {.fd = s->signals, .events = POLLIN},
            {.fd = s->client != NULL ? apd_client_fd(s->client) : -1, .events = POLLIN}};

        (void)poll(fds, 2, poll_timeout(s));
        if (fds[0].revents != 0)
            take_signals(s);
        if (fds[1].revents != 0)
            read_replies(s);
        tell_coordinator(s);
        if (s->mpirun > 0)
            try_connect(s);
    }
    disconnect(s);
    apd_progress_break(&s->progress);
    apd_shm_clean(&s->shm);
    return APD_OK;
}

static void describe_end(const struct supervisor *s, const json_t *status, char *out, size_t size)
{
    const char *cause = apd_field_text(status, "first_cause");

    if (*cause != '\0')
        (void)snprintf(out, size, "%s", cause);
    else if (WIFSIGNALED(s->wait_status))
        (void)snprintf(out, size, "mpirun was killed by signal %d", WTERMSIG(s->wait_status));
    else if (WEXITSTATUS(s->wait_status) > 128)
        (void)snprintf(out, size, "a rank was killed by signal %d",
                       WEXITSTATUS(s->wait_status) - 128);
    else
        (void)snprintf(out, size, "mpirun ended with status %d", WEXITSTATUS(s->wait_status));
}

/* Says how a start ended and what comes next. */
static void announce(struct supervisor *s, enum apd_next next, int status_code,
                     const json_t *status)
{
    char cause[640];

    describe_end(s, status, cause, sizeof cause);
    if (next == APD_NEXT_START)
        say(s, "%s; starting again (%ld of %ld)", cause, s->restart.restarts,
            s->restart.max_restarts);
    else if (status_code == APD_EXIT_RESTART &&
             (s->drain_asked || strcmp(apd_field_text(status, "state"), "done") == 0))
        say(s, "stopped at step %llu; the same command goes on from checkpoint step %llu",
            (unsigned long long)apd_field_u64(status, "step"),
            (unsigned long long)apd_field_u64(json_object_get(status, "checkpoint"), "step"));
    else if (s->restart.without_progress >= APD_RESTART_NO_PROGRESS)
        say(s, "%s; %d starts in a row made no progress: giving up (logs: %s/%s)", cause,
            s->restart.without_progress, s->setup->run_dir, APD_RUN_LOGS);
    else
        say(s, "%s (logs: %s/%s)", cause, s->setup->run_dir, APD_RUN_LOGS);
}

static void report(const struct supervisor *s, const json_t *status)
{
    double speed = s->speed_count > 0 ? s->speed_sum / (double)s->speed_count : 0;

    apd_report_print(status, s->setup->run_dir, speed, stdout);
}

static enum apd_code run_until_over(struct supervisor *s, const char *log, int *out_exit,
                                    struct apd_err *err)
{
    enum apd_next next = APD_NEXT_START;

    while (next == APD_NEXT_START) {
        json_t *status;

        APD_TRY(run_once(s, log, err));
        status = own_status(s);
        next = apd_restart_decide(&s->restart, s->wait_status, status, s->drain_asked, out_exit);
        if (next == APD_NEXT_REPORT)
            report(s, status);
        else
            announce(s, next, *out_exit, status);
        if (status != NULL)
            s->generation = apd_field_u64(status, "generation");
        json_decref(status);
        take_signals(s); /* asked while nothing ran */
        if (next == APD_NEXT_START && s->drain_asked) {
            *out_exit = APD_EXIT_RESTART;
            next = APD_NEXT_LEAVE;
        }
    }
    return APD_OK;
}

enum apd_code apd_supervise(const struct apd_supervision *supervision, int *out_exit,
                            struct apd_err *err)
{
    struct supervisor s = {.setup = supervision, .signals = -1};
    struct apd_err no_status = {0};
    char log[APD_RUN_PATH_MAX];
    json_t *before = NULL;
    enum apd_code rc;

    if (apd_status_file(supervision->run_dir, &before, &no_status) != APD_OK)
        before = NULL;
    apd_restart_init(&s.restart, supervision->max_restarts, before);
    apd_progress_init(&s.progress, stderr, PLAIN_LINE_MS);
    s.generation = apd_field_u64(before, "generation");
    if (apd_restart_complete(before)) {
        *out_exit = APD_EXIT_DONE;
        report(&s, before);
        rc = APD_OK;
        goto done;
    }
    APD_GO(apd_run_dir_path(supervision->run_dir, APD_RUN_LOGS "/mpirun.log", log, err));
    APD_GO(apd_signals_open(&s.signals, err));
    if (supervision->one_host)
        apd_shm_open(&s.shm);
    rc = run_until_over(&s, log, out_exit, err);
done:
    apd_shm_close(&s.shm);
    apd_client_close(&s.client);
    if (s.signals >= 0)
        close(s.signals);
    json_decref(before);
    return rc;
}
