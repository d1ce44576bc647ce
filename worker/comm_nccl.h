/* Collectives over NCCL, for the CUDA path. See comm.h. */
#ifndef APD_WORKER_COMM_NCCL_H
#define APD_WORKER_COMM_NCCL_H

#include "worker/comm.h"

#include "kernels/backend.h"

/* A communicator of the workers of `host` on the memory of their CUDA backends. `host` works on
 * host memory, is used in this call only and stays the caller's. Collective; waits at most
 * timeout_s for NCCL, here and in every later call. When one worker fails, all do.
 *
 * Its operations may be captured into a CUDA graph, which must hold the sum_wait() of every
 * sum_start() it holds. Row counts may differ from call to call; rows a worker sends to itself are
 * copied.
 *
 * All get worker 0's NCCL_MAX_P2P_NCHANNELS, 8 unless its environment says otherwise, and
 * NCCL_ALGO. deterministic: that is Ring,Tree unless its environment says otherwise; the other
 * algorithms let a switch add in whatever order values come. These two give the same bits every
 * time for the same workers on the same machines; on others the order of the sum is another one.
 *
 * The backend is polled through it (apd_cuda_on_wait), and NCCL does not let go of a communicator
 * that a graph still holds: so destroy the backend first.
 *
 * APD_DEVICE: NCCL is too old, two workers have the same GPU, or CUDA failed. APD_PEER,
 * APD_TIMEOUT: the workers do not find together. */
APD_MUST_USE enum apd_code apd_comm_nccl(struct apd_backend *be, struct apd_comm *host,
                                         int deterministic, double timeout_s, struct apd_comm **out,
                                         struct apd_err *err);

/* NCCL's version: of the headers, of the library that is loaded. 22809 is 2.28.9. */
void apd_nccl_versions(int *out_built, int *out_found);

#endif
