/* Batch norm over segments. The batch is cut into pieces: runs of images of one segment that hold
 * about PIECE_PIXELS pixels per channel, a rule of the shape alone. A task is one piece of one
 * block of channels; its partial sums are kept and added in the order of the pieces, so that sums
 * depend neither on the number of threads nor on who came first. */
#include "kernels/cpu/cpu.h"
#include "kernels/shape.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define PIECE_PIXELS 1024

struct cpu_piece {
    int segment, first, images;
};

struct layout {
    size_t block, blocks, channels; /* channels: with padding */
    size_t pixels;                  /* of one plane */
    size_t image;                   /* elements */
    struct cpu_piece *pieces;
    size_t tasks; /* pieces x blocks, block running fastest */
};

struct task {
    const struct cpu_piece *piece;
    size_t block;   /* number of the block of channels */
    size_t channel; /* first channel */
    size_t at;      /* first element of the piece's first plane */
};

static enum apd_code cut(struct cpu_backend *cpu, struct apd_shape shape,
                         const struct apd_segment *seg, int segments, struct layout *out,
                         struct apd_err *err)
{
    struct layout l = {
        .block = (size_t)cpu->simd->block,
        .blocks = cpu_blocks(cpu, shape.c),
        .pixels = (size_t)shape.h * (size_t)shape.w,
    };
    int images_per_piece =
        shape.h * shape.w >= PIECE_PIXELS ? 1 : PIECE_PIXELS / (shape.h * shape.w);
    size_t pieces = 0;

    assert(apd_segments_ok(seg, segments, -1));
    l.channels = l.blocks * l.block;
    l.image = l.channels * l.pixels;
    APD_TRY(cpu_reserve(cpu, CPU_PIECES,
                        ((size_t)apd_segments_images(seg, segments) + 1) * sizeof *l.pieces, err));
    l.pieces = cpu->scratch[CPU_PIECES].data;
    for (int s = 0; s < segments; s++)
        for (int i = 0; i < seg[s].count; i += images_per_piece) {
            int left = seg[s].count - i;

            l.pieces[pieces++] = (struct cpu_piece){
                .segment = s,
                .first = seg[s].first + i,
                .images = left < images_per_piece ? left : images_per_piece,
            };
        }
    l.tasks = pieces * l.blocks;
    *out = l;
    return APD_OK;
}

static struct task task_of(const struct layout *l, size_t number)
{
    struct task t = {
        .piece = &l->pieces[number / l->blocks],
        .block = number % l->blocks,
    };

    t.channel = t.block * l->block;
    t.at = (size_t)t.piece->first * l->image + t.block * l->pixels * l->block;
    return t;
}

/* Row `which` (0 or 1) of a segment in a [segments][2][channels] array. */
static size_t row(size_t channels, int segment, int which)
{
    return ((size_t)segment * 2 + (size_t)which) * channels;
}

/* out[segment * stride][2][channels] = partials [task][2][block] added up in the order of the
 * tasks.
 */
static void add_partials(const struct layout *l, const double *partials, int segments, double *out,
                         size_t stride)
{
    for (int s = 0; s < segments; s++)
        memset(out + (size_t)s * stride, 0, 2 * l->channels * sizeof *out);
    for (size_t n = 0; n < l->tasks; n++) {
        struct task t = task_of(l, n);

        for (int which = 0; which < 2; which++) {
            double *sum =
                out + (size_t)t.piece->segment * stride + (size_t)which * l->channels + t.channel;

            for (size_t k = 0; k < l->block; k++)
                sum[k] += *partials++;
        }
    }
}

static enum apd_code cpu_bn_sums(struct apd_backend *be, struct apd_shape shape,
                                 const struct apd_segment *seg, int segments, const void *x,
                                 double *sums, size_t stride, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    const float *src = x;
    struct layout l;
    double *partials;

    APD_TRY(cut(cpu, shape, seg, segments, &l, err));
    APD_TRY(cpu_reserve(cpu, CPU_PARTIALS, l.tasks * 2 * l.block * sizeof *partials, err));
    partials = cpu->scratch[CPU_PARTIALS].data;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, l.tasks *PIECE_PIXELS))
    for (size_t n = 0; n < l.tasks; n++) {
        struct task t = task_of(&l, n);
        double *out = partials + n * 2 * l.block;

        cpu->simd->bn_sums(src + t.at, l.image, t.piece->images, l.pixels, out, out + l.block);
    }
    add_partials(&l, partials, segments, sums, stride);
    return APD_OK;
}

static enum apd_code cpu_bn_moments(struct apd_backend *be, int c, int segments, const double *sums,
                                    size_t stride, const double *count, double eps, void *moments,
                                    struct apd_err *err)
{
    size_t channels = be->ops->channel_elems(be, c);
    float *out = moments;

    (void)err;
    for (int s = 0; s < segments; s++) {
        const double *sum = sums + (size_t)s * stride, *squares = sum + channels;
        float *mean = out + row(channels, s, 0), *rstd = out + row(channels, s, 1);

        if (count[s] < 0)
            continue;
        for (size_t k = 0; k < channels; k++) {
            double m = count[s] > 0 ? sum[k] / count[s] : 0;
            double v = count[s] > 0 ? fmax(squares[k] / count[s] - m * m, 0) : 0;

            mean[k] = (float)m;
            rstd[k] = count[s] > 0 ? (float)(1 / sqrt(v + eps)) : 0;
        }
    }
    return APD_OK;
}

static enum apd_code cpu_bn_moments_running(struct apd_backend *be, int c, const void *running_mean,
                                            const void *running_var, double eps, void *moments,
                                            struct apd_err *err)
{
    size_t channels = be->ops->channel_elems(be, c);
    const float *variance = running_var;
    float *out = moments;

    (void)err;
    memcpy(out, running_mean, channels * sizeof *out);
    for (size_t k = 0; k < channels; k++)
        out[channels + k] = (float)(1 / sqrt((double)variance[k] + eps));
    return APD_OK;
}

static const float *at_or_null(const float *p, size_t at)
{
    return p != NULL ? p + at : NULL;
}

static enum apd_code forward(struct cpu_backend *cpu, const struct apd_bn *bn, const float *add,
                             int relu, float *y, struct apd_err *err)
{
    const float *src = bn->x, *m = bn->moments;
    struct layout l;

    APD_TRY(cut(cpu, bn->shape, bn->seg, bn->segments, &l, err));
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, l.tasks *PIECE_PIXELS))
    for (size_t n = 0; n < l.tasks; n++) {
        struct task t = task_of(&l, n);
        enum apd_bn_set set = bn->seg[t.piece->segment].set;
        const float *rstd = m + row(l.channels, t.piece->segment, 1) + t.channel;
        const float *g = (const float *)bn->gamma[set] + t.channel;
        float scale[APD_MAX_BLOCK];
        struct apd_bn_lanes p = {
            .mean = m + row(l.channels, t.piece->segment, 0) + t.channel,
            .scale = scale,
            .beta = (const float *)bn->beta[set] + t.channel,
        };

        for (size_t k = 0; k < l.block; k++)
            scale[k] = rstd[k] * g[k];
        for (int i = 0; i < t.piece->images; i++, t.at += l.image)
            cpu->simd->bn_forward(src + t.at, at_or_null(add, t.at), l.pixels, p, relu, y + t.at);
    }
    return APD_OK;
}

static enum apd_code cpu_bn_forward(struct apd_backend *be, const struct apd_bn *bn,
                                    const struct apd_bn *other, const void *add, int relu, void *y,
                                    uint8_t *mask, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);

    (void)mask;
    if (other != NULL)
        APD_TRY(forward(cpu, other, NULL, 0, y, err));
    return forward(cpu, bn, other != NULL ? y : add, relu, y, err);
}

static size_t cpu_relu_mask_bytes(struct apd_backend *be, struct apd_shape shape, int n)
{
    (void)be;
    (void)shape;
    (void)n;
    return 0;
}

static enum apd_code backward_sums(struct cpu_backend *cpu, const struct apd_bn *bn,
                                   const float *d_y, const float *d_y2, const float *relu_y,
                                   float *d_g, double *d_sums, struct apd_err *err)
{
    const float *src = bn->x, *m = bn->moments;
    /* g is d_y itself: nothing to write. */
    int same = d_g == d_y && d_y2 == NULL && relu_y == NULL;
    struct layout l;
    double *partials;

    APD_TRY(cut(cpu, bn->shape, bn->seg, bn->segments, &l, err));
    APD_TRY(cpu_reserve(cpu, CPU_PARTIALS, l.tasks * 2 * l.block * sizeof *partials, err));
    partials = cpu->scratch[CPU_PARTIALS].data;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, l.tasks *PIECE_PIXELS))
    for (size_t n = 0; n < l.tasks; n++) {
        struct task t = task_of(&l, n);
        const float *mean = m + row(l.channels, t.piece->segment, 0) + t.channel;
        const float *rstd = m + row(l.channels, t.piece->segment, 1) + t.channel;
        double *sum = partials + n * 2 * l.block, *sum_xhat = sum + l.block;

        memset(sum, 0, 2 * l.block * sizeof *sum);
        for (int i = 0; i < t.piece->images; i++, t.at += l.image)
            cpu->simd->bn_backward_sums(d_y + t.at, at_or_null(d_y2, t.at),
                                        at_or_null(relu_y, t.at), src + t.at, l.pixels, mean,
                                        same ? NULL : d_g + t.at, sum, sum_xhat);
        for (size_t k = 0; k < l.block; k++)
            sum_xhat[k] *= rstd[k];
    }
    add_partials(&l, partials, bn->segments, d_sums, 2 * l.channels);
    return APD_OK;
}

static enum apd_code cpu_bn_backward_sums(struct apd_backend *be, const struct apd_bn *bn,
                                          const struct apd_bn *other, const struct apd_relu *relu,
                                          const void *d_y, const void *d_y2, void *d_g,
                                          double *d_sums, double *d_sums_other, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);

    APD_TRY(backward_sums(cpu, bn, d_y, d_y2, relu != NULL ? relu->y : NULL, d_g, d_sums, err));
    if (other != NULL)
        return backward_sums(cpu, other, d_g, NULL, NULL, d_g, d_sums_other, err);
    return APD_OK;
}

static enum apd_code backward_data(struct cpu_backend *cpu, const struct apd_bn *bn,
                                   const float *d_g, const double *d_sums, const double *count,
                                   int batch_stats, float *d_x, struct apd_err *err)
{
    const float *src = bn->x, *m = bn->moments;
    struct layout l;

    APD_TRY(cut(cpu, bn->shape, bn->seg, bn->segments, &l, err));
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, l.tasks *PIECE_PIXELS))
    for (size_t n = 0; n < l.tasks; n++) {
        struct task t = task_of(&l, n);
        int s = t.piece->segment;
        size_t first = row(l.channels, s, 0) + t.channel,
               second = row(l.channels, s, 1) + t.channel;
        const float *rstd = m + second;
        const float *weight = (const float *)bn->gamma[bn->seg[s].set] + t.channel;
        float scale[APD_MAX_BLOCK], mean_g[APD_MAX_BLOCK] = {0}, slope[APD_MAX_BLOCK] = {0};
        struct apd_bn_gradient_lanes p = {m + first, scale, mean_g, slope};

        for (size_t k = 0; k < l.block; k++)
            scale[k] = weight[k] * rstd[k];
        for (size_t k = 0; batch_stats && k < l.block; k++) {
            mean_g[k] = (float)(d_sums[first + k] / count[s]);
            slope[k] = (float)(rstd[k] * d_sums[second + k] / count[s]);
        }
        for (int i = 0; i < t.piece->images; i++, t.at += l.image)
            cpu->simd->bn_backward_data(d_g + t.at, src + t.at, l.pixels, p, d_x + t.at);
    }
    return APD_OK;
}

static enum apd_code cpu_bn_backward_data(struct apd_backend *be, const struct apd_bn *bn,
                                          const struct apd_bn *other, const void *d_g,
                                          const double *d_sums, const double *d_sums_other,
                                          const double *count, int batch_stats, void *d_x,
                                          void *d_x_other, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    int last = d_x == d_g; /* what overwrites d_g comes last */

    if (!last)
        APD_TRY(backward_data(cpu, bn, d_g, d_sums, count, batch_stats, d_x, err));
    if (other != NULL)
        APD_TRY(backward_data(cpu, other, d_g, d_sums_other, count, batch_stats, d_x_other, err));
    return last ? backward_data(cpu, bn, d_g, d_sums, count, batch_stats, d_x, err) : APD_OK;
}

static enum apd_code cpu_bn_backward_params(struct apd_backend *be, int c,
                                            const struct apd_segment *seg, int segments,
                                            const double *d_sums, void *const d_gamma[APD_BN_SETS],
                                            void *const d_beta[APD_BN_SETS], struct apd_err *err)
{
    size_t channels = be->ops->channel_elems(be, c);

    (void)err;
    for (int s = 0; s < segments; s++) {
        float *dg = d_gamma[seg[s].set], *db = d_beta[seg[s].set];

        if (seg[s].count == 0)
            continue;
        for (size_t k = 0; k < channels; k++) {
            dg[k] = (float)(dg[k] + d_sums[row(channels, s, 1) + k]);
            db[k] = (float)(db[k] + d_sums[row(channels, s, 0) + k]);
        }
    }
    return APD_OK;
}

static enum apd_code cpu_bn_update_running(struct apd_backend *be, int c, const double *sums,
                                           double count, double momentum, void *running_mean,
                                           void *running_var, struct apd_err *err)
{
    size_t channels = be->ops->channel_elems(be, c);
    float *mean = running_mean, *variance = running_var;

    (void)err;
    if (count <= 0)
        return APD_OK;
    for (size_t k = 0; k < channels; k++) {
        double m = sums[k] / count;
        double v = fmax(sums[channels + k] / count - m * m, 0);

        mean[k] = (float)((1 - momentum) * mean[k] + momentum * m);
        if (count >= 2)
            variance[k] =
                (float)((1 - momentum) * variance[k] + momentum * v * count / (count - 1));
    }
    return APD_OK;
}

void cpu_bn_ops(struct apd_backend_ops *ops)
{
    ops->bn_sums = cpu_bn_sums;
    ops->bn_moments = cpu_bn_moments;
    ops->bn_moments_running = cpu_bn_moments_running;
    ops->bn_forward = cpu_bn_forward;
    ops->relu_mask_bytes = cpu_relu_mask_bytes;
    ops->bn_backward_sums = cpu_bn_backward_sums;
    ops->bn_backward_data = cpu_bn_backward_data;
    ops->bn_backward_params = cpu_bn_backward_params;
    ops->bn_update_running = cpu_bn_update_running;
}
