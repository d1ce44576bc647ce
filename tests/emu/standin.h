/* What the stand-in CUDA runtime (libcudart.so.13 of this folder) offers beyond CUDA: work of other
 * stand-ins, those of cuDNN and NCCL, on its streams, and CPU versions of kernels. C and C++. */
#ifndef APD_TESTS_EMU_STANDIN_H
#define APD_TESTS_EMU_STANDIN_H

#include <cuda_runtime_api.h>

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A piece of work. It runs late, on whichever host thread lets the stream go on, with the stand-in
 * locked: it must make no CUDA call. Device memory may be touched only within attempt(), so a
 * transfer that is finished in a later attempt needs a buffer of its own on the host.
 *
 * On a capturing stream the work becomes a node of the graph and runs once a launch, one launch of
 * a graph at a time; it must leave arg as it found it. */
struct standin_work {
    const char *kind; /* "dnn", "nccl": for the trace; static text */
    const char *name; /* copied */
    size_t bytes;
    /* 1: done. 0: cannot yet; tried again, others go on. Negative: an asynchronous
     * fault, minus a cudaError_t, which every later call then returns. */
    int (*attempt)(void *arg);
    /* Called once when the work can never run again, also if the enqueueing fails; makes no CUDA
     * call either. NULL: nothing to free. */
    void (*destroy)(void *arg);
    void *arg;
};

cudaError_t standin_enqueue(cudaStream_t stream, const struct standin_work *work);

/* The CPU version of a kernel. run() is called once a launch, or once a launch of the graph that
 * the launch was captured into. */
struct standin_kernel {
    void *(*pack)(void **args); /* copies the arguments that cudaLaunchKernel() points to */
    cudaError_t (*run)(const void *packed, dim3 grid, dim3 block, size_t shared_bytes);
    void (*release)(void *packed);
};

/* name: mangled, as nvcc has it; copied, as is the kernel. */
void standin_register_kernel(const char *name, const struct standin_kernel *kernel);

/* A line in the trace for a call that is no operation, as stream -1. */
void standin_note(const char *kind, const char *name, size_t bytes);

/* Whether [p, p + bytes) lies within one live piece of device memory. */
int standin_is_device_memory(const void *p, size_t bytes);

/* Operations executed so far by this process. */
long standin_operations(void);

#ifdef __cplusplus
}
#endif

#endif
