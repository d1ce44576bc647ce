#include "tests/emu/fake_cuda.h"

#include "base/clock.h"

#include <stdlib.h>
#include <time.h>

struct fake {
    struct apd_backend base;
    cudaStream_t stream;
    enum apd_code (*poll)(void *ctx, struct apd_err *err);
    void *ctx;
};

enum apd_code apd_cuda_check(cudaError_t status, const char *call, struct apd_err *err)
{
    if (status == cudaSuccess)
        return APD_OK;
    return apd_fail(err, APD_DEVICE, "%s: %s", call, cudaGetErrorString(status));
}

cudaStream_t apd_cuda_stream(struct apd_backend *be)
{
    return ((struct fake *)be)->stream;
}

void apd_cuda_on_wait(struct apd_backend *be, enum apd_code (*poll)(void *ctx, struct apd_err *err),
                      void *ctx)
{
    ((struct fake *)be)->poll = poll;
    ((struct fake *)be)->ctx = ctx;
}

enum apd_code fake_cuda_create(int device, struct apd_backend **out, struct apd_err *err)
{
    struct fake *fake = calloc(1, sizeof *fake);

    if (fake == NULL)
        return apd_fail(err, APD_NOMEM, "fake backend");
    *out = &fake->base;
    CUDA_TRY(cudaSetDevice(device));
    CUDA_TRY(cudaStreamCreateWithFlags(&fake->stream, cudaStreamNonBlocking));
    return APD_OK;
}

void fake_cuda_destroy(struct apd_backend *be)
{
    cudaStreamDestroy(((struct fake *)be)->stream);
    free(be);
}

enum apd_code fake_cuda_wait(struct apd_backend *be, double deadline_s, struct apd_err *err)
{
    struct fake *fake = (struct fake *)be;
    struct timespec pause = {.tv_nsec = 100000};
    double since_s = apd_now_s();

    for (;;) {
        cudaError_t status = cudaStreamQuery(fake->stream);

        if (status != cudaErrorNotReady)
            return apd_cuda_check(status, "cudaStreamQuery", err);
        if (fake->poll != NULL)
            APD_TRY(fake->poll(fake->ctx, err));
        if (apd_now_s() - since_s > deadline_s)
            return apd_fail(err, APD_TIMEOUT, "the stream is not done after %g s", deadline_s);
        nanosleep(&pause, NULL);
    }
}
