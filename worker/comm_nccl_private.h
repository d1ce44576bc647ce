/* What the files of the NCCL communicator share. */
#ifndef APD_WORKER_COMM_NCCL_PRIVATE_H
#define APD_WORKER_COMM_NCCL_PRIVATE_H

#include "kernels/cuda/cuda.h"
#include "worker/comm.h"

#include <nccl.h>

struct comm_nccl {
    struct apd_comm base;
    ncclComm_t nccl;              /* NULL before the start, after the end and for one worker */
    cudaStream_t compute, stream; /* the backend's; our own */
    cudaEvent_t forked, joined;   /* orders of the two streams */
    double timeout_s;
    int started; /* the workers have found together */
    int in_group;
    double first_sum; /* of the start */
    int sums;         /* started and not waited for */
    int failed;       /* only abort is left */
};

/* What became of an NCCL call. Outside a group waits while it is in progress: only then are its
 * operations in the stream. */
APD_MUST_USE enum apd_code apd_nccl_check(struct comm_nccl *self, ncclResult_t status,
                                          const char *call, struct apd_err *err);
#define NCCL_TRY(self, call) APD_TRY(apd_nccl_check((self), (call), #call, err))

/* Asks NCCL without waiting. */
APD_MUST_USE enum apd_code apd_nccl_poll(struct comm_nccl *self, struct apd_err *err);

/* Waits until our stream is empty. Not during capture. */
APD_MUST_USE enum apd_code apd_nccl_wait_stream(struct comm_nccl *self, struct apd_err *err);

/* Makes self->nccl: from the version of NCCL to a first sum. */
APD_MUST_USE enum apd_code apd_nccl_start(struct comm_nccl *self, struct apd_comm *host,
                                          int deterministic, struct apd_err *err);

/* Leaves self->nccl, in order if nothing has failed. Returns whether NCCL let go in time. */
int apd_nccl_end(struct comm_nccl *self);

/* The same at once. */
int apd_nccl_kill(struct comm_nccl *self);

#endif
