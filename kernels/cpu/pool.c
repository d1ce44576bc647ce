/* Pooling: one task per plane (a block of channels of one image). */
#include "kernels/cpu/cpu.h"
#include "kernels/shape.h"

#include <string.h>

static enum apd_code cpu_maxpool_forward(struct apd_backend *be, struct apd_shape in, int n,
                                         const void *src, void *dst, uint8_t *which,
                                         struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    struct apd_shape out = apd_maxpool_out(in);
    size_t block = (size_t)cpu->simd->block, planes = (size_t)n * cpu_blocks(cpu, in.c);
    size_t from = (size_t)in.h * (size_t)in.w * block, to = (size_t)out.h * (size_t)out.w * block;

    (void)err;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, planes *from))
    for (size_t p = 0; p < planes; p++)
        cpu->simd->maxpool_forward((const float *)src + p * from, in.h, in.w, (float *)dst + p * to,
                                   which + p * to);
    return APD_OK;
}

static enum apd_code cpu_maxpool_backward(struct apd_backend *be, struct apd_shape in, int n,
                                          const void *d_dst, const uint8_t *which, void *d_src,
                                          struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    struct apd_shape out = apd_maxpool_out(in);
    size_t block = (size_t)cpu->simd->block, planes = (size_t)n * cpu_blocks(cpu, in.c);
    size_t to = (size_t)in.h * (size_t)in.w * block, from = (size_t)out.h * (size_t)out.w * block;

    (void)err;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, planes *to))
    for (size_t p = 0; p < planes; p++)
        cpu->simd->maxpool_backward((const float *)d_dst + p * from, which + p * from, in.h, in.w,
                                    (float *)d_src + p * to);
    return APD_OK;
}

/* Channels of a plane that exist: `block`, fewer in the last block. */
static size_t channels_of_plane(const struct cpu_backend *cpu, int c, size_t number)
{
    size_t block = (size_t)cpu->simd->block, first = number % cpu_blocks(cpu, c) * block;

    return (size_t)c - first < block ? (size_t)c - first : block;
}

/* Where a plane's first channel is in the plain rows [n][c]. */
static size_t place_in_rows(const struct cpu_backend *cpu, int c, size_t number)
{
    size_t blocks = cpu_blocks(cpu, c);

    return number / blocks * (size_t)c + number % blocks * (size_t)cpu->simd->block;
}

static enum apd_code cpu_avgpool_forward(struct apd_backend *be, struct apd_shape in, int n,
                                         const void *src, void *dst, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    size_t pixels = (size_t)in.h * (size_t)in.w, plane = pixels * (size_t)cpu->simd->block;
    size_t planes = (size_t)n * cpu_blocks(cpu, in.c);

    (void)err;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, planes *plane))
    for (size_t p = 0; p < planes; p++) {
        float lanes[APD_MAX_BLOCK];

        cpu->simd->plane_mean((const float *)src + p * plane, pixels, lanes);
        memcpy((float *)dst + place_in_rows(cpu, in.c, p), lanes,
               channels_of_plane(cpu, in.c, p) * sizeof *lanes);
    }
    return APD_OK;
}

static enum apd_code cpu_avgpool_backward(struct apd_backend *be, struct apd_shape in, int n,
                                          const void *d_dst, void *d_src, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    size_t pixels = (size_t)in.h * (size_t)in.w, plane = pixels * (size_t)cpu->simd->block;
    size_t planes = (size_t)n * cpu_blocks(cpu, in.c);

    (void)err;
#pragma omp parallel for schedule(static) num_threads(cpu_threads_for(cpu, planes *plane))
    for (size_t p = 0; p < planes; p++) {
        const float *row = (const float *)d_dst + place_in_rows(cpu, in.c, p);
        size_t channels = channels_of_plane(cpu, in.c, p);
        float lanes[APD_MAX_BLOCK] = {0};

        for (size_t k = 0; k < channels; k++)
            lanes[k] = row[k] / (float)pixels;
        cpu->simd->plane_fill(lanes, pixels, (float *)d_src + p * plane);
    }
    return APD_OK;
}

void cpu_pool_ops(struct apd_backend_ops *ops)
{
    ops->maxpool_forward = cpu_maxpool_forward;
    ops->maxpool_backward = cpu_maxpool_backward;
    ops->avgpool_forward = cpu_avgpool_forward;
    ops->avgpool_backward = cpu_avgpool_backward;
}
