/* The CUDA backend's ways between host and device. Small uploads go through a pinned ring, so that
 * the caller's memory is free at once and nobody waits; downloads wait, polling. */
#include "kernels/cuda/backend.h"
#include "kernels/shape.h"

#include <string.h>
#include <time.h>

enum { HALF_BYTES = 4 << 20, BOUNCE_BYTES = 4 << 20, BUSY_NS = 100000, PAUSE_NS = 50000 };

/* ---------------------------------------------------------------- waiting */

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* A step takes the GPU many milliseconds, in which decode threads need the core. */
static void pause_after(double waited_s)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};

    if (waited_s > BUSY_NS * 1e-9)
        (void)nanosleep(&pause, NULL);
}

enum apd_code cuda_wait(struct cuda_backend *cuda, cudaEvent_t event, struct apd_err *err)
{
    double began = seconds(), waited;
    cudaError_t status;

    while ((status = cudaEventQuery(event)) == cudaErrorNotReady) {
        if (cuda->poll != NULL)
            APD_TRY(cuda->poll(cuda->poll_ctx, err));
        waited = seconds() - began;
        if (cuda->is.timeout_s > 0 && waited > cuda->is.timeout_s)
            return apd_fail(err, APD_TIMEOUT, "the GPU did not finish within %g s",
                            cuda->is.timeout_s);
        pause_after(waited);
    }
    return apd_cuda_check(status, "waiting for the GPU", err);
}

/* ---------------------------------------------------------------- ways in and out */

/* Up to `bytes` of the ring, at most what its half has left; changes halves when full. */
static enum apd_code take_ring(struct cuda_backend *cuda, size_t *bytes, char **out,
                               struct apd_err *err)
{
    struct cuda_ring *ring = &cuda->ring;

    if (ring->used == HALF_BYTES) {
        CUDA_TRY(cudaEventRecord(ring->done[ring->half], cuda->stream));
        ring->half = !ring->half;
        ring->used = 0;
        APD_TRY(cuda_wait(cuda, ring->done[ring->half], err));
    }
    if (*bytes > HALF_BYTES - ring->used)
        *bytes = HALF_BYTES - ring->used;
    *out = ring->at + (size_t)ring->half * HALF_BYTES + ring->used;
    ring->used += *bytes;
    return APD_OK;
}

static enum apd_code cuda_upload(struct apd_backend *be, void *device, const void *host,
                                 size_t bytes, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    size_t chunk;
    char *pinned;

    for (size_t at = 0; at < bytes; at += chunk) {
        chunk = bytes - at;
        APD_TRY(take_ring(cuda, &chunk, &pinned, err));
        memcpy(pinned, (const char *)host + at, chunk);
        CUDA_TRY(cudaMemcpyAsync((char *)device + at, pinned, chunk, cudaMemcpyHostToDevice,
                                 cuda->stream));
    }
    return APD_OK;
}

static enum apd_code cuda_download(struct apd_backend *be, void *host, const void *device,
                                   size_t bytes, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);

    for (size_t at = 0; at < bytes; at += BOUNCE_BYTES) {
        size_t chunk = bytes - at < BOUNCE_BYTES ? bytes - at : BOUNCE_BYTES;

        CUDA_TRY(cudaMemcpyAsync(cuda->bounce, (const char *)device + at, chunk,
                                 cudaMemcpyDeviceToHost, cuda->stream));
        CUDA_TRY(cudaEventRecord(cuda->downloaded, cuda->stream));
        APD_TRY(cuda_wait(cuda, cuda->downloaded, err));
        memcpy((char *)host + at, cuda->bounce, chunk);
    }
    return APD_OK;
}

static enum apd_code cuda_upload_floats(struct apd_backend *be, void *device, const float *host,
                                        size_t n, struct apd_err *err)
{
    return cuda_upload(be, device, host, n * sizeof *host, err);
}

static enum apd_code cuda_download_floats(struct apd_backend *be, float *host, const void *device,
                                          size_t n, struct apd_err *err)
{
    return cuda_download(be, host, device, n * sizeof *host, err);
}

static enum apd_code cuda_zero(struct apd_backend *be, void *device, size_t bytes,
                               struct apd_err *err)
{
    if (bytes > 0)
        CUDA_TRY(cudaMemsetAsync(device, 0, bytes, cuda_of(be)->stream));
    return APD_OK;
}

static enum apd_code cuda_copy(struct apd_backend *be, void *dst, const void *src, size_t bytes,
                               struct apd_err *err)
{
    if (bytes > 0)
        CUDA_TRY(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, cuda_of(be)->stream));
    return APD_OK;
}

/* ---------------------------------------------------------------- layouts */

static size_t cuda_channel_elems(struct apd_backend *be, int c)
{
    (void)be;
    return cuda_channels(c);
}

static size_t cuda_image_elems(struct apd_backend *be, struct apd_shape shape)
{
    (void)be;
    return cuda_channels(shape.c) * (size_t)shape.h * (size_t)shape.w;
}

static enum apd_code cuda_activation_import(struct apd_backend *be, struct apd_shape shape, int n,
                                            const float *nchw, void *device, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    size_t elems = (size_t)n * apd_shape_elems(shape);
    void *plain;

    APD_TRY(cuda_reserve(cuda, CUDA_ARGUMENTS, elems * sizeof *nchw, &plain, err));
    APD_TRY(cuda_upload(be, plain, nchw, elems * sizeof *nchw, err));
    return apd_cuda_check(
        apd_cuda_image_to_activation(cuda->is.type, n, shape, plain, device, cuda->stream),
        "image_to_activation", err);
}

static enum apd_code cuda_activation_export(struct apd_backend *be, struct apd_shape shape, int n,
                                            const void *device, float *nchw, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    size_t elems = (size_t)n * apd_shape_elems(shape);
    void *plain;

    APD_TRY(cuda_reserve(cuda, CUDA_ARGUMENTS, elems * sizeof *nchw, &plain, err));
    CUDA_TRY(apd_cuda_activation_to_image(cuda->is.type, n, shape, device, plain, cuda->stream));
    return cuda_download(be, nchw, plain, elems * sizeof *nchw, err);
}

void cuda_memory_ops(struct apd_backend_ops *ops)
{
    ops->upload = cuda_upload;
    ops->download = cuda_download;
    ops->upload_floats = cuda_upload_floats;
    ops->download_floats = cuda_download_floats;
    ops->zero = cuda_zero;
    ops->copy = cuda_copy;
    ops->image_elems = cuda_image_elems;
    ops->channel_elems = cuda_channel_elems;
    ops->activation_import = cuda_activation_import;
    ops->activation_export = cuda_activation_export;
}
