/* Images on their way in, on a stream of their own, into two slots that take turns. Nothing but who
 * reads a slot waits for its copy, and the next copy into it waits for nothing but its readers:
 *
 *   copy    | A: step n |           | B: n + 1 |          | A: n + 2 |
 *   stream              | packs A | step n ...  | packs B | step n + 1 ...
 */
#include "kernels/cuda/backend.h"

static enum apd_code cuda_stage(struct apd_backend *be, const void *host, size_t bytes,
                                const void **out_device, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    int slot = cuda->next_slot;
    void *device;

    APD_TRY(cuda_reserve(cuda, slot == 0 ? CUDA_STAGE_0 : CUDA_STAGE_1, bytes, &device, err));
    CUDA_TRY(cudaStreamWaitEvent(cuda->copy, cuda->slot[slot].read, 0));
    CUDA_TRY(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda->copy));
    CUDA_TRY(cudaEventRecord(cuda->slot[slot].copied, cuda->copy));
    cuda->slot[slot].is_new = 1;
    cuda->next_slot = !slot;
    *out_device = device;
    return APD_OK;
}

/* The slot that `bytes` lie in; NULL: they came in another way. */
static struct cuda_slot *slot_of(struct cuda_backend *cuda, const uint8_t *bytes)
{
    for (int slot = 0; slot < 2; slot++) {
        int buffer = slot == 0 ? CUDA_STAGE_0 : CUDA_STAGE_1;

        if ((uintptr_t)bytes - (uintptr_t)cuda->buffer[buffer].at < cuda->buffer[buffer].bytes)
            return &cuda->slot[slot];
    }
    return NULL;
}

enum apd_code cuda_stage_read_begin(struct cuda_backend *cuda, const uint8_t *bytes,
                                    struct apd_err *err)
{
    struct cuda_slot *slot = slot_of(cuda, bytes);

    if (slot == NULL || !slot->is_new)
        return APD_OK;
    CUDA_TRY(cudaStreamWaitEvent(cuda->stream, slot->copied, 0));
    slot->is_new = 0;
    return APD_OK;
}

enum apd_code cuda_stage_read_end(struct cuda_backend *cuda, const uint8_t *bytes,
                                  struct apd_err *err)
{
    struct cuda_slot *slot = slot_of(cuda, bytes);

    if (slot != NULL)
        CUDA_TRY(cudaEventRecord(slot->read, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_pin(struct apd_backend *be, void *host, size_t bytes, struct apd_err *err)
{
    (void)be;
    CUDA_TRY(cudaHostRegister(host, bytes, cudaHostRegisterDefault));
    return APD_OK;
}

static void cuda_unpin(struct apd_backend *be, void *host)
{
    (void)cudaStreamSynchronize(cuda_of(be)->copy);
    (void)cudaHostUnregister(host);
}

void cuda_stage_ops(struct apd_backend_ops *ops)
{
    ops->stage = cuda_stage;
    ops->pin = cuda_pin;
    ops->unpin = cuda_unpin;
}
