/* Device memory of the CUDA backend. Where it was planned it is one piece: the backend's own
 * buffers at their largest, then blocks behind each other, of which those are free again that have
 * nothing in use behind them. In the first round, which measures, addresses are given out that are
 * no memory. Without a plan (tools, tests) every block and buffer is allocated by itself.
 *
 *      | buffers | block | block | block | ... |
 *      0         first                   used  bytes
 */
#include "kernels/cuda/backend.h"

#include <assert.h>
#include <stdlib.h>

enum { ALIGNMENT = 256 };

/* Left for what is not ours: cuDNN's kernels and CUDA graphs, and with several workers NCCL's
 * buffers. */
static const size_t KEPT_BYTES = (size_t)512 << 20, KEPT_NCCL_BYTES = (size_t)2048 << 20;

/* Whoever touches these faults. */
static char *const NO_MEMORY = (char *)((uintptr_t)1 << 56);

struct cuda_block {
    size_t begin;
    int freed;
    struct cuda_block *before;
};

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
}

static size_t mib(size_t bytes)
{
    return (bytes + (1 << 20) - 1) >> 20;
}

static int is_ours(const struct cuda_arena *arena, const void *device)
{
    return arena->at != NULL && (const char *)device >= arena->at &&
           (const char *)device < arena->at + arena->bytes;
}

static enum apd_code check_recording(const struct cuda_backend *cuda, size_t bytes,
                                     struct apd_err *err)
{
    if (!cuda->recording)
        return APD_OK;
    return apd_fail(err, APD_BUG, "%zu bytes of GPU memory wanted in a recording", bytes);
}

/* ---------------------------------------------------------------- without a plan */

static enum apd_code allocate(size_t bytes, void **out, struct apd_err *err)
{
    size_t free_bytes = 0, total = 0;
    cudaError_t status = cudaMalloc(out, bytes > 0 ? bytes : 1);

    if (status == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&free_bytes, &total);
        return apd_fail(err, APD_DEVICE,
                        "GPU out of memory: %zu MiB more are needed, %zu MiB of %zu MiB are free; "
                        "lower train.batch or eval.batch, or use more workers",
                        mib(bytes), free_bytes >> 20, total >> 20);
    }
    return apd_cuda_check(status, "cudaMalloc", err);
}

/* ---------------------------------------------------------------- blocks */

static enum apd_code push_block(struct cuda_arena *arena, size_t bytes, void **out,
                                struct apd_err *err)
{
    size_t end = arena->used + aligned(bytes > 0 ? bytes : 1);
    struct cuda_block *block;

    if (end > arena->bytes)
        return apd_fail(err, APD_BUG, "%zu bytes of GPU memory wanted beyond the plan of %zu",
                        bytes, arena->bytes);
    block = malloc(sizeof *block);
    if (block == NULL)
        return apd_fail(err, APD_NOMEM, "GPU memory");
    *block = (struct cuda_block){.begin = arena->used, .before = arena->newest};
    arena->newest = block;
    arena->used = end;
    if (end > arena->most)
        arena->most = end;
    *out = arena->at + block->begin;
    return APD_OK;
}

static void pop_blocks(struct cuda_arena *arena)
{
    struct cuda_block *dead;

    while ((dead = arena->newest) != NULL && dead->freed) {
        arena->newest = dead->before;
        arena->used = dead->begin;
        free(dead);
    }
}

static void drop_blocks(struct cuda_arena *arena)
{
    for (struct cuda_block *block = arena->newest; block != NULL; block = block->before)
        block->freed = 1;
    pop_blocks(arena);
}

/* What used the block did so on our stream or was joined to it, so the next user comes after. */
static void free_block(struct cuda_arena *arena, const void *device)
{
    struct cuda_block *block = arena->newest;
    size_t begin = (size_t)((const char *)device - arena->at);

    while (block != NULL && block->begin != begin)
        block = block->before;
    assert(block != NULL && !block->freed);
    block->freed = 1;
    pop_blocks(arena);
}

static enum apd_code cuda_alloc(struct apd_backend *be, size_t bytes, void **out,
                                struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);

    APD_TRY(check_recording(cuda, bytes, err));
    if (cuda->arena.at != NULL)
        APD_TRY(push_block(&cuda->arena, bytes, out, err));
    else
        APD_TRY(allocate(bytes, out, err));
    if (cuda->arena.measuring)
        return APD_OK;
    return apd_cuda_check(cudaMemsetAsync(*out, 0, bytes > 0 ? bytes : 1, cuda->stream),
                          "clearing new memory", err);
}

static void cuda_free(struct apd_backend *be, void *device)
{
    struct cuda_backend *cuda = cuda_of(be);

    if (is_ours(&cuda->arena, device))
        free_block(&cuda->arena, device);
    else
        (void)cudaFree(device);
}

/* ---------------------------------------------------------------- buffers */

static enum apd_code outgrow(struct cuda_backend *cuda, enum cuda_buffer which, struct apd_err *err)
{
    struct cuda_outgrown *old;

    if (cuda->buffer[which].at == NULL)
        return APD_OK;
    old = malloc(sizeof *old);
    if (old == NULL)
        return apd_fail(err, APD_NOMEM, "buffer");
    *old = (struct cuda_outgrown){cuda->buffer[which].at, cuda->outgrown};
    cuda->outgrown = old;
    cuda->buffer[which].at = NULL;
    cuda->buffer[which].bytes = 0;
    if (cuda->recordings == 0)
        cuda_free_outgrown(cuda);
    return APD_OK;
}

void cuda_free_outgrown(struct cuda_backend *cuda)
{
    while (cuda->outgrown != NULL) {
        struct cuda_outgrown *old = cuda->outgrown;

        cuda->outgrown = old->next;
        (void)cudaFree(old->at); /* waits for those who use it */
        free(old);
    }
}

static enum apd_code grow(struct cuda_backend *cuda, enum cuda_buffer which, size_t bytes,
                          struct apd_err *err)
{
    enum apd_code rc;
    void *grown = NO_MEMORY;

    APD_TRY(check_recording(cuda, bytes, err));
    if (cuda->arena.at != NULL && !cuda->arena.measuring)
        return apd_fail(err, APD_BUG,
                        "%zu bytes of GPU memory wanted in buffer %d, which was planned with %zu",
                        bytes, (int)which, cuda->buffer[which].bytes);
    if (!cuda->arena.measuring) {
        APD_TRY(allocate(bytes, &grown, err));
        rc = outgrow(cuda, which, err);
        if (rc != APD_OK) {
            (void)cudaFree(grown);
            return rc;
        }
    }
    cuda->buffer[which].at = grown;
    cuda->buffer[which].bytes = bytes;
    return APD_OK;
}

enum apd_code cuda_reserve(struct cuda_backend *cuda, enum cuda_buffer which, size_t bytes,
                           void **out, struct apd_err *err)
{
    if (bytes > cuda->buffer[which].bytes)
        APD_TRY(grow(cuda, which, bytes, err));
    *out = cuda->buffer[which].at;
    return APD_OK;
}

static enum apd_code cuda_prepare(struct apd_backend *be, const struct apd_demand *demand,
                                  struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    size_t scratch = apd_cuda_scratch_bytes(demand->channels, demand->segments);
    void *ignored;

    APD_TRY(cuda_reserve(cuda, CUDA_SCRATCH, scratch, &ignored, err));
    APD_TRY(cuda_reserve(cuda, CUDA_ARGUMENTS, cuda_argument_bytes(demand->rows), &ignored, err));
    if (cuda->is.type != APD_CUDA_F32)
        APD_TRY(cuda_reserve(cuda, CUDA_WEIGHTS, demand->weights * be->act_bytes, &ignored, err));
    APD_TRY(cuda_reserve(cuda, CUDA_STAGE_0, demand->stage_bytes, &ignored, err));
    return cuda_reserve(cuda, CUDA_STAGE_1, demand->stage_bytes, &ignored, err);
}

/* ---------------------------------------------------------------- the plan */

static void cuda_plan_begin(struct apd_backend *be)
{
    struct cuda_backend *cuda = cuda_of(be);

    assert(cuda->arena.at == NULL);
    cuda->arena = (struct cuda_arena){.at = NO_MEMORY, .bytes = SIZE_MAX / 2, .measuring = 1};
}

static size_t cuda_plan_used(struct apd_backend *be)
{
    return cuda_of(be)->arena.used;
}

/* Gives the buffers their places from `at` on; returns their size. */
static size_t place_buffers(struct cuda_backend *cuda, char *at)
{
    size_t used = 0;

    for (int i = 0; i < CUDA_BUFFERS; i++) {
        cuda->buffer[i].at = cuda->buffer[i].bytes > 0 ? at + used : NULL;
        used += aligned(cuda->buffer[i].bytes);
    }
    return used;
}

static void forget(struct cuda_backend *cuda)
{
    cuda->arena = (struct cuda_arena){0};
    for (int i = 0; i < CUDA_BUFFERS; i++) {
        cuda->buffer[i].at = NULL;
        cuda->buffer[i].bytes = 0;
    }
}

static enum apd_code refuse(const struct apd_memory_plan *plan, struct apd_err *err)
{
    return apd_fail(
        err, APD_DEVICE,
        "GPU memory does not suffice: %zu MiB are needed (activations %zu, weights and gradients "
        "%zu, cuDNN's workspace %zu, images and others %zu, kept for CUDA and NCCL %zu), %zu MiB "
        "of %zu MiB are free; lower train.batch or eval.batch, turn train.recompute on, or use "
        "more workers",
        mib(plan->needed + plan->kept), mib(plan->activations), mib(plan->weights),
        mib(plan->workspace), mib(plan->other), mib(plan->kept), plan->free >> 20,
        plan->total >> 20);
}

static enum apd_code fill_plan(struct cuda_backend *cuda, struct apd_memory_plan *plan,
                               struct apd_err *err)
{
    if (cuda->arena.newest != NULL)
        return apd_fail(err, APD_BUG, "%zu bytes were not freed after the measuring round",
                        cuda->arena.used);
    plan->workspace = cuda->buffer[CUDA_WORKSPACE].bytes;
    plan->needed = place_buffers(cuda, NO_MEMORY) + cuda->arena.most;
    plan->other = plan->needed - plan->activations - plan->weights - plan->workspace;
    plan->kept = KEPT_BYTES + (plan->workers > 1 ? KEPT_NCCL_BYTES : 0);
    CUDA_TRY(cudaMemGetInfo(&plan->free, &plan->total));
    return plan->needed + plan->kept > plan->free ? refuse(plan, err) : APD_OK;
}

static enum apd_code take(struct cuda_backend *cuda, const struct apd_memory_plan *plan,
                          struct apd_err *err)
{
    void *at = NULL;
    cudaError_t status = cudaMalloc(&at, plan->needed);

    if (status == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return refuse(plan, err);
    }
    APD_TRY(apd_cuda_check(status, "cudaMalloc", err));
    cuda->arena = (struct cuda_arena){.at = at,
                                      .bytes = plan->needed,
                                      .used = place_buffers(cuda, at),
                                      .left = plan->free - plan->needed};
    return APD_OK;
}

static enum apd_code cuda_plan_end(struct apd_backend *be, struct apd_memory_plan *plan,
                                   struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    enum apd_code rc = plan == NULL ? APD_OK : fill_plan(cuda, plan, err);

    drop_blocks(&cuda->arena);
    cuda->arena = (struct cuda_arena){0};
    if (rc == APD_OK && plan != NULL)
        rc = take(cuda, plan, err);
    if (cuda->arena.at == NULL)
        forget(cuda);
    return rc;
}

void cuda_arena_fini(struct cuda_backend *cuda)
{
    cuda_free_outgrown(cuda);
    for (int i = 0; i < CUDA_BUFFERS; i++)
        if (cuda->buffer[i].at != NULL && !is_ours(&cuda->arena, cuda->buffer[i].at))
            (void)cudaFree(cuda->buffer[i].at);
    drop_blocks(&cuda->arena);
    if (cuda->arena.at != NULL)
        (void)cudaFree(cuda->arena.at);
}

void cuda_arena_ops(struct apd_backend_ops *ops)
{
    ops->plan_begin = cuda_plan_begin;
    ops->plan_used = cuda_plan_used;
    ops->plan_end = cuda_plan_end;
    ops->alloc = cuda_alloc;
    ops->free = cuda_free;
    ops->prepare = cuda_prepare;
}
