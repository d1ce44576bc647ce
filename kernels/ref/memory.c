#include "kernels/ref/ref.h"
#include "kernels/shape.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 64u

static enum apd_code ref_alloc(struct apd_backend *be, size_t bytes, void **out,
                               struct apd_err *err)
{
    size_t rounded = (bytes + ALIGNMENT) & ~(size_t)(ALIGNMENT - 1);
    void *p = rounded > bytes ? aligned_alloc(ALIGNMENT, rounded) : NULL;

    (void)be;
    if (p == NULL)
        return apd_fail(err, APD_NOMEM, "no memory for %zu bytes", bytes);
    memset(p, 0, rounded);
    *out = p;
    return APD_OK;
}

static void ref_free(struct apd_backend *be, void *device)
{
    (void)be;
    free(device);
}

static enum apd_code ref_copy(struct apd_backend *be, void *dst, const void *src, size_t bytes,
                              struct apd_err *err)
{
    (void)be;
    (void)err;
    memcpy(dst, src, bytes);
    return APD_OK;
}

/* The host's memory is the device's. */
static enum apd_code ref_stage(struct apd_backend *be, const void *host, size_t bytes,
                               const void **out_device, struct apd_err *err)
{
    (void)be, (void)bytes, (void)err;
    *out_device = host;
    return APD_OK;
}

static enum apd_code ref_zero(struct apd_backend *be, void *device, size_t bytes,
                              struct apd_err *err)
{
    (void)be;
    (void)err;
    memset(device, 0, bytes);
    return APD_OK;
}

static enum apd_code ref_upload_floats(struct apd_backend *be, void *device, const float *host,
                                       size_t n, struct apd_err *err)
{
    real *dst = device;

    (void)be;
    (void)err;
    for (size_t i = 0; i < n; i++)
        dst[i] = host[i];
    return APD_OK;
}

static enum apd_code ref_download_floats(struct apd_backend *be, float *host, const void *device,
                                         size_t n, struct apd_err *err)
{
    const real *src = device;

    (void)be;
    (void)err;
    for (size_t i = 0; i < n; i++)
        host[i] = (float)src[i];
    return APD_OK;
}

static size_t ref_image_elems(struct apd_backend *be, struct apd_shape shape)
{
    (void)be;
    return apd_shape_elems(shape);
}

static size_t ref_channel_elems(struct apd_backend *be, int c)
{
    (void)be;
    return (size_t)c;
}

static enum apd_code ref_activation_import(struct apd_backend *be, struct apd_shape shape, int n,
                                           const float *nchw, void *device, struct apd_err *err)
{
    return ref_upload_floats(be, device, nchw, (size_t)n * apd_shape_elems(shape), err);
}

static enum apd_code ref_activation_export(struct apd_backend *be, struct apd_shape shape, int n,
                                           const void *device, float *nchw, struct apd_err *err)
{
    return ref_download_floats(be, nchw, device, (size_t)n * apd_shape_elems(shape), err);
}

void REF(memory_ops)(struct apd_backend_ops *ops)
{
    ops->alloc = ref_alloc;
    ops->free = ref_free;
    ops->upload = ref_copy;
    ops->download = ref_copy;
    ops->upload_floats = ref_upload_floats;
    ops->download_floats = ref_download_floats;
    ops->zero = ref_zero;
    ops->copy = ref_copy;
    ops->stage = ref_stage;
    ops->image_elems = ref_image_elems;
    ops->channel_elems = ref_channel_elems;
    ops->activation_import = ref_activation_import;
    ops->activation_export = ref_activation_export;
}
