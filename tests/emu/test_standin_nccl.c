/* What the stand-in NCCL promises beyond what the communicator of the worker uses. */
#include "tests/emu/ranks.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RANKS = 4, BYTES = 64 };

#define EXPECT(truth)                                                                              \
    do {                                                                                           \
        if (!(truth)) {                                                                            \
            fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #truth, ncclGetLastError(NULL));       \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Waits until comm has settled. */
static ncclResult_t settle(ncclComm_t comm, ncclResult_t status)
{
    while (status == ncclInProgress) {
        EXPECT(ncclCommGetAsyncError(comm, &status) == ncclSuccess);
        sched_yield();
    }
    return status;
}

static ncclComm_t join(struct apd_comm *host, int blocking)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id, ids[RANKS_MAX];
    int one[RANKS_MAX] = {0}, none[RANKS_MAX] = {0};
    struct apd_err err;
    ncclResult_t status;
    ncclComm_t comm;

    EXPECT(cudaSetDevice(host->rank) == cudaSuccess);
    EXPECT(ncclGetUniqueId(&id) == ncclSuccess);
    for (int r = 0; r < host->size; r++) {
        ids[r] = id;
        one[r] = host->rank == 0;
    }
    none[0] = 1;
    EXPECT(host->ops->exchange_rows(host, sizeof id, ids, one, &id, none, &err) == APD_OK);
    config.blocking = blocking;
    status = ncclCommInitRankConfig(&comm, host->size, id, host->rank, &config);
    EXPECT(settle(comm, status) == ncclSuccess);
    return comm;
}

static void leave(ncclComm_t comm)
{
    EXPECT(settle(comm, ncclCommFinalize(comm)) == ncclSuccess);
    EXPECT(ncclCommDestroy(comm) == ncclSuccess);
}

static void put(void *device, const void *host, size_t bytes)
{
    EXPECT(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice) == cudaSuccess);
    EXPECT(cudaDeviceSynchronize() == cudaSuccess);
}

static void get(void *host, const void *device, size_t bytes, cudaStream_t stream)
{
    EXPECT(cudaStreamSynchronize(stream) == cudaSuccess);
    EXPECT(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost) == cudaSuccess);
}

static int all_calls(struct apd_comm *host, void *arg)
{
    ncclComm_t comm = join(host, *(int *)arg);
    /* 2049 = 2048 + 1 is no half and 257 no bfloat16: rounded once, ties to even. */
    _Float16 half[2] = {host->rank == 0 ? 2048 : 1, (_Float16)(host->rank + 1)};
    uint16_t bf16 = host->rank == 0 ? 0x4380 : 0x3f80; /* 256 and 1, 1, 1 */
    int32_t own[RANKS], all[RANKS];
    cudaStream_t stream;
    char *send, *recv;
    void *handle;
    int count = 0, rank = -1;

    EXPECT(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    EXPECT(ncclMemAlloc((void **)&send, BYTES) == ncclSuccess);
    EXPECT(ncclMemAlloc((void **)&recv, BYTES) == ncclSuccess);
    EXPECT(ncclCommRegister(comm, send, BYTES, &handle) == ncclSuccess);
    EXPECT(ncclCommCount(comm, &count) == ncclSuccess && count == RANKS);
    EXPECT(ncclCommUserRank(comm, &rank) == ncclSuccess && rank == host->rank);

    put(send, half, sizeof half);
    EXPECT(settle(comm, ncclAllReduce(send, recv, 2, ncclFloat16, ncclSum, comm, stream)) ==
           ncclSuccess);
    get(half, recv, sizeof half, stream);
    EXPECT(half[0] == 2052 && half[1] == 10); /* 2051, between 2050 and 2052 */
    put(send, &bf16, sizeof bf16);
    EXPECT(settle(comm, ncclAllReduce(send, recv, 1, ncclBfloat16, ncclSum, comm, stream)) ==
           ncclSuccess);
    get(&bf16, recv, sizeof bf16, stream);
    EXPECT(bf16 == 0x4382); /* 259, between 258 and 260 */

    for (int r = 0; r < RANKS; r++)
        own[r] = host->rank * 10 + r;
    put(send, own, sizeof own);
    EXPECT(settle(comm, ncclAllGather(send, recv, 1, ncclInt32, comm, stream)) == ncclSuccess);
    get(all, recv, sizeof all, stream);
    for (int r = 0; r < RANKS; r++)
        EXPECT(all[r] == r * 10);
    EXPECT(settle(comm, ncclAlltoAll(send, recv, 1, ncclInt32, comm, stream)) == ncclSuccess);
    get(all, recv, sizeof all, stream);
    for (int r = 0; r < RANKS; r++)
        EXPECT(all[r] == r * 10 + host->rank);
    EXPECT(settle(comm, ncclBroadcast(send, recv, RANKS, ncclInt32, 2, comm, stream)) ==
           ncclSuccess);
    get(all, recv, sizeof all, stream);
    for (int r = 0; r < RANKS; r++)
        EXPECT(all[r] == 20 + r);

    EXPECT(ncclCommDeregister(comm, handle) == ncclSuccess);
    EXPECT(ncclMemFree(send) == ncclSuccess && ncclMemFree(recv) == ncclSuccess);
    leave(comm);
    return 0;
}

/* Odd and even ranks, the last first; rank 0 stays alone the second time. */
static int splits(struct apd_comm *host, void *arg)
{
    ncclComm_t comm = join(host, *(int *)arg), part = NULL;
    cudaStream_t stream;
    int rank = -1, count = 0;
    double *device, sum = host->rank + 1;

    EXPECT(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    EXPECT(cudaMalloc((void **)&device, sizeof *device) == cudaSuccess);
    EXPECT(ncclCommSplit(comm, host->rank % 2, -host->rank, &part, NULL) <= ncclInProgress);
    EXPECT(settle(part, ncclInProgress) == ncclSuccess);
    EXPECT(ncclCommCount(part, &count) == ncclSuccess && count == 2);
    EXPECT(ncclCommUserRank(part, &rank) == ncclSuccess && rank == (host->rank < 2));
    put(device, &sum, sizeof sum);
    EXPECT(settle(part, ncclAllReduce(device, device, 1, ncclFloat64, ncclSum, part, stream)) ==
           ncclSuccess);
    get(&sum, device, sizeof sum, stream);
    EXPECT(sum == (host->rank % 2 == 0 ? 1 + 3 : 2 + 4));
    leave(part);

    part = NULL;
    EXPECT(ncclCommSplit(comm, host->rank == 0 ? NCCL_SPLIT_NOCOLOR : 7, 0, &part, NULL) !=
           ncclInvalidArgument);
    EXPECT((part == NULL) == (host->rank == 0));
    if (part != NULL) {
        EXPECT(settle(part, ncclInProgress) == ncclSuccess);
        EXPECT(ncclCommCount(part, &count) == ncclSuccess && count == 3);
        leave(part);
    }
    leave(comm);
    return 0;
}

/* Who does not wait for a call to be done is refused, and so is host memory. */
static int misuses(struct apd_comm *host, void *arg)
{
    ncclComm_t comm = join(host, 0);
    double *device, value = 1;

    (void)arg;
    EXPECT(cudaMalloc((void **)&device, sizeof *device) == cudaSuccess);
    EXPECT(ncclAllReduce(&value, device, 1, ncclFloat64, ncclSum, comm, NULL) ==
           ncclInvalidArgument);
    EXPECT(ncclAllReduce(device, device, 1, ncclFloat64, ncclMax, comm, NULL) ==
           ncclInvalidArgument);
    EXPECT(ncclAllReduce(device, device, 1, ncclFloat64, ncclSum, comm, NULL) == ncclInProgress);
    EXPECT(ncclAllReduce(device, device, 1, ncclFloat64, ncclSum, comm, NULL) ==
           ncclInvalidArgument);
    EXPECT(strstr(ncclGetLastError(comm), "before the previous operation") != NULL);
    EXPECT(settle(comm, ncclInProgress) == ncclSuccess);
    EXPECT(cudaStreamSynchronize(NULL) == cudaSuccess);
    leave(comm);
    return 0;
}

static void run(ranks_scenario *scenario)
{
    for (int blocking = 0; blocking < 2; blocking++)
        for (int seed = 0; seed < 4; seed++) {
            char text[32];
            const char *settings[] = {"STANDIN_DEVICES=8", text, NULL};
            struct ranks_end end;

            snprintf(text, sizeof text, "STANDIN_SEED=%d", seed);
            end = ranks_wait(ranks_start(RANKS, scenario, &blocking, settings));
            for (int r = 0; r < RANKS; r++) {
                if (end.status[r] != 0)
                    fprintf(stderr, "blocking %d, %s, rank %d: %d: %s", blocking, text, r,
                            end.status[r], end.text[r]);
                assert_int_equal(end.status[r], 0);
            }
        }
}

static void calls_do_what_nccl_says(void **state)
{
    (void)state;
    run(all_calls);
}

static void splits_are_ordered_by_key(void **state)
{
    (void)state;
    run(splits);
}

static void misuse_is_refused(void **state)
{
    (void)state;
    run(misuses);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_do_what_nccl_says),
        cmocka_unit_test(splits_are_ordered_by_key),
        cmocka_unit_test(misuse_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
