/* A CUDA backend of nothing but a stream: what a communicator needs of one. */
#ifndef APD_TESTS_EMU_FAKE_CUDA_H
#define APD_TESTS_EMU_FAKE_CUDA_H

#include "kernels/cuda/cuda.h"

/* On visible GPU `device`. */
enum apd_code fake_cuda_create(int device, struct apd_backend **out, struct apd_err *err);
void fake_cuda_destroy(struct apd_backend *be);

/* Waits for the stream as a backend does: asks who was set by apd_cuda_on_wait() again and again;
 * APD_TIMEOUT after deadline_s. */
enum apd_code fake_cuda_wait(struct apd_backend *be, double deadline_s, struct apd_err *err);

#endif
