/* Batch norm, forward: y = act((x - mean) * rstd * gamma + beta + what a residual block adds). */
#include "kernels/cuda/bn.cuh"

/* Two: `other` is added. An instance of its own, because its parameters take 24 registers. */
template <class T, bool Two>
__global__ void __launch_bounds__(BLOCK_THREADS)
    k_bn_forward(Norm<T> bn, Norm<T> other, Segments seg, size_t plane, int groups, const T *add,
                 int relu, T *y, uint8_t *mask)
{
    Walk w = walk_over(seg, plane, groups);
    Affine affine, affine2;

    if (w.group >= groups)
        return;
    affine.take(bn, w, seg.set[w.s]);
    if (Two)
        affine2.take(other, w, seg.set[w.s]);
    for (; w.at < w.end; w.at += w.step) {
        float v[GROUP], more[GROUP];
        unsigned passing = 0;

        load<GROUP>(bn.x + w.at, v);
        if (Two)
            load<GROUP>(other.x + w.at, more);
        else if (add != NULL)
            load<GROUP>(add + w.at, more);
#pragma unroll
        for (int k = 0; k < GROUP; k++) {
            v[k] = affine.y(v[k], k);
            if (Two)
                v[k] += affine2.y(more[k], k);
            else if (add != NULL)
                v[k] += more[k];
            v[k] = relu && v[k] < 0 ? 0.0f : v[k]; /* NaN stays */
        }
        store<GROUP>(y + w.at, v);
        if (mask == NULL)
            continue;
#pragma unroll
        for (int k = 0; k < GROUP; k++)
            passing |= unsigned(passes<T>(v[k])) << k;
        mask[w.at / GROUP] = uint8_t(passing);
    }
}
EMU_KERNEL(k_bn_forward<float, false>)
EMU_KERNEL(k_bn_forward<__half, false>)
EMU_KERNEL(k_bn_forward<__nv_bfloat16, false>)
EMU_KERNEL(k_bn_forward<float, true>)
EMU_KERNEL(k_bn_forward<__half, true>)
EMU_KERNEL(k_bn_forward<__nv_bfloat16, true>)

template <class T>
static cudaError_t bn_forward(const struct apd_cuda_bn *bn, const struct apd_cuda_bn *other,
                              const void *add, int relu, void *y, uint8_t *mask,
                              cudaStream_t stream)
{
    Layout l = layout_of(bn->shape, bn->seg, plane_of(bn->shape), FEW_PIXELS);
    auto kernel = other != NULL ? k_bn_forward<T, true> : k_bn_forward<T, false>;

    return for_segments(bn->seg, NULL, [&](int from, int count, const Segments &some) {
        return launch(kernel, l.grid(count), l.block(), 0, stream, norm_of<T>(bn, from),
                      norm_of<T>(other, from), some, l.plane, l.tile.groups,
                      static_cast<const T *>(add), relu, static_cast<T *>(y), mask);
    });
}

extern "C" cudaError_t apd_cuda_bn_forward(const struct apd_cuda_bn *bn,
                                           const struct apd_cuda_bn *other, const void *add,
                                           int relu, void *y, uint8_t *mask, cudaStream_t stream)
{
    if (other != NULL && add != NULL)
        return cudaErrorInvalidValue;
    FOR_TYPE(bn->type, bn_forward<T>(bn, other, add, relu, y, mask, stream))
}
