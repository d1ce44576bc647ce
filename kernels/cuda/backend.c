/* The CUDA backend's making: the worker's GPU, what is wrong with it in one sentence, its streams
 * and the table. */
#include "kernels/cuda/backend.h"
#include "kernels/cuda/doctor.h"

#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RING_BYTES = 8 << 20, BOUNCE_BYTES = 4 << 20 };

enum apd_code apd_cuda_check(cudaError_t status, const char *call, struct apd_err *err)
{
    if (status == cudaSuccess)
        return APD_OK;
    (void)apd_fail(err, APD_DEVICE, "%s: %s (%s)", call, cudaGetErrorString(status),
                   cudaGetErrorName(status));
    err->sys = (int)status;
    return APD_DEVICE;
}

enum apd_code apd_cuda_devices(int *out, struct apd_err *err)
{
    cudaError_t status = cudaGetDeviceCount(out);
    int driver = 0, runtime = 0;

    if (status == cudaErrorNoDevice)
        return apd_fail(err, APD_DEVICE,
                        "no GPU is visible: none is installed or "
                        "CUDA_VISIBLE_DEVICES hides it");
    if (status == cudaErrorInsufficientDriver) {
        (void)cudaDriverGetVersion(&driver);
        (void)cudaRuntimeGetVersion(&runtime);
        if (driver == 0)
            return apd_fail(err, APD_DEVICE, "no NVIDIA driver is installed");
        return apd_fail(err, APD_DEVICE,
                        "the NVIDIA driver is too old: it is made for CUDA %d.%d, needed is %d.%d",
                        driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    APD_TRY(apd_cuda_check(status, "looking for GPUs", err));
    return APD_OK;
}

/* A launcher may show each worker its own GPU only, so who sees a single one takes that; whether
 * another worker has the same NCCL finds out. */
static enum apd_code choose_device(struct cuda_backend *cuda, struct apd_err *err)
{
    struct cudaDeviceProp device;
    int count = 0, rank = cuda->is.local_rank;
    char need[64];

    APD_TRY(apd_cuda_devices(&count, err));
    if (count == 1)
        rank = 0;
    if (rank >= count)
        return apd_fail(err, APD_DEVICE,
                        "worker %d of this host has no GPU: %d visible; start at most so many "
                        "workers a host",
                        rank, count);
    CUDA_TRY(cudaGetDeviceProperties(&device, rank));
    if (!apd_cuda_has_code(device.major, device.minor, need))
        return apd_fail(err, APD_DEVICE,
                        "GPU %d, %s, has compute capability %d.%d; this build has code for %s",
                        rank, device.name, device.major, device.minor, need);
    CUDA_TRY(cudaSetDevice(rank));
    (void)snprintf(cuda->device, sizeof cuda->device, "%s", device.name);
    return APD_OK;
}

static enum apd_code make_streams(struct cuda_backend *cuda, struct apd_err *err)
{
    cudaEvent_t *const events[] = {
        &cuda->ring.done[0], &cuda->ring.done[1],   &cuda->downloaded,  &cuda->slot[0].copied,
        &cuda->slot[0].read, &cuda->slot[1].copied, &cuda->slot[1].read};

    CUDA_TRY(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    CUDA_TRY(cudaStreamCreateWithFlags(&cuda->copy, cudaStreamNonBlocking));
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        CUDA_TRY(cudaEventCreateWithFlags(events[i], cudaEventDisableTiming));
    for (int half = 0; half < 2; half++) { /* both are free */
        CUDA_TRY(cudaEventRecord(cuda->ring.done[half], cuda->stream));
        CUDA_TRY(cudaEventRecord(cuda->slot[half].read, cuda->stream));
    }
    CUDA_TRY(cudaMallocHost((void **)&cuda->ring.at, RING_BYTES));
    CUDA_TRY(cudaMallocHost((void **)&cuda->bounce, BOUNCE_BYTES));
    return APD_OK;
}

static void cuda_destroy(struct apd_backend *be)
{
    struct cuda_backend *cuda = cuda_of(be);
    cudaEvent_t events[] = {cuda->ring.done[0],   cuda->ring.done[1], cuda->downloaded,
                            cuda->slot[0].copied, cuda->slot[0].read, cuda->slot[1].copied,
                            cuda->slot[1].read};

    if (cuda->stream != NULL)
        (void)cudaStreamSynchronize(cuda->stream);
    apd_dnn_destroy(&cuda->dnn);
    cuda_arena_fini(cuda);
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i] != NULL)
            (void)cudaEventDestroy(events[i]);
    if (cuda->ring.at != NULL)
        (void)cudaFreeHost(cuda->ring.at);
    if (cuda->bounce != NULL)
        (void)cudaFreeHost(cuda->bounce);
    if (cuda->copy != NULL)
        (void)cudaStreamDestroy(cuda->copy);
    if (cuda->stream != NULL)
        (void)cudaStreamDestroy(cuda->stream);
    free(cuda);
}

/* One range at a time: the next one ends it. */
static void cuda_mark(struct apd_backend *be, const char *text)
{
    struct cuda_backend *cuda = cuda_of(be);

    if (cuda->marked)
        (void)nvtxRangePop();
    (void)nvtxRangePushA(text);
    cuda->marked = 1;
}

static void fill_table(struct cuda_backend *cuda)
{
    struct apd_backend_ops *ops = &cuda->ops;

    ops->destroy = cuda_destroy;
    ops->mark = cuda_mark;
    cuda_arena_ops(ops);
    cuda_memory_ops(ops);
    cuda_stage_ops(ops);
    cuda_conv_ops(ops);
    cuda_weights_ops(ops);
    cuda_bn_ops(ops);
    cuda_head_ops(ops);
    cuda_image_ops(ops);
    cuda_flat_ops(ops);
    if (cuda->is.graphs)
        cuda_record_ops(ops);
    cuda->base.ops = ops;
    cuda->base.name = "cuda";
    cuda->base.elem_bytes = sizeof(float);
    cuda->base.act_bytes = cuda->is.type == APD_CUDA_F32 ? 4 : 2;
    (void)snprintf(cuda->base.layout, sizeof cuda->base.layout, "krsc8");
}

enum apd_code apd_backend_cuda(const struct apd_cuda_options *options, struct apd_backend **out,
                               struct apd_err *err)
{
    struct cuda_backend *cuda = calloc(1, sizeof *cuda);
    struct apd_dnn_options dnn = {.engines = options->engines,
                                  .nondeterministic = options->nondeterministic};
    enum apd_code rc;

    if (cuda == NULL)
        return apd_fail(err, APD_NOMEM, "CUDA backend");
    cuda->is = *options;
    cuda->is.engines = NULL; /* the caller's memory */
    fill_table(cuda);
    APD_GO(choose_device(cuda, err));
    APD_GO(make_streams(cuda, err));
    APD_GO(apd_dnn_create(&dnn, &cuda->dnn, err));
    *out = &cuda->base;
    cuda = NULL;
done:
    if (cuda != NULL)
        cuda_destroy(&cuda->base);
    return rc;
}

cudaStream_t apd_cuda_stream(struct apd_backend *be)
{
    return cuda_of(be)->stream;
}

enum apd_code apd_cuda_beside_plan(struct apd_backend *be, int64_t *out, struct apd_err *err)
{
    const struct cuda_arena *arena = &cuda_of(be)->arena;
    size_t free_bytes, total;

    CUDA_TRY(cudaMemGetInfo(&free_bytes, &total));
    *out = arena->at == NULL          ? -1
           : arena->left > free_bytes ? (int64_t)(arena->left - free_bytes)
                                      : 0;
    return APD_OK;
}

const char *apd_cuda_device_name(struct apd_backend *be)
{
    return cuda_of(be)->device;
}

const char *apd_cuda_engines_note(struct apd_backend *be)
{
    return apd_dnn_engines_note(cuda_of(be)->dnn);
}

void apd_cuda_convolutions(struct apd_backend *be, struct apd_dnn_summary *out,
                           const char **out_replaced)
{
    apd_dnn_summarize(cuda_of(be)->dnn, out);
    *out_replaced = apd_dnn_replaced(cuda_of(be)->dnn);
}

enum apd_code apd_cuda_save_engines(struct apd_backend *be, struct apd_err *err)
{
    return apd_dnn_save(cuda_of(be)->dnn, err);
}

void apd_cuda_on_wait(struct apd_backend *be, enum apd_code (*poll)(void *ctx, struct apd_err *err),
                      void *ctx)
{
    cuda_of(be)->poll = poll;
    cuda_of(be)->poll_ctx = ctx;
}
