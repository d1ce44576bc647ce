/* Ranks that are processes, and a communicator for their host memory. */
#include "tests/emu/ranks.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BOARD_BYTES = 4096, DEADLINE_S = 20 };

/* Where each rank leaves what the others take; a call is one round. */
struct board {
    _Atomic long written[RANKS_MAX], read[RANKS_MAX];
    char data[RANKS_MAX][RANKS_MAX][BOARD_BYTES]; /* [from][to] */
};

struct ranks_run {
    int n, out[RANKS_MAX];
    pid_t pid[RANKS_MAX];
    struct board *board;
    double since_s;
};

struct host_comm {
    struct apd_comm base;
    struct board *board;
};

static void wait_all(const _Atomic long *counter, int n, long value)
{
    double since_s = apd_now_s();

    for (int r = 0; r < n; r++)
        while (atomic_load(&counter[r]) < value) {
            if (apd_now_s() - since_s > DEADLINE_S) {
                fprintf(stderr, "rank %d does not come\n", r);
                _exit(99);
            }
            sched_yield();
        }
}

static enum apd_code host_exchange(struct apd_comm *comm, size_t row_bytes, const void *send,
                                   const int *send_rows, void *recv, const int *recv_rows,
                                   struct apd_err *err)
{
    struct board *board = ((struct host_comm *)comm)->board;
    const char *from = send;
    char *to = recv;
    long round = atomic_load(&board->read[comm->rank]);

    wait_all(board->read, comm->size, round);
    for (int r = 0; r < comm->size; r++) {
        size_t bytes = row_bytes * (size_t)send_rows[r];

        if (bytes > BOARD_BYTES)
            return apd_fail(err, APD_BUG, "%zu bytes", bytes);
        memcpy(board->data[comm->rank][r], from, bytes);
        from += bytes;
    }
    atomic_store(&board->written[comm->rank], round + 1);
    wait_all(board->written, comm->size, round + 1);
    for (int r = 0; r < comm->size; r++) {
        size_t bytes = row_bytes * (size_t)recv_rows[r];

        memcpy(to, board->data[r][comm->rank], bytes);
        to += bytes;
    }
    atomic_store(&board->read[comm->rank], round + 1);
    return APD_OK;
}

/* One double. */
static enum apd_code host_sum(struct apd_comm *comm, void *buf, size_t n, enum apd_sum_type type,
                              struct apd_err *err)
{
    double all[RANKS_MAX], own[RANKS_MAX], sum = 0;
    int one[RANKS_MAX];

    if (n != 1 || type != APD_SUM_F64)
        return apd_fail(err, APD_BUG, "a sum of %zu", n);
    for (int r = 0; r < comm->size; r++) {
        one[r] = 1;
        memcpy(&own[r], buf, sizeof(double));
    }
    APD_TRY(host_exchange(comm, sizeof(double), own, one, all, one, err));
    for (int r = 0; r < comm->size; r++)
        sum += all[r];
    memcpy(buf, &sum, sizeof sum);
    return APD_OK;
}

static enum apd_code host_wait(struct apd_comm *comm, struct apd_err *err)
{
    (void)comm, (void)err;
    return APD_OK;
}

static const struct apd_comm_ops host_ops = {
    .sum_start = host_sum, .sum_wait = host_wait, .exchange_rows = host_exchange};

static void run_rank(struct ranks_run *run, int rank, ranks_scenario *scenario, void *arg,
                     const char *const *settings)
{
    struct host_comm host = {.base = {.ops = &host_ops, .rank = rank, .size = run->n},
                             .board = run->board};

    dup2(run->out[rank], STDERR_FILENO);
    for (; settings != NULL && *settings != NULL; settings++)
        putenv((char *)*settings);
    _exit(scenario(&host.base, arg));
}

struct ranks_run *ranks_start(int n, ranks_scenario *scenario, void *arg,
                              const char *const *settings)
{
    struct ranks_run *run = calloc(1, sizeof *run);

    if (run == NULL)
        abort();
    run->n = n;
    run->since_s = apd_now_s();
    run->board =
        mmap(NULL, sizeof *run->board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (run->board == MAP_FAILED)
        abort();
    fflush(NULL);
    for (int r = 0; r < n; r++) {
        run->out[r] = memfd_create("stderr", MFD_CLOEXEC);
        run->pid[r] = fork();
        if (run->out[r] < 0 || run->pid[r] < 0)
            abort();
        if (run->pid[r] == 0)
            run_rank(run, r, scenario, arg, settings);
    }
    return run;
}

static int reap(struct ranks_run *run, int r)
{
    struct timespec pause = {.tv_nsec = 1000000};
    int status;

    while (waitpid(run->pid[r], &status, WNOHANG) == 0) {
        if (apd_now_s() - run->since_s > DEADLINE_S) {
            kill(run->pid[r], SIGKILL);
            waitpid(run->pid[r], &status, 0);
            return RANKS_STUCK;
        }
        nanosleep(&pause, NULL);
    }
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

struct ranks_end ranks_wait(struct ranks_run *run)
{
    struct ranks_end end = {0};

    for (int r = 0; r < run->n; r++) {
        end.status[r] = reap(run, r);
        if (pread(run->out[r], end.text[r], sizeof end.text[r] - 1, 0) < 0)
            abort();
        close(run->out[r]);
    }
    munmap(run->board, sizeof *run->board);
    free(run);
    return end;
}
