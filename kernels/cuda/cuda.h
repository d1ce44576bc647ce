/* The CUDA backend: cuDNN's convolutions, our kernels, one GPU. What kernels/backend.h cannot say
 * because it is CUDA's own. */
#ifndef APD_KERNELS_CUDA_CUDA_H
#define APD_KERNELS_CUDA_CUDA_H

#include "kernels/backend.h"
#include "kernels/cuda/dnn.h"

#include <cuda_runtime_api.h>

struct apd_cuda_options {
    int local_rank; /* of this worker on its host: its GPU is the visible one of that number, or the
                       only one */
    enum apd_cuda_type type;
    int tf32;             /* F32: products may be rounded to TF32 */
    int nondeterministic; /* also engines whose results vary */
    int graphs;           /* passes can be recorded */
    double timeout_s;     /* longest wait for the GPU; 0: no limit */
    const char *engines;  /* file of chosen engines; may be NULL */
};

/* APD_DEVICE with one sentence if there is no GPU, no driver, one too old, or a GPU that this
 * was not built for. */
APD_MUST_USE enum apd_code apd_backend_cuda(const struct apd_cuda_options *options,
                                            struct apd_backend **out, struct apd_err *err);

/* How many GPUs are visible; APD_DEVICE as above if none can be. */
APD_MUST_USE enum apd_code apd_cuda_devices(int *out, struct apd_err *err);

/* Bytes of the GPU's memory that others - CUDA, cuDNN, NCCL, other processes - have taken since the
 * backend took what was planned; -1 if nothing was. */
APD_MUST_USE enum apd_code apd_cuda_beside_plan(struct apd_backend *be, int64_t *out,
                                                struct apd_err *err);

/* The GPU's name. */
const char *apd_cuda_device_name(struct apd_backend *be);

/* Why the file of engines was left unused; "" if it was not. */
const char *apd_cuda_engines_note(struct apd_backend *be);

/* Convolutions planned so far, and which of them have another engine than was chosen first, "" if
 * none. */
void apd_cuda_convolutions(struct apd_backend *be, struct apd_dnn_summary *out,
                           const char **out_replaced);

/* Writes the file of chosen engines, if there is one. */
APD_MUST_USE enum apd_code apd_cuda_save_engines(struct apd_backend *be, struct apd_err *err);

/* The stream all operations are put on. */
cudaStream_t apd_cuda_stream(struct apd_backend *be);

/* Called again and again while the backend waits for the GPU; anything but APD_OK ends the wait.
 * NULL: nobody. */
void apd_cuda_on_wait(struct apd_backend *be, enum apd_code (*poll)(void *ctx, struct apd_err *err),
                      void *ctx);

/* CUDA's words for a failed call; APD_DEVICE. */
APD_MUST_USE enum apd_code apd_cuda_check(cudaError_t status, const char *call,
                                          struct apd_err *err);
#define CUDA_TRY(call) APD_TRY(apd_cuda_check((call), #call, err))
#define CUDA_GO(call)  APD_GO(apd_cuda_check((call), #call, err))

#endif
