/* Memory and layouts: image i, block b, pixel p, lane l of an activation is at
 * ((i * blocks + b) * h * w + p) * block + l. */
#include "kernels/cpu/cpu.h"
#include "kernels/shape.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LINE      64u
#define HUGE_PAGE (2u << 20)

static enum apd_code cpu_alloc(struct apd_backend *be, size_t bytes, void **out,
                               struct apd_err *err)
{
    size_t align = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : LINE;
    size_t rounded = (bytes + align) & ~(align - 1);
    void *p = rounded > bytes ? aligned_alloc(align, rounded) : NULL;

    (void)be;
    if (p == NULL)
        return apd_fail(err, APD_NOMEM, "no memory for %zu bytes", bytes);
    if (align == HUGE_PAGE)
        (void)madvise(p, rounded, MADV_HUGEPAGE); /* a wish: without it all works the same */
    memset(p, 0, rounded);
    *out = p;
    return APD_OK;
}

static void cpu_free(struct apd_backend *be, void *device)
{
    (void)be;
    free(device);
}

static enum apd_code cpu_copy(struct apd_backend *be, void *dst, const void *src, size_t bytes,
                              struct apd_err *err)
{
    (void)be;
    (void)err;
    if (bytes > 0)
        memcpy(dst, src, bytes);
    return APD_OK;
}

/* The host's memory is the device's. */
static enum apd_code cpu_stage(struct apd_backend *be, const void *host, size_t bytes,
                               const void **out_device, struct apd_err *err)
{
    (void)be, (void)bytes, (void)err;
    *out_device = host;
    return APD_OK;
}

static enum apd_code cpu_zero(struct apd_backend *be, void *device, size_t bytes,
                              struct apd_err *err)
{
    (void)be;
    (void)err;
    memset(device, 0, bytes);
    return APD_OK;
}

static enum apd_code cpu_upload_floats(struct apd_backend *be, void *device, const float *host,
                                       size_t n, struct apd_err *err)
{
    return cpu_copy(be, device, host, n * sizeof *host, err);
}

static enum apd_code cpu_download_floats(struct apd_backend *be, float *host, const void *device,
                                         size_t n, struct apd_err *err)
{
    return cpu_copy(be, host, device, n * sizeof *host, err);
}

static size_t cpu_channel_elems(struct apd_backend *be, int c)
{
    return cpu_blocks(cpu_of(be), c) * (size_t)cpu_of(be)->simd->block;
}

static size_t cpu_image_elems(struct apd_backend *be, struct apd_shape shape)
{
    return cpu_channel_elems(be, shape.c) * (size_t)shape.h * (size_t)shape.w;
}

/* Place of channel c of image i; its pixels follow `block` elements apart. */
static size_t channel_place(const struct cpu_backend *cpu, struct apd_shape s, int i, int c)
{
    size_t block = (size_t)cpu->simd->block, plane = (size_t)s.h * (size_t)s.w;

    return ((size_t)i * cpu_blocks(cpu, s.c) + (size_t)c / block) * plane * block +
           (size_t)c % block;
}

static enum apd_code cpu_activation_import(struct apd_backend *be, struct apd_shape shape, int n,
                                           const float *nchw, void *device, struct apd_err *err)
{
    const struct cpu_backend *cpu = cpu_of(be);
    size_t plane = (size_t)shape.h * (size_t)shape.w;
    float *dst = device;

    (void)err;
    memset(dst, 0, (size_t)n * cpu_image_elems(be, shape) * sizeof *dst);
    for (int i = 0; i < n; i++)
        for (int c = 0; c < shape.c; c++, nchw += plane)
            for (size_t p = 0; p < plane; p++)
                dst[channel_place(cpu, shape, i, c) + p * (size_t)cpu->simd->block] = nchw[p];
    return APD_OK;
}

static enum apd_code cpu_activation_export(struct apd_backend *be, struct apd_shape shape, int n,
                                           const void *device, float *nchw, struct apd_err *err)
{
    const struct cpu_backend *cpu = cpu_of(be);
    size_t plane = (size_t)shape.h * (size_t)shape.w;
    const float *src = device;

    (void)err;
    for (int i = 0; i < n; i++)
        for (int c = 0; c < shape.c; c++, nchw += plane)
            for (size_t p = 0; p < plane; p++)
                nchw[p] = src[channel_place(cpu, shape, i, c) + p * (size_t)cpu->simd->block];
    return APD_OK;
}

void cpu_memory_ops(struct apd_backend_ops *ops)
{
    ops->alloc = cpu_alloc;
    ops->free = cpu_free;
    ops->upload = cpu_copy;
    ops->download = cpu_copy;
    ops->upload_floats = cpu_upload_floats;
    ops->download_floats = cpu_download_floats;
    ops->zero = cpu_zero;
    ops->copy = cpu_copy;
    ops->stage = cpu_stage;
    ops->image_elems = cpu_image_elems;
    ops->channel_elems = cpu_channel_elems;
    ops->activation_import = cpu_activation_import;
    ops->activation_export = cpu_activation_export;
}
