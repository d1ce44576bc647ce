/* The backend table: every operation of the training step, once per kind of device.
 *
 * Who uses it: worker/. Who implements it: kernels/ref (plain C, float or double, the oracle),
 * kernels/cpu (oneDNN + SIMD), kernels/cuda. Nothing here knows about networks, workers or
 * MPI.
 *
 * Memory. A pointer marked "device" was given by alloc() (or lies inside such a block) and is only
 * ever read or written through this table. Elements are elem_bytes wide (4; 8 for the double
 * reference); those of activations act_bytes, which may be less (2 on a GPU).
 *
 * Activations (device) are image-major: image i of a tensor of c x h x w starts at element
 * i * image_elems(c, h, w); what lies inside an image is the backend's own layout (blocks of
 * channels on the CPU) and includes any padding, which backends keep zero. So a run of images is a
 * sub-tensor. Input images and rows (features, logits) are no activations: they are plain c x h x w
 * (NCHW) and [n][c], of elements.
 *
 * Parameters live in flat device arrays owned by the caller. A convolution's weights take
 * conv_weight_elems() elements in a layout of the backend's choice; conv_import/export convert from
 * and to canonical OIHW float on the host. All other parameters are plain vectors; a per-channel
 * vector of c channels takes channel_elems(c) elements, of which those from c on are zero in gamma,
 * beta, their gradients and momentum. Elementwise operations (sgd, add, all-reduce) run over whole
 * flat arrays.
 *
 * Execution is in order of the calls. A backend may return before the work is done; only download()
 * and download_floats() wait, for what was called before them. Host memory that a function reads
 * may change as soon as it has returned (but for stage()). Functions that return a code write err
 * on failure; after APD_DEVICE the backend is only good for destroy. One thread drives a backend; a
 * backend may use more threads inside. */
#ifndef APD_KERNELS_BACKEND_H
#define APD_KERNELS_BACKEND_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum apd_bn_set { APD_BN_MAIN = 0, APD_BN_AUX = 1, APD_BN_SETS = 2 };

/* Images [first, first + count) normalise together with parameter set `set`. count may be 0.
 * Segments of one call are disjoint and ascending. */
struct apd_segment {
    int first, count;
    enum apd_bn_set set;
};

#define APD_MAX_SEGMENTS 256

struct apd_shape {
    int c, h, w; /* of one image */
};

struct apd_conv_shape {
    struct apd_shape in; /* h, w > 0 */
    int out_c, kernel, stride, pad, groups;
    int input_is_image; /* src is an input image tensor (plain NCHW) */
};

struct apd_conv;      /* one convolution layer, created by the backend */
struct apd_recording; /* operations to be done again */

/* One segment's result of softmax_ce. */
struct apd_loss {
    double ce_sum;  /* sum over images of weight_i != 0 of CE, not multiplied by the weight */
    int64_t images; /* with weight != 0 */
    int64_t top1, top5;
};

/* On the device it is this many doubles, in the order of struct apd_loss. */
enum { APD_LOSS_DOUBLES = 4 };

static inline struct apd_loss apd_loss_from(const double at[APD_LOSS_DOUBLES])
{
    return (struct apd_loss){at[0], (int64_t)at[1], (int64_t)at[2], (int64_t)at[3]};
}

static inline void apd_loss_put(const struct apd_loss *loss, double at[APD_LOSS_DOUBLES])
{
    at[0] = loss->ce_sum;
    at[1] = (double)loss->images;
    at[2] = (double)loss->top1;
    at[3] = (double)loss->top5;
}

/* A batch norm on a batch: (x - mean) * rstd * gamma + beta. */
struct apd_bn {
    struct apd_shape shape;
    const struct apd_segment *seg;
    int segments;
    const void *x;                                      /* device activation */
    const void *moments;                                /* device, of the segments */
    const void *gamma[APD_BN_SETS], *beta[APD_BN_SETS]; /* device, [C] */
};

/* How a backward pass knows where the ReLU after a batch norm was 0. */
struct apd_relu {
    const void *y;       /* of bn_forward */
    const uint8_t *mask; /* of bn_forward; may be NULL if nothing was added to the batch norm */
};

/* Targets of a batch (device): label[i] in [0, classes). Mixed labels (mixup, CutMix): the target
 * is keep[i] * onehot(label[i]) + (1 - keep[i]) * onehot(label2[i]); label2 == NULL: not mixed.
 * Then smoothing s turns onehot into 1 - s at the label and s / (classes - 1) elsewhere. weight[i]
 * multiplies the image's gradient; 0 also leaves the image out of every count. */
struct apd_targets {
    const int32_t *label;  /* device, [n] */
    const int32_t *label2; /* device, [n] or NULL */
    const void *keep;      /* device, [n] elements, or NULL */
    const void *weight;    /* device, [n] elements */
    double smoothing;
};

/* Where pixel noise comes from (base/rng.h): one Philox stream per image. */
struct apd_noise {
    const uint64_t *sample; /* host, [n] */
    const uint32_t *epoch;  /* host, [n] */
    uint64_t seed;
    int purpose;  /* enum apd_purpose */
    double range; /* delta ~ U(-range, range) in normalised units */
};

/* Mixing of the images of a batch: image i with image partner[i]. */
struct apd_mix {
    const int32_t *partner; /* host, [n] */
    double share;           /* of the partner in every pixel; not used with a box */
    int is_box; /* rows [top, bottom), columns [left, right) are the partner's, no other pixel */
    int top, bottom, left, right;
};

struct apd_sgd {
    double grad_scale; /* multiplies the summed gradient: 1 / weighted image count */
    double lr, momentum, weight_decay;
    int nesterov;
};

/* The most that operations other than convolutions and the classifier will be given. */
struct apd_demand {
    int rows;               /* of input_pack() with noise, mix_images(), rows_gather() */
    int channels, segments; /* of bn_*(); classes and segments of softmax_ce() */
    size_t weights;         /* elements, of weights_changed() */
    size_t stage_bytes;
};

/* What the device memory of a run comes to, in bytes. */
struct apd_memory_plan {
    size_t activations, weights; /* told by the caller; weights: momentum and gradients as well */
    int workers;                 /* that exchange sums and rows; told by the caller */
    size_t workspace;            /* of convolutions */
    size_t other;
    size_t needed;      /* all of the above */
    size_t kept;        /* not taken, for libraries that allocate by themselves */
    size_t free, total; /* of the device, before */
};

struct apd_backend;

struct apd_backend_ops {
    void (*destroy)(struct apd_backend *be);

    /* ---- planning of memory; all NULL where there is none ----
     * Before anything is allocated. Between begin and end alloc() and the *prepare() operations
     * only measure: everything is made once and freed again, and nothing is computed. After that
     * the same is made in earnest, of one piece of memory taken by end; more than that is APD_BUG.
     */
    void (*plan_begin)(struct apd_backend *be);
    /* What is allocated now. */
    size_t (*plan_used)(struct apd_backend *be);
    /* plan: activations, weights and workers are told, the rest is filled. NULL: forgets what was
     * measured. APD_DEVICE in one sentence if the device has not that much. */
    enum apd_code (*plan_end)(struct apd_backend *be, struct apd_memory_plan *plan,
                              struct apd_err *err);
    /* So that no operation allocates for what stays within the demand. Called by apd_prepare(). */
    enum apd_code (*prepare)(struct apd_backend *be, const struct apd_demand *demand,
                             struct apd_err *err);

    /* ---- memory ---- */
    /* Zeroed, aligned to 64 bytes. */
    enum apd_code (*alloc)(struct apd_backend *be, size_t bytes, void **out, struct apd_err *err);
    void (*free)(struct apd_backend *be, void *device);
    enum apd_code (*upload)(struct apd_backend *be, void *device, const void *host, size_t bytes,
                            struct apd_err *err);
    enum apd_code (*download)(struct apd_backend *be, void *host, const void *device, size_t bytes,
                              struct apd_err *err);
    /* Element conversion: host float <-> device elements. */
    enum apd_code (*upload_floats)(struct apd_backend *be, void *device, const float *host,
                                   size_t n, struct apd_err *err);
    enum apd_code (*download_floats)(struct apd_backend *be, float *host, const void *device,
                                     size_t n, struct apd_err *err);
    enum apd_code (*zero)(struct apd_backend *be, void *device, size_t bytes, struct apd_err *err);
    enum apd_code (*copy)(struct apd_backend *be, void *dst, const void *src, size_t bytes,
                          struct apd_err *err);
    /* Host memory for input_pack(): *out_device may be given to it until the second next stage().
     * Only input_pack() waits for the copy, which may go on beside what was called before and
     * after. The host's memory has to stay as it is until a download() after an input_pack() of
     * it, or until unpin(). */
    enum apd_code (*stage)(struct apd_backend *be, const void *host, size_t bytes,
                           const void **out_device, struct apd_err *err);
    /* Host memory that stage() will be given often: copies from it go on beside other work. Both
     * NULL where that makes no difference. */
    enum apd_code (*pin)(struct apd_backend *be, void *host, size_t bytes, struct apd_err *err);
    void (*unpin)(struct apd_backend *be, void *host);
    size_t (*image_elems)(struct apd_backend *be, struct apd_shape shape);
    size_t (*channel_elems)(struct apd_backend *be, int c);
    /* Activation tensor <-> canonical NCHW floats on the host; for tests and dumps. */
    enum apd_code (*activation_import)(struct apd_backend *be, struct apd_shape shape, int n,
                                       const float *nchw, void *device, struct apd_err *err);
    enum apd_code (*activation_export)(struct apd_backend *be, struct apd_shape shape, int n,
                                       const void *device, float *nchw, struct apd_err *err);

    /* ---- convolution: no bias; out = (in + 2 pad - kernel) / stride + 1 ---- */
    enum apd_code (*conv_create)(struct apd_backend *be, const struct apd_conv_shape *shape,
                                 struct apd_conv **out, struct apd_err *err);
    void (*conv_destroy)(struct apd_backend *be, struct apd_conv **conv);
    size_t (*conv_weight_elems)(const struct apd_conv *conv);
    enum apd_code (*conv_import)(struct apd_backend *be, const struct apd_conv *conv,
                                 const float *oihw, void *weights, struct apd_err *err);
    enum apd_code (*conv_export)(struct apd_backend *be, const struct apd_conv *conv,
                                 const void *weights, float *oihw, struct apd_err *err);
    /* Makes ready everything for a batch of n images, so that no call below allocates for it: the
     * forward operation and, if asked for, the gradient of the weights, of the source. */
    enum apd_code (*conv_prepare)(struct apd_backend *be, struct apd_conv *conv, int n, int d_w,
                                  int d_src, struct apd_err *err);
    /* dst = src * w (overwrites). */
    enum apd_code (*conv_forward)(struct apd_backend *be, struct apd_conv *conv, int n,
                                  const void *src, const void *w, void *dst, struct apd_err *err);
    /* d_src = d_dst *^T w (overwrites). For input_is_image, d_src is an input image tensor. */
    enum apd_code (*conv_backward_data)(struct apd_backend *be, struct apd_conv *conv, int n,
                                        const void *d_dst, const void *w, void *d_src,
                                        struct apd_err *err);
    /* d_w += gradient, in the layout of the weights. */
    enum apd_code (*conv_backward_weights)(struct apd_backend *be, struct apd_conv *conv, int n,
                                           const void *src, const void *d_dst, void *d_w,
                                           struct apd_err *err);
    /* weights[n] (device) hold what the operations of convolution and classifier are given as w
     * from now on, and may have changed other than by sgd(), which needs no telling: copies in
     * other layouts and types are made anew. */
    enum apd_code (*weights_changed)(struct apd_backend *be, const void *weights, size_t n,
                                     struct apd_err *err);

    /* ---- batch norm over segments ----
     * C = channel_elems(c). sums: device doubles, [2][C] of segment s from s * stride on, stride >=
     * 2 C or, where they are read, 0; d_sums: device doubles [segments][2][C]; moments: device
     * elements [segments][2][C] = {mean, 1 / sqrt(variance + eps)}. M = images of the segment * h *
     * w. What takes a struct apd_bn leaves images outside of its segments alone. */

    /* sums[s] = {sum x, sum x^2} over the segment's images, in double and without cancellation
     * trouble: the variance sum x^2 / M - mean^2 is good to 1e-5 relative even where |mean| = 100
     * deviations. */
    enum apd_code (*bn_sums)(struct apd_backend *be, struct apd_shape shape,
                             const struct apd_segment *seg, int segments, const void *x,
                             double *sums, size_t stride, struct apd_err *err);
    /* moments from sums over count[s] values each (host; biased variance). count 0: {0, 0}; < 0:
     * the segment's are left as they are. */
    enum apd_code (*bn_moments)(struct apd_backend *be, int c, int segments, const double *sums,
                                size_t stride, const double *count, double eps, void *moments,
                                struct apd_err *err);
    /* One segment's moments from running statistics (device, [C]). */
    enum apd_code (*bn_moments_running)(struct apd_backend *be, int c, const void *running_mean,
                                        const void *running_var, double eps, void *moments,
                                        struct apd_err *err);
    /* y = act(bn(x) + add) or act(bn(x) + other(x')), act = ReLU if relu; add, other: NULL, or of
     * the shape and segments of bn. y may be x (without other) or add. mask: relu_mask_bytes() for
     * the backward pass, or NULL. */
    enum apd_code (*bn_forward)(struct apd_backend *be, const struct apd_bn *bn,
                                const struct apd_bn *other, const void *add, int relu, void *y,
                                uint8_t *mask, struct apd_err *err);
    /* Of n images; 0 where the backward pass reads y. */
    size_t (*relu_mask_bytes)(struct apd_backend *be, struct apd_shape shape, int n);
    /* First half of the backward pass. g = d_y (+ d_y2), zeroed where the ReLU's y <= 0 (relu NULL:
     * no ReLU). g is written to d_g (may be d_y or d_y2); d_sums[s] = {sum g, sum g * xhat}, xhat =
     * (x - mean) * rstd; d_sums_other likewise of `other`, which may be NULL. d_g is also the
     * gradient of `add`. */
    enum apd_code (*bn_backward_sums)(struct apd_backend *be, const struct apd_bn *bn,
                                      const struct apd_bn *other, const struct apd_relu *relu,
                                      const void *d_y, const void *d_y2, void *d_g, double *d_sums,
                                      double *d_sums_other, struct apd_err *err);
    /* Second half. batch_stats: d_x = gamma rstd (g - sum g / M - xhat sum(g xhat) / M), M =
     * count[s] (host); otherwise (moments from running statistics) d_x = gamma rstd g. Likewise
     * d_x_other, if `other` is not NULL. One of d_x and d_x_other may be d_g. */
    enum apd_code (*bn_backward_data)(struct apd_backend *be, const struct apd_bn *bn,
                                      const struct apd_bn *other, const void *d_g,
                                      const double *d_sums, const double *d_sums_other,
                                      const double *count, int batch_stats, void *d_x,
                                      void *d_x_other, struct apd_err *err);
    /* bn_forward with ReLU and the max pool after it in one, y not kept; and bn_backward_sums of
     * it: d_y (+ d_y2) is the gradient of the pooled, d_g that before the ReLU. The same bits as
     * the operations one by one. Both NULL where one by one is as good. */
    enum apd_code (*bn_pool_forward)(struct apd_backend *be, const struct apd_bn *bn, void *pooled,
                                     uint8_t *which, struct apd_err *err);
    enum apd_code (*bn_pool_backward_sums)(struct apd_backend *be, const struct apd_bn *bn,
                                           const void *d_y, const void *d_y2, const uint8_t *which,
                                           void *d_g, double *d_sums, struct apd_err *err);
    /* d_gamma[set] += sum(g xhat), d_beta[set] += sum g, segments in ascending order. */
    enum apd_code (*bn_backward_params)(struct apd_backend *be, int c,
                                        const struct apd_segment *seg, int segments,
                                        const double *d_sums, void *const d_gamma[APD_BN_SETS],
                                        void *const d_beta[APD_BN_SETS], struct apd_err *err);
    /* running = (1 - momentum) running + momentum batch; variance unbiased (M / (M - 1)) in the
     * buffer. sums: device doubles [2][C] over count values. count < 2 leaves the variance alone; 0
     * both. */
    enum apd_code (*bn_update_running)(struct apd_backend *be, int c, const double *sums,
                                       double count, double momentum, void *running_mean,
                                       void *running_var, struct apd_err *err);

    /* ---- pooling and classifier ---- */
    /* 3x3, stride 2, padding 1 (padding never wins). which: device bytes, one per output element:
     * the winner's place in the window. */
    enum apd_code (*maxpool_forward)(struct apd_backend *be, struct apd_shape in, int n,
                                     const void *src, void *dst, uint8_t *which,
                                     struct apd_err *err);
    /* Overwrites d_src. */
    enum apd_code (*maxpool_backward)(struct apd_backend *be, struct apd_shape in, int n,
                                      const void *d_dst, const uint8_t *which, void *d_src,
                                      struct apd_err *err);
    /* Mean over h x w; dst: plain rows [n][c]. */
    enum apd_code (*avgpool_forward)(struct apd_backend *be, struct apd_shape in, int n,
                                     const void *src, void *dst, struct apd_err *err);
    enum apd_code (*avgpool_backward)(struct apd_backend *be, struct apd_shape in, int n,
                                      const void *d_dst, void *d_src, struct apd_err *err);
    /* Like conv_prepare(); NULL where there is nothing to make ready. */
    enum apd_code (*linear_prepare)(struct apd_backend *be, int n, int in, int out, int d_w,
                                    int d_x, struct apd_err *err);
    /* Plain rows: logits[n][out] = x[n][in] w[out][in]^T + b[out]. */
    enum apd_code (*linear_forward)(struct apd_backend *be, int n, int in, int out, const void *x,
                                    const void *w, const void *b, void *logits,
                                    struct apd_err *err);
    enum apd_code (*linear_backward_data)(struct apd_backend *be, int n, int in, int out,
                                          const void *d_logits, const void *w, void *d_x,
                                          struct apd_err *err);
    /* d_w, d_b are added to. */
    enum apd_code (*linear_backward_weights)(struct apd_backend *be, int n, int in, int out,
                                             const void *x, const void *d_logits, void *d_w,
                                             void *d_b, struct apd_err *err);
    /* The segments cover the batch. loss: device, [segments][APD_LOSS_DOUBLES]; d_logits = weight_i
     * (softmax - target), not divided by anything; d_logits NULL: losses only. top-k: classes whose
     * logit is strictly greater than the label's, or equal with a lower index, rank before it; NaN
     * never counts as right. */
    enum apd_code (*softmax_ce)(struct apd_backend *be, int n, int classes, const void *logits,
                                const struct apd_targets *targets, const struct apd_segment *seg,
                                int segments, double *loss, void *d_logits, struct apd_err *err);

    /* ---- images ---- */
    /* x = pixel / 127.5 - 1 from bytes [n][pixels] (device, of stage() or not); noisy = x + delta
     * if noise != NULL, else noisy = x. noisy may be NULL. pixels: per image; block of the stream =
     * pixel / 4. */
    enum apd_code (*input_pack)(struct apd_backend *be, int n, size_t pixels, const uint8_t *bytes,
                                const struct apd_noise *noise, void *x, void *noisy,
                                struct apd_err *err);
    /* next = clamp(at + step * sign(d_x), max(x - eps, -1), min(x + eps, 1)), sign(0) = 0; step < 0
     * goes down the loss. slot (host, [n]): image i comes to be image slot[i] of next; NULL: i.
     * Without slots next may be `at`. pixels: per image. */
    enum apd_code (*attack_step)(struct apd_backend *be, int n, size_t pixels, const void *x,
                                 const void *at, const void *d_x, double step, double eps,
                                 const int32_t *slot, void *next, struct apd_err *err);
    /* dst = (1 - share) src + share src[partner], or the box of src[partner] pasted into src. Input
     * images; no overlap. With the inverse permutation it is its own backward pass. */
    enum apd_code (*mix_images)(struct apd_backend *be, int n, struct apd_shape shape,
                                const void *src, const struct apd_mix *mix, void *dst,
                                struct apd_err *err);
    /* dst row i = src row index[i] (host); rows of row_elems elements; no overlap. */
    enum apd_code (*rows_gather)(struct apd_backend *be, int rows, size_t row_elems,
                                 const void *src, const int32_t *index, void *dst,
                                 struct apd_err *err);

    /* ---- flat arrays ---- */
    /* dst += src: elements, doubles, activations (n: elements with padding). */
    enum apd_code (*add)(struct apd_backend *be, size_t n, const void *src, void *dst,
                         struct apd_err *err);
    enum apd_code (*add_doubles)(struct apd_backend *be, size_t n, const double *src, double *dst,
                                 struct apd_err *err);
    enum apd_code (*add_activations)(struct apd_backend *be, size_t n, const void *src, void *dst,
                                     struct apd_err *err);
    /* g = grad_scale * d_w + wd * w; m = mu * m + g; w -= lr * (nesterov ? g + mu * m : m).
     * PyTorch's SGD. */
    enum apd_code (*sgd)(struct apd_backend *be, size_t n, const struct apd_sgd *sgd,
                         const void *d_w, void *w, void *m, struct apd_err *err);
    /* a = decay * a + (1 - decay) * x */
    enum apd_code (*average)(struct apd_backend *be, size_t n, double decay, const void *x, void *a,
                             struct apd_err *err);
    /* *bad (device) = 1 if any element is infinite or NaN, else 0. */
    enum apd_code (*nonfinite)(struct apd_backend *be, size_t n, const void *x, double *bad,
                               struct apd_err *err);

    /* Tells a profiler what the operations from now on are for. NULL: there is none. */
    void (*mark)(struct apd_backend *be, const char *text);

    /* ---- recordings; all four NULL where they gain nothing ----
     * What is called between begin and end is not done but recorded, to be done by each replay()
     * with the same arguments; no alloc, upload, download, stage or prepare in between. */
    enum apd_code (*record_begin)(struct apd_backend *be, struct apd_err *err);
    enum apd_code (*record_end)(struct apd_backend *be, struct apd_recording **out,
                                struct apd_err *err);
    enum apd_code (*replay)(struct apd_backend *be, struct apd_recording *recording,
                            struct apd_err *err);
    void (*recording_destroy)(struct apd_backend *be, struct apd_recording **recording);
};

struct apd_backend {
    const struct apd_backend_ops *ops;
    const char *name; /* "ref", "ref64", "cpu" */
    char layout[32];  /* layout of flat parameter arrays, e.g. "nChw16c"; equal on all workers */
    size_t elem_bytes, act_bytes;
};

static inline enum apd_code apd_prepare(struct apd_backend *be, const struct apd_demand *demand,
                                        struct apd_err *err)
{
    return be->ops->prepare == NULL ? APD_OK : be->ops->prepare(be, demand, err);
}

/* Plain C, float storage, double accumulation. Single-threaded. */
APD_MUST_USE enum apd_code apd_backend_ref(struct apd_backend **out, struct apd_err *err);
/* The same in double storage: for finite differences. */
APD_MUST_USE enum apd_code apd_backend_ref64(struct apd_backend **out, struct apd_err *err);

struct apd_cpu_options {
    int threads;           /* >= 1 */
    const char *isa;       /* "auto", "avx512", "avx2", "baseline" */
    const char *conv_algo; /* "auto", "direct", "winograd" */
};
/* oneDNN + our SIMD kernels. APD_CONFIG if the machine lacks the asked isa. */
APD_MUST_USE enum apd_code apd_backend_cpu(const struct apd_cpu_options *options,
                                           struct apd_backend **out, struct apd_err *err);

#endif
