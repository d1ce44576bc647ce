/* Operations of the stand-in libnccl.so.2 while they run: attempts that go as far as the other
 * ranks let them, injected faults, and checks that all ranks do the same.
 *
 * STANDIN_NCCL_FAIL=rank:number[:kind]  The number-th operation (from 1; a group is one, and every
 *     launch of a graph counts anew) of the process with that rank:
 *       error   sets the asynchronous error ncclRemoteError and never completes (default)
 *       system  the same with ncclSystemError
 *       hang    never completes, and nobody is told
 *       die     the process is killed
 *       refuse  the number-th call, rather, returns ncclInternalError
 * STANDIN_NCCL_SKIP=rank:number  The number-th all-reduce (from 1) leaves that rank's buffer as it
 *     was, as if it were missing; rank * is all. The ranks still meet, so nothing hangs. */
#include "tests/emu/standin_nccl.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const kind_name[] = {"ncclAllReduce", "ncclBroadcast", "ncclAllGather",
                                        "ncclSend", "ncclRecv"};

/* ---------------------------------------------------------------- injection */

/* Whether `text` is "rank:number[:kind]" for this rank and number. */
static int is_meant(const char *text, const struct ncclComm *comm, long number, const char **kind)
{
    char *end;

    if (text == NULL)
        return 0;
    if (*text == '*')
        end = (char *)text + 1;
    else if (strtol(text, &end, 10) != comm->world_rank)
        return 0;
    if (*end != ':' || strtol(end + 1, &end, 10) != number)
        return 0;
    *kind = *end == ':' ? end + 1 : "error";
    return 1;
}

int standin_nccl_is_refused(const struct ncclComm *comm)
{
    static _Atomic long calls;
    const char *kind;

    return is_meant(getenv("STANDIN_NCCL_FAIL"), comm, ++calls, &kind) &&
           strcmp(kind, "refuse") == 0;
}

static void inject(struct ncclComm *comm)
{
    static long executions;
    const char *kind;

    if (!is_meant(getenv("STANDIN_NCCL_FAIL"), comm, ++executions, &kind))
        return;
    if (strcmp(kind, "die") == 0) {
        kill(getpid(), SIGKILL);
    } else if (strcmp(kind, "hang") == 0) {
        comm->hung = 1;
    } else if (strcmp(kind, "error") == 0 || strcmp(kind, "system") == 0) {
        int status = *kind == 'e' ? ncclRemoteError : ncclSystemError;

        (void)standin_nccl_fail(status, "injected at operation %ld", executions);
        atomic_store(&comm->async, status);
    }
}

static int is_skipped(const struct ncclComm *comm)
{
    static long all_reduces;
    const char *kind;

    return is_meant(getenv("STANDIN_NCCL_SKIP"), comm, ++all_reduces, &kind);
}

/* ---------------------------------------------------------------- the same on all ranks */

static void describe(const struct descriptor *d, char *out, size_t size)
{
    snprintf(out, size, "%s of %llu (type %d, op %d, root %d)", kind_name[d->kind],
             (unsigned long long)d->count, (int)d->type, (int)d->op, d->root);
}

/* We wait in collective k. A peer that has begun it must mean the same; one that has not must not
 * wait for a message that we will not send before. */
static void compare(struct ncclComm *comm, uint64_t k)
{
    struct rank_area *area = comm->shared->rank;
    const struct descriptor *mine = &area[comm->rank].description[k % 2];
    char here[128], there[128];

    for (int r = 0; r < comm->size; r++) {
        const struct descriptor *other = &area[r].description[k % 2];
        uint32_t sends = atomic_load(&area[r].sends[comm->rank]);
        uint32_t recvs = atomic_load(&area[r].recvs[comm->rank]);
        uint64_t begun = atomic_load(&area[r].begun);

        describe(mine, here, sizeof here);
        if (begun > k) {
            describe(other, there, sizeof there);
            if (strcmp(here, there) != 0 || other->sends[comm->rank] != mine->recvs[r] ||
                other->recvs[comm->rank] != mine->sends[r])
                standin_nccl_wrong(comm,
                                   "collective %llu is %s here and %s on rank %d, or rows go "
                                   "before it on one and after it on the other",
                                   (unsigned long long)k, here, there, r);
        } else if (recvs > mine->sends[r] || sends > mine->recvs[r]) {
            standin_nccl_wrong(comm, "%s here while rank %d exchanges rows with us", here, r);
        } else if (atomic_load(&area[r].presence) >= FINALIZED &&
                   atomic_load(&area[r].presence) != ABORTED) {
            standin_nccl_wrong(comm, "%s here, and rank %d has left without it", here, r);
        }
    }
}

/* ---------------------------------------------------------------- collectives */

static size_t task_bytes(const struct task *task)
{
    return task->count * standin_nccl_type_bytes(task->type);
}

static void begin_collective(struct ncclComm *comm, struct task *task)
{
    struct rank_area *own = &comm->shared->rank[comm->rank];
    uint64_t k = atomic_load(&own->begun);
    struct descriptor *d = &own->description[k % 2];

    *d = (struct descriptor){.kind = task->kind,
                             .type = task->type,
                             .op = task->op,
                             .root = task->peer,
                             .count = task->count};
    for (int r = 0; r < comm->size; r++) {
        d->sends[r] = atomic_load(&own->sends[r]);
        d->recvs[r] = atomic_load(&own->recvs[r]);
    }
    task->skipped = task->kind == ALL_REDUCE && is_skipped(comm);
    task->begun = 1;
    atomic_store(&own->begun, k + 1);
}

/* Every rank's `read` or `written` has come to `round`. */
static int have_all(struct ncclComm *comm, size_t counter, uint64_t round)
{
    for (int r = 0; r < comm->size; r++) {
        char *area = (char *)&comm->shared->rank[r];

        if (atomic_load((_Atomic uint64_t *)(area + counter)) < round)
            return 0;
    }
    return 1;
}

static void take_chunk(struct ncclComm *comm, struct task *task, uint64_t round, size_t n)
{
    char *out = (char *)task->recv + task->bytes_done;
    const void *in[MAX_RANKS];

    for (int r = 0; r < comm->size; r++)
        in[r] = comm->shared->data[r][round % 2];
    if (task->skipped)
        return;
    if (task->kind == ALL_REDUCE)
        standin_nccl_sum(task->type, out, in, comm->size, n / standin_nccl_type_bytes(task->type));
    else if (task->kind == BROADCAST)
        memcpy(out, in[task->peer], n);
    else
        for (int r = 0; r < comm->size; r++)
            memcpy(out + (size_t)r * task_bytes(task), in[r], n);
}

/* One chunk further; whether it went. */
static int step_collective(struct ncclComm *comm, struct task *task)
{
    struct rank_area *own = &comm->shared->rank[comm->rank];
    uint64_t round = atomic_load(&own->read), k = atomic_load(&own->begun) - 1;
    size_t left = task_bytes(task) - task->bytes_done, n = left < CHUNK_BYTES ? left : CHUNK_BYTES;

    compare(comm, k);
    if (!task->is_written) {
        if (!have_all(comm, offsetof(struct rank_area, read), round > 0 ? round - 1 : 0))
            return 0;
        if (task->kind != BROADCAST || comm->rank == task->peer)
            memcpy(comm->shared->data[comm->rank][round % 2],
                   (const char *)task->send + task->bytes_done, n);
        atomic_store(&own->written, round + 1);
        task->is_written = 1;
    }
    if (!have_all(comm, offsetof(struct rank_area, written), round + 1))
        return 0;
    take_chunk(comm, task, round, n);
    task->bytes_done += n;
    task->is_written = 0;
    task->finished = task->bytes_done == task_bytes(task);
    atomic_store(&own->read, round + 1);
    return 1;
}

/* ---------------------------------------------------------------- messages */

static void begin_message(struct ncclComm *comm, struct task *task)
{
    struct rank_area *own = &comm->shared->rank[comm->rank];

    task->message = task->kind == SEND ? atomic_fetch_add(&own->sends[task->peer], 1)
                                       : atomic_fetch_add(&own->recvs[task->peer], 1);
    task->begun = 1;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void step_send(struct ncclComm *comm, struct task *task)
{
    struct mailbox *box = &comm->shared->mail[comm->rank][task->peer];
    uint64_t written = atomic_load(&box->written), read = atomic_load(&box->read);
    size_t at = written % MAIL_BYTES, n;

    if (atomic_load(&box->opened) == task->message) {
        if (atomic_load(&box->taken) != task->message)
            return; /* the last one is still there */
        box->bytes = task_bytes(task);
        box->type = task->type;
        atomic_store(&box->opened, task->message + 1);
    }
    n = smaller(task_bytes(task) - task->bytes_done, MAIL_BYTES - (written - read));
    n = smaller(n, MAIL_BYTES - at);
    memcpy(box->data + at, (const char *)task->send + task->bytes_done, n);
    task->bytes_done += n;
    atomic_store(&box->written, written + n);
    task->finished = task->bytes_done == task_bytes(task);
}

static void step_recv(struct ncclComm *comm, struct task *task)
{
    struct mailbox *box = &comm->shared->mail[task->peer][comm->rank];
    uint64_t read = atomic_load(&box->read), written;
    size_t at = read % MAIL_BYTES, n;

    if (atomic_load(&box->opened) <= task->message)
        return;
    if (box->bytes != task_bytes(task) || box->type != task->type)
        standin_nccl_wrong(comm, "rank %d sends %llu bytes of type %d, %zu of type %d are expected",
                           task->peer, (unsigned long long)box->bytes, (int)box->type,
                           task_bytes(task), (int)task->type);
    written = atomic_load(&box->written);
    n = smaller(smaller((size_t)(written - read), task_bytes(task) - task->bytes_done),
                MAIL_BYTES - at);
    memcpy((char *)task->recv + task->bytes_done, box->data + at, n);
    task->bytes_done += n;
    atomic_store(&box->read, read + n);
    task->finished = task->bytes_done == task_bytes(task);
    if (task->finished)
        atomic_store(&box->taken, task->message + 1);
}

/* Messages between the same two ranks go one after the other. */
static int is_first_of_its_kind(const struct operation *operation, int t)
{
    const struct task *task = operation->task;

    for (int i = 0; i < t; i++)
        if (!task[i].finished && task[i].kind == task[t].kind && task[i].peer == task[t].peer)
            return 0;
    return 1;
}

/* ---------------------------------------------------------------- attempts */

static int is_message(const struct task *task)
{
    return task->kind == SEND || task->kind == RECV;
}

static void begin(struct operation *operation)
{
    struct ncclComm *comm = operation->comm;

    comm->current = operation;
    operation->running = 1;
    for (int t = 0; t < operation->tasks; t++) {
        struct task *task = &operation->task[t];

        task->begun = task->finished = task->is_written = 0;
        task->bytes_done = 0;
    }
    inject(comm);
}

/* Collectives of a group first, then its messages side by side. Whether all is done. */
static int go_on(struct operation *operation)
{
    struct ncclComm *comm = operation->comm;
    int left = 0;

    for (int t = 0; t < operation->tasks; t++) {
        struct task *task = &operation->task[t];

        if (is_message(task))
            continue;
        if (!task->begun)
            begin_collective(comm, task);
        while (!task->finished)
            if (!step_collective(comm, task))
                return 0;
    }
    for (int t = 0; t < operation->tasks; t++)
        if (is_message(&operation->task[t]) && !operation->task[t].begun)
            begin_message(comm, &operation->task[t]);
    for (int t = 0; t < operation->tasks; t++) {
        struct task *task = &operation->task[t];

        if (!is_message(task) || task->finished)
            continue;
        left++;
        if (!is_first_of_its_kind(operation, t))
            continue;
        if (task->kind == SEND)
            step_send(comm, task);
        else
            step_recv(comm, task);
        left -= task->finished;
    }
    return left == 0;
}

/* What fails never completes until it is aborted, as on a GPU. */
static int attempt(void *arg)
{
    struct operation *operation = arg;
    struct ncclComm *comm = operation->comm;

    if (atomic_load(&comm->aborted))
        return 1;
    if (comm->current != NULL && comm->current != operation)
        return 0;
    if (!operation->running)
        begin(operation);
    if (comm->hung || atomic_load(&comm->async) != ncclSuccess)
        return 0;
    if (!go_on(operation)) {
        standin_nccl_look_around(comm);
        return 0;
    }
    operation->running = 0;
    comm->current = NULL;
    return 1;
}

ncclResult_t standin_nccl_put(struct operation *operation)
{
    struct standin_work work = {.kind = "nccl",
                                .name = kind_name[operation->task[0].kind],
                                .bytes = task_bytes(&operation->task[0]),
                                .attempt = attempt,
                                .destroy = standin_nccl_free_operation,
                                .arg = operation};
    cudaError_t status = standin_enqueue(operation->stream, &work);

    if (status != cudaSuccess)
        return standin_nccl_fail(ncclUnhandledCudaError, "Cuda failure %d '%s'", (int)status,
                                 cudaGetErrorString(status));
    return ncclSuccess;
}
