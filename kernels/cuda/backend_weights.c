/* The weights in T. Parameters are float; in 16-bit types convolutions and classifier compute with
 * a copy of the whole flat array at the same offsets: weights_changed() casts it, sgd() writes it
 * beside the weights. It does not move while there are recordings, which hold its address. */
#include "kernels/cuda/backend.h"

/* NULL: w has no copy. */
static void *copy_of(const struct cuda_backend *cuda, const void *w)
{
    size_t at = (size_t)((uintptr_t)w - (uintptr_t)cuda->weights); /* huge if w is before them */

    if (at >= cuda->weights_bytes)
        return NULL;
    return (char *)cuda->buffer[CUDA_WEIGHTS].at + at / sizeof(float) * cuda->base.act_bytes;
}

enum apd_code cuda_weights(struct cuda_backend *cuda, const void *w, const void **out,
                           struct apd_err *err)
{
    const void *weights = cuda->is.type == APD_CUDA_F32 ? w : copy_of(cuda, w);

    if (weights == NULL)
        return apd_fail(err, APD_BUG, "weights that weights_changed() was not told of");
    *out = weights;
    return APD_OK;
}

static enum apd_code cuda_weights_changed(struct apd_backend *be, const void *weights, size_t n,
                                          struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);
    size_t bytes = n * be->act_bytes;
    void *copy;

    if (cuda->is.type == APD_CUDA_F32)
        return APD_OK;
    if (cuda->recordings > 0 && bytes > cuda->buffer[CUDA_WEIGHTS].bytes)
        return apd_fail(err, APD_BUG, "%zu weights, more than when passes were recorded", n);
    APD_TRY(cuda_reserve(cuda, CUDA_WEIGHTS, bytes, &copy, err));
    cuda->weights = weights;
    cuda->weights_bytes = n * sizeof(float);
    CUDA_TRY(apd_cuda_cast(cuda->is.type, n, weights, copy, cuda->stream));
    return APD_OK;
}

static enum apd_code cuda_sgd(struct apd_backend *be, size_t n, const struct apd_sgd *sgd,
                              const void *d_w, void *w, void *m, struct apd_err *err)
{
    struct cuda_backend *cuda = cuda_of(be);

    CUDA_TRY(apd_cuda_sgd(cuda->is.type, n, sgd, d_w, w, m, copy_of(cuda, w), cuda->stream));
    return APD_OK;
}

void cuda_weights_ops(struct apd_backend_ops *ops)
{
    ops->weights_changed = cuda_weights_changed;
    ops->sgd = cuda_sgd;
}
