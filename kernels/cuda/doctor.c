#include "kernels/cuda/doctor.h"

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/dnn.h"

#include <stdio.h>
#include <string.h>

enum { OLDEST_MAJOR = 8 };

/* Machine code of an architecture runs on those of its major number from its own minor one on. The
 * last one is also there as PTX, which any later GPU compiles. */
static const int archs[] = {APD_CUDA_ARCHS};
enum { ARCHS = sizeof archs / sizeof *archs };

static void name_archs(char out[64])
{
    size_t n = 0;

    for (int i = 0; i < ARCHS && n < 40; i++)
        n += (size_t)snprintf(out + n, 64 - n, "%s%d.%d", i > 0 ? ", " : "", archs[i] / 10,
                              archs[i] % 10);
    (void)snprintf(out + n, 64 - n, " and later");
}

int apd_cuda_has_code(int major, int minor, char need[64])
{
    int has = major * 10 + minor >= archs[ARCHS - 1];

    for (int i = 0; i < ARCHS; i++)
        has |= archs[i] / 10 == major && archs[i] % 10 <= minor;
    name_archs(need);
    return has && major >= OLDEST_MAJOR;
}

static enum apd_code look_at_gpu(struct apd_cuda_gpu *gpu, int number, int gpus,
                                 struct apd_err *err)
{
    struct cudaDeviceProp device;
    char need[64];

    CUDA_TRY(cudaGetDeviceProperties(&device, number));
    (void)snprintf(gpu->name, sizeof gpu->name, "%s", device.name);
    gpu->major = device.major;
    gpu->minor = device.minor;
    gpu->total_bytes = gpu->free_bytes = device.totalGlobalMem;
    for (int other = 0; other < gpus; other++) {
        int can = 0;

        if (other != number)
            CUDA_TRY(cudaDeviceCanAccessPeer(&can, number, other));
        gpu->peers |= (unsigned)(can != 0) << other;
    }
    if (!apd_cuda_has_code(device.major, device.minor, need))
        return apd_fail(err, APD_DEVICE,
                        "its compute capability is %d.%d, this build has code for %s", device.major,
                        device.minor, need);
    CUDA_TRY(cudaSetDevice(number));
    CUDA_TRY(cudaMemGetInfo(&gpu->free_bytes, &gpu->total_bytes));
    return APD_OK;
}

void apd_cuda_look(struct apd_cuda_report *out)
{
    struct apd_err err = {0};

    memset(out, 0, sizeof *out);
    apd_dnn_versions(&out->cudnn_built, &out->cudnn_found);
    if (apd_dnn_check(&err) != APD_OK)
        (void)snprintf(out->cudnn_problem, sizeof out->cudnn_problem, "%.300s", err.msg);
    (void)cudaDriverGetVersion(&out->driver);
    (void)cudaRuntimeGetVersion(&out->runtime);
    if (apd_cuda_devices(&out->gpus, &err) != APD_OK) {
        out->gpus = 0;
        (void)snprintf(out->problem, sizeof out->problem, "%.319s", err.msg);
        return;
    }
    if (out->gpus > APD_CUDA_GPUS)
        out->gpus = APD_CUDA_GPUS;
    for (int i = 0; i < out->gpus; i++)
        if (look_at_gpu(&out->gpu[i], i, out->gpus, &err) != APD_OK)
            (void)snprintf(out->gpu[i].problem, sizeof out->gpu[i].problem, "%.319s", err.msg);
}
