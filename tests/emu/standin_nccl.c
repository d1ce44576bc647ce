/* Stand-in libnccl.so.2, the life of a communicator: NCCL among the processes of one host, on the
 * streams of the stand-in CUDA runtime. For tests: it is there to be strict, not fast.
 *
 * Non-blocking communicators are in progress after most calls, for a number of polls that
 * STANDIN_SEED chooses; only then is the operation in its stream, so who goes on too early is found
 * out. Finalizing waits for all ranks and for every graph that holds an operation. Not there:
 * Revoke, Shrink, Reduce, ReduceScatter, Gather, Scatter, operators other than the sum.
 *
 * STANDIN_NCCL_VERSION: what ncclGetVersion says. Operations: standin_nccl_group.c. Faults:
 * standin_nccl_run.c. */
#include "tests/emu/standin_nccl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCKING_S = 60 };

static char last_error[256];

ncclResult_t standin_nccl_fail(ncclResult_t status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return status;
}

void standin_nccl_wrong(const struct ncclComm *comm, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "standin nccl: rank %d of %d: ", comm->rank, comm->size);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

size_t standin_nccl_type_bytes(ncclDataType_t type)
{
    static const unsigned char bytes[ncclNumTypes] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};

    return (unsigned)type < ncclNumTypes ? bytes[type] : 0;
}

/* 0 .. below - 1 */
static int chance(int below)
{
    static uint64_t state;
    const char *seed = getenv("STANDIN_SEED");

    if (state == 0)
        state = (seed != NULL ? strtoull(seed, NULL, 0) : 1) * 2 + 1 + (uint64_t)getpid() * 2;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int)((state >> 33) % (uint64_t)below);
}

/* ---------------------------------------------------------------- life of a communicator */

void standin_nccl_free_operation(void *arg)
{
    struct operation *operation = arg;
    struct ncclComm *comm = operation->comm;

    if (comm != NULL && comm->current == operation)
        comm->current = NULL;
    free(operation->task);
    free(operation);
    if (comm != NULL && atomic_fetch_sub(&comm->operations, 1) == 1 && atomic_load(&comm->freed)) {
        standin_nccl_close_meeting(comm);
        free(comm);
    }
}

static void let_go(struct ncclComm *comm, enum presence presence)
{
    if (comm->shared != NULL)
        atomic_store(&comm->shared->rank[comm->rank].presence, presence);
    /* One reference of our own, so that only one of the two frees. */
    atomic_store(&comm->freed, 1);
    if (atomic_fetch_sub(&comm->operations, 1) == 1) {
        standin_nccl_close_meeting(comm);
        free(comm);
    }
}

static struct ncclComm *new_comm(int size, int rank, int blocking)
{
    struct ncclComm *comm = calloc(1, sizeof *comm);

    if (comm == NULL)
        abort();
    comm->fd = -1;
    comm->size = size;
    comm->rank = comm->world_rank = rank;
    comm->blocking = blocking;
    comm->polls_left = chance(4);
    comm->operations = 1;
    (void)cudaGetDevice(&comm->device);
    (void)cudaDeviceGetAttribute(&comm->pci_bus, cudaDevAttrPciBusId, comm->device);
    return comm;
}

/* Members of the split of our parent, in their order; our place among them. */
static int split_members(struct ncclComm *comm, int *members)
{
    struct rank_area *area = comm->parent->shared->rank;
    int n = 0, p = (int)(comm->split % 2), me = comm->parent->rank;

    for (int r = 0; r < comm->parent->size; r++) {
        int at = n;

        if (area[r].color[p] != area[me].color[p])
            continue;
        for (; at > 0 && area[members[at - 1]].key[p] > area[r].key[p]; at--)
            members[at] = members[at - 1];
        members[at] = r;
        n++;
    }
    return n;
}

static ncclResult_t advance_split(struct ncclComm *comm)
{
    struct rank_area *area = comm->parent->shared->rank, *own = &area[comm->parent->rank];
    int members[MAX_RANKS], p = (int)(comm->split % 2);
    ncclResult_t status;

    for (int r = 0; r < comm->parent->size; r++)
        if (atomic_load(&area[r].splits) <= comm->split)
            return ncclInProgress;
    comm->size = split_members(comm, members);
    for (comm->rank = 0; members[comm->rank] != comm->parent->rank;)
        comm->rank++;
    if (comm->rank == 0 && atomic_load(&own->leads) <= comm->split) {
        status = standin_nccl_make_meeting(&own->lead[p]);
        if (status != ncclSuccess)
            return status;
        atomic_store(&own->leads, comm->split + 1);
    }
    if (atomic_load(&area[members[0]].leads) <= comm->split)
        return ncclInProgress;
    comm->meeting = area[members[0]].lead[p];
    status = standin_nccl_open_meeting(comm);
    comm->state = JOINING;
    return status;
}

static ncclResult_t advance_finalize(struct ncclComm *comm)
{
    struct rank_area *area = comm->shared->rank;

    if (atomic_load(&comm->operations) > 1)
        return ncclInProgress;
    if (atomic_load(&area[comm->rank].presence) == JOINED)
        atomic_store(&area[comm->rank].presence, FINALIZED);
    for (int r = 0; r < comm->size; r++)
        if (atomic_load(&area[r].presence) < FINALIZED)
            return ncclInProgress;
    comm->state = DONE;
    return ncclSuccess;
}

/* Takes what is in progress as far as it goes. */
static ncclResult_t advance(struct ncclComm *comm)
{
    struct operation *operation = comm->deferred;
    ncclResult_t status = ncclSuccess;

    if (comm->polls_left > 0) {
        comm->polls_left--;
        return ncclInProgress;
    }
    if (comm->state == SPLITTING)
        status = advance_split(comm);
    if (comm->state == JOINING && status == ncclSuccess) {
        status = standin_nccl_join(comm);
        if (status == ncclSuccess)
            comm->state = READY;
        else if (status == ncclInProgress)
            standin_nccl_look_around(comm);
    } else if (comm->state == FINALIZING) {
        status = advance_finalize(comm);
    } else if (operation != NULL) {
        comm->deferred = NULL;
        status = standin_nccl_put(operation);
    }
    return status;
}

static ncclResult_t state_of(struct ncclComm *comm)
{
    ncclResult_t status;

    /* Who joins looks at what the others have said first, even if they have gone since. */
    if (comm->state > JOINING)
        standin_nccl_look_around(comm);
    status = (ncclResult_t)atomic_load(&comm->async);
    if (status != ncclSuccess)
        return status;
    status = advance(comm);
    if (status != ncclSuccess && status != ncclInProgress)
        atomic_store(&comm->async, status);
    return status;
}

/* The end of a call that something may be left to do for. */
ncclResult_t standin_nccl_answer(struct ncclComm *comm)
{
    struct timespec pause = {.tv_nsec = 200000};
    ncclResult_t status;

    if (!comm->blocking) {
        comm->polls_left = chance(4);
        return ncclInProgress;
    }
    comm->polls_left = 0;
    for (long i = 0; i < BLOCKING_S * 5000L; i++) {
        status = state_of(comm);
        if (status != ncclInProgress)
            return status;
        nanosleep(&pause, NULL);
    }
    return standin_nccl_fail(ncclSystemError, "the other ranks do not come");
}

ncclResult_t standin_nccl_ready(struct ncclComm *comm)
{
    if (comm == NULL)
        return standin_nccl_fail(ncclInvalidArgument, "comm argument is NULL");
    if (atomic_load(&comm->async) != ncclSuccess)
        return (ncclResult_t)atomic_load(&comm->async);
    if (comm->state != READY || comm->deferred != NULL)
        return standin_nccl_fail(ncclInvalidArgument,
                                 "Attempt to use communicator before the previous operation "
                                 "returned ncclSuccess");
    return ncclSuccess;
}

ncclResult_t ncclGetVersion(int *version)
{
    const char *text = getenv("STANDIN_NCCL_VERSION");

    *version = text != NULL ? atoi(text) : NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    struct meeting meeting;
    ncclResult_t status = standin_nccl_make_meeting(&meeting);

    _Static_assert(sizeof meeting <= sizeof *id, "a meeting fits a unique id");
    memset(id, 0, sizeof *id);
    if (status == ncclSuccess)
        memcpy(id, &meeting, sizeof meeting);
    return status;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    struct ncclComm *comm;
    ncclResult_t status;

    *out = NULL;
    if (size < 1 || size > MAX_RANKS || rank < 0 || rank >= size)
        return standin_nccl_fail(ncclInvalidArgument, "rank %d of %d", rank, size);
    if (config != NULL && config->magic != 0xcafebeef)
        return standin_nccl_fail(ncclInvalidArgument, "ncclConfig_t argument not initialized");
    comm = new_comm(size, rank, config == NULL || config->blocking != 0);
    comm->state = JOINING;
    memcpy(&comm->meeting, &id, sizeof comm->meeting);
    status = standin_nccl_open_meeting(comm);
    if (status != ncclSuccess) {
        let_go(comm, ABORTED);
        return status;
    }
    *out = comm;
    return standin_nccl_answer(comm);
}

ncclResult_t ncclCommInitRank(ncclComm_t *out, int size, ncclUniqueId id, int rank)
{
    return ncclCommInitRankConfig(out, size, id, rank, NULL);
}

ncclResult_t ncclCommSplit(ncclComm_t parent, int color, int key, ncclComm_t *out,
                           ncclConfig_t *config)
{
    ncclResult_t status = standin_nccl_ready(parent);
    struct rank_area *own;
    struct ncclComm *comm;
    int p;

    *out = NULL;
    if (status != ncclSuccess)
        return status;
    own = &parent->shared->rank[parent->rank];
    p = (int)(parent->splits % 2);
    own->color[p] = color;
    own->key[p] = key;
    atomic_store(&own->splits, parent->splits + 1);
    if (color == NCCL_SPLIT_NOCOLOR) {
        parent->splits++;
        return ncclSuccess;
    }
    comm = new_comm(1, 0,
                    config != NULL && config->blocking != NCCL_CONFIG_UNDEF_INT ? config->blocking
                                                                                : parent->blocking);
    comm->world_rank = parent->world_rank;
    comm->parent = parent;
    comm->split = parent->splits++;
    comm->state = SPLITTING;
    *out = comm;
    return standin_nccl_answer(comm);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state)
{
    if (comm == NULL)
        return standin_nccl_fail(ncclInvalidArgument, "comm argument is NULL");
    *state = state_of(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    ncclResult_t status = standin_nccl_ready(comm);

    if (status != ncclSuccess)
        return status;
    comm->state = FINALIZING;
    return standin_nccl_answer(comm);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    ncclResult_t status = ncclSuccess;

    if (comm->state != DONE) {
        comm->blocking = 1;
        status = comm->state == FINALIZING ? standin_nccl_answer(comm) : ncclCommFinalize(comm);
    }
    let_go(comm, status == ncclSuccess ? GONE : ABORTED);
    return status;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    struct operation *deferred;

    if (comm == NULL)
        return ncclSuccess;
    atomic_store(&comm->aborted, 1);
    deferred = comm->deferred;
    comm->deferred = NULL;
    if (deferred != NULL)
        standin_nccl_free_operation(deferred);
    let_go(comm, ABORTED);
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count)
{
    *count = comm->size;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank)
{
    *rank = comm->rank;
    return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device)
{
    *device = comm->device;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t status)
{
    static const char *const text[ncclNumResults] = {
        "no error",
        "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        "unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "internal error - please report this issue to the NCCL developers",
        "invalid argument (run with NCCL_DEBUG=WARN for details)",
        "invalid usage (run with NCCL_DEBUG=WARN for details)",
        "remote process exited or there was a network error",
        "NCCL operation in progress"};

    return (unsigned)status < ncclNumResults ? text[status] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    return last_error;
}

/* ---------------------------------------------------------------- memory */

ncclResult_t ncclMemAlloc(void **out, size_t size)
{
    return cudaMalloc(out, size) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclMemFree(void *memory)
{
    return cudaFree(memory) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclCommRegister(const ncclComm_t comm, void *memory, size_t size, void **out)
{
    (void)comm;
    *out = NULL;
    if (!standin_is_device_memory(memory, size))
        return standin_nccl_fail(ncclInvalidArgument, "ncclCommRegister: not device memory");
    *out = malloc(1);
    return *out != NULL ? ncclSuccess : ncclSystemError;
}

ncclResult_t ncclCommDeregister(const ncclComm_t comm, void *handle)
{
    (void)comm;
    free(handle);
    return ncclSuccess;
}
