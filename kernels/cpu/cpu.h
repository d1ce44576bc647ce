/* The CPU backend: oneDNN for convolutions and the classifier's products, our own loops (simd.h)
 * for the rest. Activations are nChw16c (AVX-512) or nChw8c; channels beyond c are kept zero.
 *
 * Results are bitwise equal from call to call with the same shapes and thread count: sums are made
 * of partial sums over fixed pieces of the batch, added in one order. One thread drives a backend;
 * inside, `threads` OpenMP threads share each operation. */
#ifndef APD_KERNELS_CPU_H
#define APD_KERNELS_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/simd.h"

#include <dnnl.h>

/* Memory that grows to the largest demand and then stays. */
struct cpu_scratch {
    void *data;
    size_t bytes;
};

enum cpu_scratch_use {
    CPU_PRIMITIVE,    /* oneDNN's scratchpad */
    CPU_SRC,          /* a convolution's src or d_src in another layout */
    CPU_DST,          /* its dst or d_dst */
    CPU_D_WEIGHTS,    /* a fresh weight gradient in the weights' layout */
    CPU_D_WEIGHTS_IN, /* and in the layout the primitive wants */
    CPU_PIECES,       /* struct cpu_piece of the running BN call */
    CPU_PARTIALS,     /* partial sums, one per piece and block of channels */
    CPU_ROWS,         /* one result per image of the loss */
    CPU_SCRATCHES
};

enum cpu_algo { CPU_ALGO_AUTO, CPU_ALGO_DIRECT, CPU_ALGO_WINOGRAD };

struct cpu_backend {
    struct apd_backend base;
    struct apd_backend_ops ops;
    const struct apd_simd *simd;
    int threads;
    enum cpu_algo algo;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    uint64_t weights_version; /* +1 by weights_changed() and sgd() */
    struct cpu_scratch scratch[CPU_SCRATCHES];
};

static inline struct cpu_backend *cpu_of(struct apd_backend *be)
{
    return (struct cpu_backend *)be;
}

/* Blocks of channels that c channels take. */
static inline size_t cpu_blocks(const struct cpu_backend *cpu, int c)
{
    return ((size_t)c + (size_t)cpu->simd->block - 1) / (size_t)cpu->simd->block;
}

/* At least `bytes` of 64-byte aligned memory; the content is lost when it grows. */
APD_MUST_USE enum apd_code cpu_reserve(struct cpu_backend *cpu, enum cpu_scratch_use use,
                                       size_t bytes, struct apd_err *err);

/* Number of threads worth waking for work on `elems` elements. */
static inline int cpu_threads_for(const struct cpu_backend *cpu, size_t elems)
{
    return elems < 8192 ? 1 : cpu->threads;
}

/* Writes the failed call's text into err; out of memory is APD_NOMEM, anything else APD_DEVICE. */
enum apd_code cpu_vendor_failed(struct apd_err *err, dnnl_status_t status, const char *call);

/* Jumps to `done` if a oneDNN call fails, with the code in `rc`. */
#define DNNL_GO(call)                                                                              \
    do {                                                                                           \
        dnnl_status_t dnnl_go_status_ = (call);                                                    \
        if (dnnl_go_status_ != dnnl_success) {                                                     \
            rc = cpu_vendor_failed(err, dnnl_go_status_, #call);                                   \
            goto done;                                                                             \
        }                                                                                          \
    } while (0)

/* Each family of operations fills its part of the table. */
void cpu_memory_ops(struct apd_backend_ops *ops);
void cpu_conv_ops(struct apd_backend_ops *ops);
void cpu_bn_ops(struct apd_backend_ops *ops);
void cpu_pool_ops(struct apd_backend_ops *ops);
void cpu_linear_ops(struct apd_backend_ops *ops);
void cpu_loss_ops(struct apd_backend_ops *ops);
void cpu_image_ops(struct apd_backend_ops *ops);
void cpu_flat_ops(struct apd_backend_ops *ops);

#endif
