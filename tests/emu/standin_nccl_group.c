/* Stand-in libnccl.so.2, the calls of operations: what a call, or a group of them, asks for becomes
 * one operation of its communicator and stream. */
#include "tests/emu/standin_nccl.h"

#include <stdlib.h>

enum { GROUP_TASKS = 1024 };

/* Of this thread; the tasks of a group, each with where it belongs. */
static _Thread_local struct {
    int depth, tasks;
    ncclResult_t error;
    struct {
        struct task task;
        struct ncclComm *comm;
        cudaStream_t stream;
    } entry[GROUP_TASKS];
} group;

/* What the group holds for one communicator and stream, as one operation. */
static ncclResult_t launch(struct ncclComm *comm, cudaStream_t stream)
{
    struct operation *operation = calloc(1, sizeof *operation);
    ncclResult_t status = standin_nccl_ready(comm);

    if (operation == NULL)
        abort();
    operation->task = calloc((size_t)group.tasks, sizeof *operation->task);
    if (operation->task == NULL)
        abort();
    for (int i = 0; i < group.tasks; i++)
        if (group.entry[i].comm == comm && group.entry[i].stream == stream) {
            operation->task[operation->tasks++] = group.entry[i].task;
            group.entry[i].comm = NULL;
        }
    if (status == ncclSuccess && standin_nccl_is_refused(comm))
        status = standin_nccl_fail(ncclInternalError, "injected");
    if (status != ncclSuccess) {
        standin_nccl_free_operation(operation);
        return status;
    }
    operation->comm = comm;
    operation->stream = stream;
    atomic_fetch_add(&comm->operations, 1);
    comm->deferred = operation;
    return standin_nccl_answer(comm);
}

ncclResult_t ncclGroupStart(void)
{
    if (group.depth++ == 0) {
        group.tasks = 0;
        group.error = ncclSuccess;
    }
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    ncclResult_t result, status;

    if (group.depth == 0)
        return standin_nccl_fail(ncclInvalidUsage, "ncclGroupEnd: not in a group call.");
    if (--group.depth > 0)
        return ncclSuccess;
    result = group.error;
    for (int i = 0; i < group.tasks && (result == ncclSuccess || result == ncclInProgress); i++)
        if (group.entry[i].comm != NULL) {
            status = launch(group.entry[i].comm, group.entry[i].stream);
            if (status != ncclSuccess)
                result = status;
        }
    return result;
}

static ncclResult_t check_task(const struct task *task, struct ncclComm *comm)
{
    size_t size = standin_nccl_type_bytes(task->type), bytes = task->count * size;
    size_t out = task->kind == ALL_GATHER ? bytes * (size_t)comm->size : bytes;
    int reads = task->kind != RECV && (task->kind != BROADCAST || task->peer == comm->rank);

    if (size == 0 || group.tasks == GROUP_TASKS)
        return standin_nccl_fail(ncclInvalidArgument, "type %d, %d tasks", (int)task->type,
                                 group.tasks);
    if (task->peer < 0 || task->peer >= comm->size)
        return standin_nccl_fail(ncclInvalidArgument, "invalid root or peer %d of %d", task->peer,
                                 comm->size);
    if (task->kind == ALL_REDUCE &&
        (task->op != ncclSum || (task->type != ncclFloat32 && task->type != ncclFloat64 &&
                                 task->type != ncclFloat16 && task->type != ncclBfloat16)))
        return standin_nccl_fail(ncclInvalidArgument, "only sums of floating-point types");
    if (bytes > 0 && ((reads && !standin_is_device_memory(task->send, bytes)) ||
                      (task->kind != SEND && !standin_is_device_memory(task->recv, out))))
        return standin_nccl_fail(ncclInvalidArgument, "a buffer is not device memory");
    return ncclSuccess;
}

static ncclResult_t add(struct task task, ncclComm_t comm, cudaStream_t stream)
{
    ncclResult_t status, ended;

    (void)ncclGroupStart();
    status = standin_nccl_ready(comm);
    if (status == ncclSuccess)
        status = check_task(&task, comm);
    if (status != ncclSuccess) {
        group.error = status;
    } else {
        group.entry[group.tasks].task = task;
        group.entry[group.tasks].comm = comm;
        group.entry[group.tasks].stream = stream;
        group.tasks++;
    }
    ended = ncclGroupEnd();
    return status != ncclSuccess ? status : ended;
}

ncclResult_t ncclAllReduce(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    struct task task = {
        .kind = ALL_REDUCE, .send = send, .recv = recv, .count = count, .type = type, .op = op};

    return add(task, comm, stream);
}

ncclResult_t ncclBroadcast(const void *send, void *recv, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream)
{
    struct task task = {
        .kind = BROADCAST, .send = send, .recv = recv, .count = count, .type = type, .peer = root};

    return add(task, comm, stream);
}

ncclResult_t ncclAllGather(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    struct task task = {
        .kind = ALL_GATHER, .send = send, .recv = recv, .count = count, .type = type};

    return add(task, comm, stream);
}

ncclResult_t ncclSend(const void *send, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    struct task task = {.kind = SEND, .send = send, .count = count, .type = type, .peer = peer};

    return add(task, comm, stream);
}

ncclResult_t ncclRecv(void *recv, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    struct task task = {.kind = RECV, .recv = recv, .count = count, .type = type, .peer = peer};

    return add(task, comm, stream);
}

ncclResult_t ncclAlltoAll(const void *send, void *recv, size_t count, ncclDataType_t type,
                          ncclComm_t comm, cudaStream_t stream)
{
    size_t bytes = count * standin_nccl_type_bytes(type);
    ncclResult_t status = standin_nccl_ready(comm);

    if (status != ncclSuccess)
        return status;
    (void)ncclGroupStart();
    for (int r = 0; r < comm->size; r++) {
        size_t at = bytes * (size_t)r;

        (void)ncclSend((const char *)send + at, count, type, r, comm, stream);
        (void)ncclRecv((char *)recv + at, count, type, r, comm, stream);
    }
    return ncclGroupEnd();
}
