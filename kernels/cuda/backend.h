/* What the parts of the CUDA backend share. A part fills its operations into the table; all of them
 * put their work on one stream, so that order is that of the calls. */
#ifndef APD_KERNELS_CUDA_BACKEND_H
#define APD_KERNELS_CUDA_BACKEND_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/dnn.h"

/* The backend's own device memory; without a plan each grows to the largest demand and stays. */
enum cuda_buffer {
    CUDA_WORKSPACE, /* cuDNN's */
    CUDA_SCRATCH,   /* of the kernels' reductions */
    CUDA_IMAGES,    /* a batch of images, or their gradient, as an activation */
    CUDA_WEIGHTS,   /* the weights in T */
    CUDA_D_WEIGHTS, /* a fresh weight gradient in T */
    CUDA_ARGUMENTS, /* arrays that came with a call: sample numbers, partners, rows */
    CUDA_ROWS_IN,   /* the classifier's operands in T */
    CUDA_ROWS_OUT,
    CUDA_ROWS_WEIGHTS,
    CUDA_STAGE_0, /* images on their way in, of this step and of the next */
    CUDA_STAGE_1,
    CUDA_BUFFERS
};

/* A buffer that became too small while there were recordings, which may still use it. */
struct cuda_outgrown {
    void *at;
    struct cuda_outgrown *next;
};

struct cuda_block;

/* The planned memory; backend_arena.c. */
struct cuda_arena {
    char *at; /* NULL: no plan */
    size_t bytes, used;
    struct cuda_block *newest;
    int measuring;
    size_t most; /* used, when measuring */
    size_t left; /* free on the GPU beside it, when it was taken */
};

/* Pinned host memory through which uploads go, in two halves that take turns. */
struct cuda_ring {
    char *at;
    size_t used; /* of the half in use */
    int half;
    cudaEvent_t done[2]; /* copies out of a half */
};

/* Where stage() copies to. */
struct cuda_slot {
    cudaEvent_t copied, read; /* the newest copy into it; the newest input_pack() of it */
    int is_new;               /* nothing waits for the copy yet */
};

struct cuda_backend {
    struct apd_backend base;
    struct apd_backend_ops ops;
    struct apd_cuda_options is;
    struct apd_dnn *dnn;
    cudaStream_t stream, copy; /* copy: of stage() alone */
    struct {
        void *at;
        size_t bytes;
    } buffer[CUDA_BUFFERS];
    struct cuda_outgrown *outgrown;
    struct cuda_arena arena;
    int recordings;      /* that exist */
    const void *weights; /* whose copy in T CUDA_WEIGHTS is */
    size_t weights_bytes;
    struct cuda_ring ring;
    char *bounce; /* pinned: downloads go through it */
    cudaEvent_t downloaded;
    struct cuda_slot slot[2];
    int next_slot;
    int marked;       /* a profiler's range is open */
    int recording;    /* between record_begin and record_end */
    char device[256]; /* name */
    enum apd_code (*poll)(void *ctx, struct apd_err *err);
    void *poll_ctx;
};

static inline struct cuda_backend *cuda_of(struct apd_backend *be)
{
    return (struct cuda_backend *)be;
}

static inline size_t cuda_channels(int c)
{
    return ((size_t)c + APD_CUDA_CHANNELS - 1) / APD_CUDA_CHANNELS * APD_CUDA_CHANNELS;
}

/* What a call brings along for so many rows: at the most a sample number and an epoch each. */
static inline size_t cuda_argument_bytes(int rows)
{
    return (size_t)rows * 16 + 32;
}

/* At least `bytes` of device memory in *out; the content is lost when it grows. */
APD_MUST_USE enum apd_code cuda_reserve(struct cuda_backend *cuda, enum cuda_buffer which,
                                        size_t bytes, void **out, struct apd_err *err);

/* When nothing uses it any more. */
void cuda_free_outgrown(struct cuda_backend *cuda);

/* Waits on the host, polling. */
APD_MUST_USE enum apd_code cuda_wait(struct cuda_backend *cuda, cudaEvent_t event,
                                     struct apd_err *err);

/* Frees the arena, or the buffers. */
void cuda_arena_fini(struct cuda_backend *cuda);

/* Makes the plans of a problem, whichever its op: forward and, if asked for, the gradient of w, of
 * x; and their workspace. */
APD_MUST_USE enum apd_code cuda_make_plans(struct cuda_backend *cuda,
                                           struct apd_dnn_problem problem, int d_w, int d_x,
                                           struct apd_err *err);
/* Runs a convolution plan on the stream. */
APD_MUST_USE enum apd_code cuda_run_plan(struct cuda_backend *cuda,
                                         const struct apd_dnn_problem *problem, const void *x,
                                         const void *w, const void *y, struct apd_err *err);

/* Weights w as the convolutions compute with them: their copy in T, or w itself in float. */
APD_MUST_USE enum apd_code cuda_weights(struct cuda_backend *cuda, const void *w, const void **out,
                                        struct apd_err *err);

/* Around what reads `bytes`, which may be those of stage(). */
APD_MUST_USE enum apd_code cuda_stage_read_begin(struct cuda_backend *cuda, const uint8_t *bytes,
                                                 struct apd_err *err);
APD_MUST_USE enum apd_code cuda_stage_read_end(struct cuda_backend *cuda, const uint8_t *bytes,
                                               struct apd_err *err);

void cuda_arena_ops(struct apd_backend_ops *ops);
void cuda_memory_ops(struct apd_backend_ops *ops);
void cuda_stage_ops(struct apd_backend_ops *ops);
void cuda_conv_ops(struct apd_backend_ops *ops);
void cuda_weights_ops(struct apd_backend_ops *ops);
void cuda_bn_ops(struct apd_backend_ops *ops);
void cuda_head_ops(struct apd_backend_ops *ops);
void cuda_image_ops(struct apd_backend_ops *ops);
void cuda_flat_ops(struct apd_backend_ops *ops);
void cuda_record_ops(struct apd_backend_ops *ops);

#endif
