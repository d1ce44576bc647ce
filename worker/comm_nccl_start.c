/* How the NCCL communicator begins and ends, and what NCCL says when something is wrong.
 *
 * Everything that waits for NCCL has a deadline. A communicator that failed is aborted, never
 * finalized: finalizing waits for the other workers. */
#include "worker/comm_nccl_private.h"

#include "base/clock.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ABORT_S = 5, OLDEST = NCCL_VERSION(2, 18, 0) };

/* ---------------------------------------------------------------- errors and waiting */

static enum apd_code code_of(const struct comm_nccl *self, ncclResult_t status)
{
    switch (status) {
    case ncclUnhandledCudaError:
        return APD_DEVICE;
    case ncclInvalidUsage:
        return self->started ? APD_BUG : APD_CONFIG;
    case ncclInvalidArgument:
        return APD_BUG;
    default:
        return APD_PEER;
    }
}

/* NCCL's own account of the last error, on one line. */
static void last_words(const struct comm_nccl *self, char *out, size_t size)
{
    const char *words = ncclGetLastError(self->nccl);
    size_t n;

    snprintf(out, size, "%s", words != NULL ? words : "");
    for (n = strlen(out); n > 0 && (unsigned char)out[n - 1] <= ' '; n--)
        out[n - 1] = '\0';
    for (char *c = out; *c != '\0'; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
}

static enum apd_code fail_nccl(struct comm_nccl *self, ncclResult_t status, const char *call,
                               struct apd_err *err)
{
    char words[256];
    enum apd_code code = code_of(self, status);

    self->failed = 1;
    last_words(self, words, sizeof words);
    if (strstr(words, "Duplicate GPU") != NULL)
        code = apd_fail(
            err, APD_DEVICE,
            "two workers have the same GPU and NCCL needs one for each: start no more workers on a "
            "host than it has GPUs, and show each either all of them or its own (%s)",
            words);
    else
        (void)apd_fail(err, code, "worker %d of %d: %s: %s%s%s%s", self->base.rank, self->base.size,
                       call, ncclGetErrorString(status), words[0] != '\0' ? " (" : "", words,
                       words[0] != '\0' ? ")" : "");
    err->sys = (int)status;
    return code;
}

/* Most calls are done in microseconds; a start takes seconds. */
static void pause_after(double waited_s)
{
    struct timespec pause = {.tv_nsec = 1000000};

    if (waited_s < 0.001)
        sched_yield();
    else
        nanosleep(&pause, NULL);
}

static enum apd_code go_on_waiting(struct comm_nccl *self, double since_s, const char *call,
                                   struct apd_err *err)
{
    double waited_s = apd_now_s() - since_s;

    if (waited_s > self->timeout_s) {
        self->failed = 1;
        return apd_fail(err, APD_TIMEOUT, "worker %d of %d: %s is not done after %.3g s",
                        self->base.rank, self->base.size, call, self->timeout_s);
    }
    pause_after(waited_s);
    return APD_OK;
}

static enum apd_code settle(struct comm_nccl *self, const char *call, struct apd_err *err)
{
    double since_s = apd_now_s();
    ncclResult_t status, state = ncclInProgress;

    for (;;) {
        status = ncclCommGetAsyncError(self->nccl, &state);
        if (status != ncclSuccess)
            return fail_nccl(self, status, call, err);
        if (state == ncclSuccess)
            return APD_OK;
        if (state != ncclInProgress)
            return fail_nccl(self, state, call, err);
        APD_TRY(go_on_waiting(self, since_s, call, err));
    }
}

enum apd_code apd_nccl_check(struct comm_nccl *self, ncclResult_t status, const char *call,
                             struct apd_err *err)
{
    if (status == ncclSuccess)
        return APD_OK;
    if (status != ncclInProgress)
        return fail_nccl(self, status, call, err);
    return self->in_group ? APD_OK : settle(self, call, err);
}

enum apd_code apd_nccl_poll(struct comm_nccl *self, struct apd_err *err)
{
    ncclResult_t state = ncclSuccess, status = ncclCommGetAsyncError(self->nccl, &state);

    if (status == ncclSuccess)
        status = state;
    if (status == ncclSuccess || status == ncclInProgress)
        return APD_OK;
    return fail_nccl(self, status, "NCCL", err);
}

enum apd_code apd_nccl_wait_stream(struct comm_nccl *self, struct apd_err *err)
{
    double since_s = apd_now_s();

    for (;;) {
        cudaError_t status = cudaStreamQuery(self->stream);

        if (status != cudaErrorNotReady)
            return apd_cuda_check(status, "cudaStreamQuery(self->stream)", err);
        APD_TRY(apd_nccl_poll(self, err));
        APD_TRY(go_on_waiting(self, since_s, "an NCCL operation", err));
    }
}

/* ---------------------------------------------------------------- start */

static enum apd_code check_version(struct comm_nccl *self, struct apd_err *err)
{
    int version = 0, old;

    NCCL_TRY(self, ncclGetVersion(&version));
    old = version < 10000; /* up to 2.8 versions had a digit less */
    if (version >= OLDEST && version / 10000 == NCCL_MAJOR)
        return APD_OK;
    return apd_fail(err, APD_DEVICE,
                    "NCCL %d.%d.%d was found where 2.18 or newer, below %d, is needed (built with "
                    "%d.%d.%d)",
                    version / (old ? 1000 : 10000), version / 100 % (old ? 10 : 100), version % 100,
                    NCCL_MAJOR + 1, NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH);
}

static enum apd_code make_stream(struct comm_nccl *self, struct apd_err *err)
{
    int least, greatest;

    /* What peers wait for goes first. */
    CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CUDA_TRY(cudaStreamCreateWithPriority(&self->stream, cudaStreamNonBlocking, greatest));
    CUDA_TRY(cudaEventCreateWithFlags(&self->forked, cudaEventDisableTiming));
    CUDA_TRY(cudaEventCreateWithFlags(&self->joined, cudaEventDisableTiming));
    return APD_OK;
}

/* Variables of NCCL that all workers must have alike. */
static const char *const agreed[] = {"NCCL_ALGO", "NCCL_MAX_P2P_NCHANNELS"};

enum { AGREED = sizeof agreed / sizeof *agreed, VALUE_BYTES = 256 };

/* What worker 0 tells all. */
struct greeting {
    ncclUniqueId id;
    char value[AGREED][VALUE_BYTES]; /* "": not set */
};

/* Unless the user wants others: only the algorithms that add in a fixed order; and few channels
 * between two workers, for each takes memory of the GPU. */
static enum apd_code greet(struct comm_nccl *self, int deterministic, struct greeting *out,
                           struct apd_err *err)
{
    if (deterministic && setenv("NCCL_ALGO", "Ring,Tree", 0) != 0)
        return apd_fail_errno(err, "setenv NCCL_ALGO");
    if (setenv("NCCL_MAX_P2P_NCHANNELS", "8", 0) != 0)
        return apd_fail_errno(err, "setenv NCCL_MAX_P2P_NCHANNELS");
    for (int i = 0; i < AGREED; i++) {
        const char *value = getenv(agreed[i]);

        if (value != NULL && strlen(value) >= VALUE_BYTES)
            return apd_fail(err, APD_CONFIG, "%s is longer than %d bytes", agreed[i],
                            VALUE_BYTES - 1);
        (void)snprintf(out->value[i], VALUE_BYTES, "%s", value != NULL ? value : "");
    }
    NCCL_TRY(self, ncclGetUniqueId(&out->id));
    return APD_OK;
}

static enum apd_code adopt(const struct greeting *greeting, struct apd_err *err)
{
    for (int i = 0; i < AGREED; i++) {
        const char *value = greeting->value[i];

        if (value[0] == '\0' ? unsetenv(agreed[i]) : setenv(agreed[i], value, 1))
            return apd_fail_errno(err, "setenv %s", agreed[i]);
    }
    return APD_OK;
}

/* What a worker can do alone. */
static enum apd_code prepare(struct comm_nccl *self, int deterministic, struct greeting *greeting,
                             struct apd_err *err)
{
    APD_TRY(check_version(self, err));
    APD_TRY(make_stream(self, err));
    return self->base.rank == 0 ? greet(self, deterministic, greeting, err) : APD_OK;
}

/* Worker 0's to all. */
static enum apd_code spread(struct apd_comm *host, struct greeting *greeting, struct apd_err *err)
{
    size_t size = (size_t)host->size;
    int *rows = calloc(2 * size, sizeof *rows);
    struct greeting *greetings = calloc(size, sizeof *greetings);
    enum apd_code rc;

    if (rows == NULL || greetings == NULL) {
        rc = apd_fail(err, APD_NOMEM, "greetings for %zu workers", size);
        goto done;
    }
    for (size_t w = 0; w < size && host->rank == 0; w++) {
        rows[w] = 1;
        greetings[w] = *greeting;
    }
    rows[size] = 1;
    rc = host->ops->exchange_rows(host, sizeof *greeting, greetings, rows, greeting, rows + size,
                                  err);
done:
    free(rows);
    free(greetings);
    return rc;
}

/* All go on or none; also, when this returns, every worker has got the id, and none is left waiting
 * for MPI while the others wait for NCCL. */
static enum apd_code agree(struct apd_comm *host, enum apd_code prepared, struct apd_err *err)
{
    double failures = prepared != APD_OK;
    struct apd_err host_err = {0};
    enum apd_code rc = apd_comm_sum(host, &failures, 1, APD_SUM_F64, &host_err);

    if (prepared != APD_OK)
        return prepared;
    if (rc != APD_OK) {
        *err = host_err;
        return rc;
    }
    if (failures > 0)
        return apd_fail(err, APD_PEER, "worker %d of %d: %.0f other workers cannot use NCCL",
                        host->rank, host->size, failures);
    return APD_OK;
}

/* The first sum makes the connections and shows that they work. All on our stream: nothing else
 * comes before it, and a sum that hangs may leave a copy behind, whose memory lives as long. */
static enum apd_code try_sum(struct comm_nccl *self, struct apd_err *err)
{
    double *device = NULL, *sum = &self->first_sum;
    enum apd_code rc;

    *sum = 1;
    CUDA_GO(cudaMalloc((void **)&device, sizeof *sum));
    CUDA_GO(cudaMemcpyAsync(device, sum, sizeof *sum, cudaMemcpyHostToDevice, self->stream));
    APD_GO(apd_nccl_check(
        self, ncclAllReduce(device, device, 1, ncclFloat64, ncclSum, self->nccl, self->stream),
        "the first ncclAllReduce", err));
    APD_GO(apd_nccl_wait_stream(self, err)); /* which has a deadline, a copy has none */
    CUDA_GO(cudaMemcpyAsync(sum, device, sizeof *sum, cudaMemcpyDeviceToHost, self->stream));
    APD_GO(apd_nccl_wait_stream(self, err));
    if (*sum != self->base.size)
        rc = apd_fail(err, APD_DEVICE, "worker %d of %d: NCCL's sum of ones over all workers is %g",
                      self->base.rank, self->base.size, *sum);
done:
    if (rc == APD_OK)
        cudaFree(device); /* would wait for a sum that hangs */
    return rc;
}

static enum apd_code join(struct comm_nccl *self, ncclUniqueId id, struct apd_err *err)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;

    config.blocking = 0;
    NCCL_TRY(self,
             ncclCommInitRankConfig(&self->nccl, self->base.size, id, self->base.rank, &config));
    self->started = 1;
    return try_sum(self, err);
}

enum apd_code apd_nccl_start(struct comm_nccl *self, struct apd_comm *host, int deterministic,
                             struct apd_err *err)
{
    struct greeting greeting = {0};
    struct apd_err spread_err = {0};
    enum apd_code rc = prepare(self, deterministic, &greeting, err);
    enum apd_code told = spread(host, &greeting, &spread_err);

    if (rc == APD_OK && told != APD_OK) {
        *err = spread_err;
        rc = told;
    }
    if (rc == APD_OK)
        rc = adopt(&greeting, err);
    APD_TRY(agree(host, rc, err));
    rc = join(self, greeting.id, err);
    if (rc != APD_OK)
        self->failed = 1;
    return rc;
}

/* ---------------------------------------------------------------- end */

static void *abort_main(void *nccl)
{
    (void)ncclCommAbort(nccl);
    return NULL;
}

/* On a thread of its own: should NCCL hang in it, we go on. */
int apd_nccl_kill(struct comm_nccl *self)
{
    struct timespec until;
    pthread_t thread;

    if (self->nccl == NULL)
        return 1;
    if (pthread_create(&thread, NULL, abort_main, self->nccl) != 0)
        return 0;
    self->nccl = NULL;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ABORT_S;
    if (pthread_timedjoin_np(thread, NULL, &until) == 0)
        return 1;
    pthread_detach(thread);
    return 0;
}

static enum apd_code finalize(struct comm_nccl *self, struct apd_err *err)
{
    APD_TRY(apd_nccl_wait_stream(self, err));
    NCCL_TRY(self, ncclCommFinalize(self->nccl));
    return APD_OK;
}

int apd_nccl_end(struct comm_nccl *self)
{
    struct apd_err err = {0};

    if (self->nccl == NULL)
        return 1;
    if (self->failed || finalize(self, &err) != APD_OK)
        return apd_nccl_kill(self);
    (void)ncclCommDestroy(self->nccl);
    self->nccl = NULL;
    return 1;
}
