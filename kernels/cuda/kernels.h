/* Our CUDA kernels, as the host calls them: one launcher each, in C.
 *
 * Every launcher puts work on `stream` and returns what the launch came to; it waits for nothing,
 * allocates nothing and may be captured into a CUDA graph (what differs from step to step is in
 * device memory or outside of the graph). Pointers are device memory, aligned to 16 bytes, unless
 * said otherwise. The semantics - formulas, overwrite or add, what may alias what - are those of
 * the operation of the same name in kernels/backend.h; here is only what CUDA adds.
 *
 * Types. T is what activations are stored in (enum apd_cuda_type). Everything else - images,
 * parameters, gradients of parameters, moments, rows of features and logits - is float, sums are
 * double. Arithmetic is float with explicit fmaf, sums as said.
 *
 * Layout. Activations are [n][h * w][C] with C = channels rounded up to APD_CUDA_CHANNELS; padding
 * channels are zero. Images are plain float [n][c][h][w].
 *
 * Reductions have two stages with a number of blocks that follows from the shape alone, no atomics:
 * the same bits in every run on every GPU of the same kind. `scratch`: apd_cuda_scratch_bytes(). */
#ifndef APD_KERNELS_CUDA_KERNELS_H
#define APD_KERNELS_CUDA_KERNELS_H

#include "kernels/backend.h"

#include <cuda_runtime_api.h>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum apd_cuda_type { APD_CUDA_F32, APD_CUDA_F16, APD_CUDA_BF16, APD_CUDA_TYPES };

enum { APD_CUDA_CHANNELS = 8 };

/* By value into kernels: 3 KiB of the 4 KiB that every CUDA accepts. */
struct apd_cuda_segments {
    int count;
    struct apd_segment at[APD_MAX_SEGMENTS];
};

/* One vector per parameter set. */
struct apd_cuda_sets {
    const float *at[APD_BN_SETS];
};

/* Bytes that any launcher below needs as scratch for up to `channels` channels (or classes) and
 * `segments` segments. Calls on one stream may share it. */
size_t apd_cuda_scratch_bytes(int channels, int segments);

/* ---- images (input.cu) ---- */

/* sample, epoch: device, [n]; NULL sample: no noise. Same Philox stream as base/rng.h, bit for bit.
 * bytes: device. noisy may be NULL. */
cudaError_t apd_cuda_input_pack(int n, size_t pixels, const uint8_t *bytes, const uint64_t *sample,
                                const uint32_t *epoch, uint64_t seed, int purpose, double range,
                                float *x, float *noisy, cudaStream_t stream);
/* slot: device, [n], or NULL. */
cudaError_t apd_cuda_attack_step(int n, size_t pixels, const float *x, const float *at,
                                 const float *d_x, double step, double eps, const int32_t *slot,
                                 float *next, cudaStream_t stream);
/* mix->partner is ignored; partner: device, [n]. */
cudaError_t apd_cuda_mix_images(int n, struct apd_shape shape, const float *src,
                                const struct apd_mix *mix, const int32_t *partner, float *dst,
                                cudaStream_t stream);
/* index: device, [rows]. Any row size. */
cudaError_t apd_cuda_rows_gather(int rows, size_t row_bytes, const void *src, const int32_t *index,
                                 void *dst, cudaStream_t stream);
/* float NCHW image -> T activation [n][h * w][C], padding zero; and back. */
cudaError_t apd_cuda_image_to_activation(enum apd_cuda_type type, int n, struct apd_shape shape,
                                         const float *src, void *dst, cudaStream_t stream);
cudaError_t apd_cuda_activation_to_image(enum apd_cuda_type type, int n, struct apd_shape shape,
                                         const void *src, float *dst, cudaStream_t stream);

/* ---- batch norm (bn_moments.cu, bn_forward.cu, bn_backward.cu, bn_pool.cu) ---- */

/* A layer over a batch. Segments may be empty and need not cover the batch: images outside of them
 * are not touched. */
struct apd_cuda_bn {
    enum apd_cuda_type type;
    struct apd_shape shape; /* c: not rounded up */
    const struct apd_cuda_segments *seg;
    const void *x;
    const float *moments; /* [segments][2][C] */
    struct apd_cuda_sets gamma, beta;
};

/* How the backward pass knows which elements ReLU let through: those whose y, as stored, is not
 * <= 0. */
enum apd_cuda_relu_by {
    APD_CUDA_RELU_NONE,  /* there is no ReLU */
    APD_CUDA_RELU_MASK,  /* by the mask that apd_cuda_bn_forward made */
    APD_CUDA_RELU_REMADE /* computed again from x: the same bits. Only if nothing was added */
};

struct apd_cuda_relu {
    enum apd_cuda_relu_by by;
    const uint8_t *mask;
};

/* sums[s * stride ...] = {sum x [C], sum x^2 [C]}; stride in doubles, >= 2 C. */
cudaError_t apd_cuda_bn_sums(enum apd_cuda_type type, struct apd_shape shape,
                             const struct apd_cuda_segments *seg, const void *x, double *sums,
                             size_t stride, void *scratch, cudaStream_t stream);
/* count: host, [segments]. moments: [segments][2][C]. */
cudaError_t apd_cuda_bn_moments(int c, int segments, const double *sums, size_t stride,
                                const double *count, double eps, float *moments,
                                cudaStream_t stream);
cudaError_t apd_cuda_bn_moments_running(int c, const float *running_mean, const float *running_var,
                                        double eps, float *moments, cudaStream_t stream);
/* y = act(bn(x) + what is added). At most one of: other, a layer of the same type, shape and
 * segments (a shortcut's projection), not rounded to T in between; add, an activation. mask may be
 * NULL: [elements of y / 8], bit k of byte i = y[8 i + k] as stored is not <= 0. */
cudaError_t apd_cuda_bn_forward(const struct apd_cuda_bn *bn, const struct apd_cuda_bn *other,
                                const void *add, int relu, void *y, uint8_t *mask,
                                cudaStream_t stream);
/* d_sums: [segments][2][C]. d_g may be NULL: not written. other may be NULL; its x had the same g,
 * whose sums with it go to d_sums_other. Not with APD_CUDA_RELU_REMADE. */
cudaError_t apd_cuda_bn_backward_sums(const struct apd_cuda_bn *bn,
                                      const struct apd_cuda_relu *relu, const void *d_y,
                                      const void *d_y2, void *d_g, double *d_sums,
                                      const struct apd_cuda_bn *other, double *d_sums_other,
                                      void *scratch, cudaStream_t stream);
/* count: host, [segments]. other as above (NULL: neither of the last two); sum g is taken from
 * d_sums for both. Either of d_x and d_x_other may be d_g. */
cudaError_t apd_cuda_bn_backward_data(const struct apd_cuda_bn *bn, const void *d_g,
                                      const double *d_sums, const double *count, int batch_stats,
                                      void *d_x, const struct apd_cuda_bn *other,
                                      const double *d_sums_other, void *d_x_other,
                                      cudaStream_t stream);
/* Batch norm, ReLU and max pool, y not stored: bit for bit what apd_cuda_bn_forward and
 * apd_cuda_maxpool_forward make. */
cudaError_t apd_cuda_bn_pool_forward(const struct apd_cuda_bn *bn, void *pooled, uint8_t *which,
                                     cudaStream_t stream);
/* d_y (+ d_y2): of the pooled values. d_g: of x's size, what apd_cuda_maxpool_backward makes, zero
 * where ReLU let nothing through; with d_sums as apd_cuda_bn_backward_sums, bit for bit. */
cudaError_t apd_cuda_bn_pool_backward_sums(const struct apd_cuda_bn *bn, const void *d_y,
                                           const void *d_y2, const uint8_t *which, void *d_g,
                                           double *d_sums, void *scratch, cudaStream_t stream);
cudaError_t apd_cuda_bn_backward_params(int c, const struct apd_cuda_segments *seg,
                                        const double *d_sums, float *const d_gamma[APD_BN_SETS],
                                        float *const d_beta[APD_BN_SETS], cudaStream_t stream);
cudaError_t apd_cuda_bn_update_running(int c, const double *sums, double count, double momentum,
                                       float *running_mean, float *running_var,
                                       cudaStream_t stream);

/* ---- pooling (pool.cu) ---- */

cudaError_t apd_cuda_maxpool_forward(enum apd_cuda_type type, struct apd_shape in, int n,
                                     const void *src, void *dst, uint8_t *which,
                                     cudaStream_t stream);
/* Gathers: every element of d_src asks the at most four windows it is in. */
cudaError_t apd_cuda_maxpool_backward(enum apd_cuda_type type, struct apd_shape in, int n,
                                      const void *d_dst, const uint8_t *which, void *d_src,
                                      cudaStream_t stream);
/* dst: float rows [n][c], not padded; d_dst likewise. */
cudaError_t apd_cuda_avgpool_forward(enum apd_cuda_type type, struct apd_shape in, int n,
                                     const void *src, float *dst, cudaStream_t stream);
cudaError_t apd_cuda_avgpool_backward(enum apd_cuda_type type, struct apd_shape in, int n,
                                      const float *d_dst, void *d_src, cudaStream_t stream);

/* ---- classifier and loss (loss.cu) ---- */

/* Plain float rows [n][c] -> T rows [n][C], padding zero. */
cudaError_t apd_cuda_rows_pack(enum apd_cuda_type type, int n, int c, const float *src, void *dst,
                               cudaStream_t stream);
/* T rows [n][C] (+ bias[c] if not NULL) -> plain float rows [n][c]; add: added to dst. */
cudaError_t apd_cuda_rows_unpack(enum apd_cuda_type type, int n, int c, const void *src,
                                 const float *bias, int add, float *dst, cudaStream_t stream);
/* loss: device doubles [segments][4] = {ce_sum, images, top1, top5}, overwritten. All of targets'
 * pointers are device. */
cudaError_t apd_cuda_softmax_ce(int n, int classes, const float *logits,
                                const struct apd_targets *targets,
                                const struct apd_cuda_segments *seg, double *loss, float *d_logits,
                                void *scratch, cudaStream_t stream);
/* sum[c] += column sums of rows [n][c]. */
cudaError_t apd_cuda_column_sums(int n, int c, const float *rows, float *sum, void *scratch,
                                 cudaStream_t stream);

/* ---- flat arrays (flat.cu) ---- */

/* dst (T) = src */
cudaError_t apd_cuda_cast(enum apd_cuda_type type, size_t n, const float *src, void *dst,
                          cudaStream_t stream);
/* dst += src (T) */
cudaError_t apd_cuda_accumulate(enum apd_cuda_type type, size_t n, const void *src, float *dst,
                                cudaStream_t stream);
/* dst += src, T both: gradients of activations */
cudaError_t apd_cuda_add(enum apd_cuda_type type, size_t n, const void *src, void *dst,
                         cudaStream_t stream);
cudaError_t apd_cuda_add_doubles(size_t n, const double *src, double *dst, cudaStream_t stream);
/* copy (T) = the new w; NULL: none. */
cudaError_t apd_cuda_sgd(enum apd_cuda_type type, size_t n, const struct apd_sgd *sgd,
                         const float *d_w, float *w, float *m, void *copy, cudaStream_t stream);
cudaError_t apd_cuda_average(size_t n, double decay, const float *x, float *a, cudaStream_t stream);
/* *bad (device double) = 1 if any element is infinite or NaN, else 0. */
cudaError_t apd_cuda_nonfinite(size_t n, const float *x, double *bad, void *scratch,
                               cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
