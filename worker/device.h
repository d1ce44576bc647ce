/* Where a worker computes: the backend and the communicator that `device` of the configuration
 * means. device_cuda.c knows CUDA; device_none.c is built in its place where there is no CUDA. */
#ifndef APD_WORKER_DEVICE_H
#define APD_WORKER_DEVICE_H

#include "kernels/backend.h"
#include "kernels/cuda/doctor.h"
#include "proto/config.h"
#include "worker/comm.h"

/* Of this worker on its host. */
struct apd_device_place {
    int local_rank, workers_on_host;
    const char *run_dir; /* may be NULL */
};

/* text: what status shows, "cpu avx512 nChw16c, 1 thread". */
APD_MUST_USE enum apd_code apd_device_open(const struct apd_config *config,
                                           const struct apd_device_place *place,
                                           struct apd_backend **out, char text[128],
                                           struct apd_err *err);

/* A communicator on the backend's memory; `host` itself where that is the host's memory.
 * Collective. Destroy it after the backend, unless it is `host`. */
APD_MUST_USE enum apd_code apd_device_comm(const struct apd_config *config, struct apd_backend *be,
                                           struct apd_comm *host, struct apd_comm **out,
                                           struct apd_err *err);

/* Whether the loss needs a factor (worker/loss_scale.h) there. */
int apd_device_scales_loss(const struct apd_config *config, const struct apd_backend *be);

/* By one worker, when steps and when evaluations have run for the first time, plainly and from
 * their recordings: tells what the device came to, and keeps what was chosen for it in the run
 * directory, for all. */
APD_MUST_USE enum apd_code apd_device_settled(struct apd_backend *be, struct apd_err *err);

/* ---- device_cuda.c, device_none.c ---- */

/* APD_DEVICE, in one sentence, if CUDA cannot be used: not built in, no driver, no GPU. */
APD_MUST_USE enum apd_code apd_device_has_cuda(struct apd_err *err);
APD_MUST_USE enum apd_code apd_device_open_cuda(const struct apd_config *config,
                                                const struct apd_device_place *place,
                                                struct apd_backend **out, char text[128],
                                                struct apd_err *err);
APD_MUST_USE enum apd_code apd_device_comm_cuda(const struct apd_config *config,
                                                struct apd_backend *be, struct apd_comm *host,
                                                struct apd_comm **out, struct apd_err *err);
APD_MUST_USE enum apd_code apd_device_settled_cuda(struct apd_backend *be, struct apd_err *err);

/* What this build and this host have for CUDA. APD_DEVICE: nothing is built in. */
struct apd_device_report {
    struct apd_cuda_report cuda;
    int nccl_built, nccl_found; /* 22809 is 2.28.9 */
};
APD_MUST_USE enum apd_code apd_device_look(struct apd_device_report *out, struct apd_err *err);

#endif
