/* Images and flat arrays of the CUDA backend, and recordings (CUDA graphs). */
#include "kernels/cuda/backend.h"
#include "kernels/shape.h"

#include <stdlib.h>

/* Host arrays that come with a call, behind each other in device memory; offsets stay multiples of
 * 16. */
static enum apd_code argument(struct cuda_backend *cuda, size_t *used, const void *host,
                              size_t bytes, const void **out, struct apd_err *err)
{
    char *to = (char *)cuda->buffer[CUDA_ARGUMENTS].at + *used;

    *used += (bytes + 15) & ~(size_t)15;
    *out = to;
    return cuda->ops.upload(&cuda->base, to, host, bytes, err);
}

static enum apd_code cuda_input_pack(struct apd_backend *be, int n, size_t pixels,
                                     const uint8_t *bytes, const struct apd_noise *noise, void *x,
                                     void *noisy, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    const struct apd_noise none = {0};
    const void *sample = NULL, *epoch = NULL;
    size_t used = 0;
    void *ignored;

    if (noise != NULL) {
        APD_TRY(cuda_reserve(cuda, CUDA_ARGUMENTS, cuda_argument_bytes(n), &ignored, err));
        APD_TRY(
            argument(cuda, &used, noise->sample, (size_t)n * sizeof *noise->sample, &sample, err));
        APD_TRY(argument(cuda, &used, noise->epoch, (size_t)n * sizeof *noise->epoch, &epoch, err));
    } else {
        noise = &none;
    }
    APD_TRY(cuda_stage_read_begin(cuda, bytes, err));
    CUDA_TRY(apd_cuda_input_pack(n, pixels, bytes, sample, epoch, noise->seed, noise->purpose,
                                 noise->range, x, noisy, cuda->stream));
    return cuda_stage_read_end(cuda, bytes, err);
}

static enum apd_code cuda_attack_step(struct apd_backend *be, int n, size_t pixels, const void *x,
                                      const void *at, const void *d_x, double step, double eps,
                                      const int32_t *slot, void *next, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    size_t bytes = (size_t)n * sizeof *slot, used = 0;
    const void *device = NULL;
    void *ignored;

    if (slot != NULL) {
        APD_TRY(cuda_reserve(cuda, CUDA_ARGUMENTS, cuda_argument_bytes(n), &ignored, err));
        APD_TRY(argument(cuda, &used, slot, bytes, &device, err));
    }
    CUDA_TRY(apd_cuda_attack_step(n, pixels, x, at, d_x, step, eps, device, next, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_mix_images(struct apd_backend *be, int n, struct apd_shape shape,
                                     const void *src, const struct apd_mix *mix, void *dst,
                                     struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    size_t used = 0;
    const void *partner;
    void *ignored;

    APD_TRY(cuda_reserve(cuda, CUDA_ARGUMENTS, cuda_argument_bytes(n), &ignored, err));
    APD_TRY(argument(cuda, &used, mix->partner, (size_t)n * sizeof *mix->partner, &partner, err));
    CUDA_TRY(apd_cuda_mix_images(n, shape, src, mix, partner, dst, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_rows_gather(struct apd_backend *be, int rows, size_t row_elems,
                                      const void *src, const int32_t *index, void *dst,
                                      struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    size_t used = 0;
    const void *device;
    void *ignored;

    if (rows == 0)
        return APD_OK;
    APD_TRY(cuda_reserve(cuda, CUDA_ARGUMENTS, cuda_argument_bytes(rows), &ignored, err));
    APD_TRY(argument(cuda, &used, index, (size_t)rows * sizeof *index, &device, err));
    CUDA_TRY(
        apd_cuda_rows_gather(rows, row_elems * be->elem_bytes, src, device, dst, cuda->stream));
    return APD_OK;
}

void cuda_image_ops(struct apd_backend_ops *ops)
{
    ops->input_pack = cuda_input_pack;
    ops->attack_step = cuda_attack_step;
    ops->mix_images = cuda_mix_images;
    ops->rows_gather = cuda_rows_gather;
}

/* ---------------------------------------------------------------- flat arrays */

static enum apd_code cuda_add(struct apd_backend *be, size_t n, const void *src, void *dst,
                              struct apd_err *err)
{
    CUDA_TRY(apd_cuda_add(APD_CUDA_F32, n, src, dst, cuda_of(be)->stream));
    return APD_OK;
}

static enum apd_code cuda_add_doubles(struct apd_backend *be, size_t n, const double *src,
                                      double *dst, struct apd_err *err)
{
    CUDA_TRY(apd_cuda_add_doubles(n, src, dst, cuda_of(be)->stream));
    return APD_OK;
}

static enum apd_code cuda_add_activations(struct apd_backend *be, size_t n, const void *src,
                                          void *dst, struct apd_err *err)
{
    CUDA_TRY(apd_cuda_add(cuda_of(be)->is.type, n, src, dst, cuda_of(be)->stream));
    return APD_OK;
}

static enum apd_code cuda_average(struct apd_backend *be, size_t n, double decay, const void *x,
                                  void *a, struct apd_err *err)
{
    CUDA_TRY(apd_cuda_average(n, decay, x, a, cuda_of(be)->stream));
    return APD_OK;
}

static enum apd_code cuda_nonfinite(struct apd_backend *be, size_t n, const void *x, double *bad,
                                    struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    void *scratch;

    APD_TRY(cuda_reserve(cuda, CUDA_SCRATCH, apd_cuda_scratch_bytes(1, 1), &scratch, err));
    CUDA_TRY(apd_cuda_nonfinite(n, x, bad, scratch, cuda->stream));
    return APD_OK;
}

void cuda_flat_ops(struct apd_backend_ops *ops)
{
    ops->add = cuda_add;
    ops->add_doubles = cuda_add_doubles;
    ops->add_activations = cuda_add_activations;
    ops->average = cuda_average;
    ops->nonfinite = cuda_nonfinite;
}

/* ---------------------------------------------------------------- recordings */

struct apd_recording {
    cudaGraphExec_t graph;
};

static enum apd_code cuda_record_begin(struct apd_backend *be, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);

    CUDA_TRY(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal));
    cuda->recording = 1;
    return APD_OK;
}

static enum apd_code cuda_record_end(struct apd_backend *be, struct apd_recording **out,
                                     struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    struct apd_recording *recording = NULL;
    cudaGraph_t graph = NULL;
    enum apd_code rc;

    cuda->recording = 0;
    CUDA_GO(cudaStreamEndCapture(cuda->stream, &graph));
    recording = calloc(1, sizeof *recording);
    if (recording == NULL) {
        rc = apd_fail(err, APD_NOMEM, "recording");
        goto done;
    }
    /* Or all of it would have the priority of the stream that it is launched into. */
    CUDA_GO(
        cudaGraphInstantiate(&recording->graph, graph, cudaGraphInstantiateFlagUseNodePriority));
    cuda->recordings++;
    *out = recording;
    recording = NULL;
done:
    if (graph != NULL)
        (void)cudaGraphDestroy(graph);
    free(recording);
    return rc;
}

static enum apd_code cuda_replay(struct apd_backend *be, struct apd_recording *recording,
                                 struct apd_err *err)
{
    CUDA_TRY(cudaGraphLaunch(recording->graph, cuda_of(be)->stream));
    return APD_OK;
}

static void cuda_recording_destroy(struct apd_backend *be, struct apd_recording **recording)
{
    struct cuda_backend *cuda = cuda_of(be);

    if (*recording == NULL)
        return;
    (void)cudaGraphExecDestroy((*recording)->graph);
    if (--cuda->recordings == 0)
        cuda_free_outgrown(cuda);
    free(*recording);
    *recording = NULL;
}

void cuda_record_ops(struct apd_backend_ops *ops)
{
    ops->record_begin = cuda_record_begin;
    ops->record_end = cuda_record_end;
    ops->replay = cuda_replay;
    ops->recording_destroy = cuda_recording_destroy;
}
