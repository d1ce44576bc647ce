/* The maximum over 3x3, stride 2, padding 1, as it is stored and as batch norm's kernels make it in
 * passing: the same winners. */
#ifndef APD_KERNELS_CUDA_POOL_CUH
#define APD_KERNELS_CUDA_POOL_CUH

#include "kernels/cuda/reduce.cuh"
#include "kernels/shape.h"

struct Plane {
    int h, w, out_h, out_w, groups;
};

static Plane plane_of_pool(struct apd_shape in)
{
    struct apd_shape out = apd_maxpool_out(in);

    return Plane{in.h, in.w, out.h, out.w, rounded_channels(in.c) / GROUP};
}

/* The first in reading order wins among equals, a NaN over numbers. */
struct Winner {
    float best[GROUP];
    unsigned place[GROUP];
    bool found = false;

    __device__ __forceinline__ void meets(const float (&v)[GROUP], int at)
    {
#pragma unroll
        for (int c = 0; c < GROUP; c++)
            if (!found || v[c] > best[c] || v[c] != v[c]) {
                best[c] = v[c];
                place[c] = unsigned(at);
            }
        found = true;
    }

    template <class T> __device__ __forceinline__ void put(T *dst, uint8_t *which) const
    {
        store<GROUP>(dst, best);
        *reinterpret_cast<uint2 *>(which) =
            make_uint2(place[0] | place[1] << 8 | place[2] << 16 | place[3] << 24,
                       place[4] | place[5] << 8 | place[6] << 16 | place[7] << 24);
    }
};

/* Calls with_place(pixel of the image, place in the window) for all that output (y, x) sees. */
template <class F>
static __device__ __forceinline__ void in_window(const Plane &p, int y, int x, F with_place)
{
#pragma unroll
    for (int k = 0; k < 9; k++) {
        int sy = 2 * y - 1 + k / 3, sx = 2 * x - 1 + k % 3;

        if (sy >= 0 && sy < p.h && sx >= 0 && sx < p.w)
            with_place(size_t(sy) * p.w + sx, k);
    }
}

/* The gradient of input (y, x): it asks the at most four windows it is in. d_dst, which: from the
 * image's first element for this thread's channels on; d_dst2 (may be NULL) is added to d_dst. */
template <class T>
static __device__ __forceinline__ void gather(const Plane &p, int y, int x, const T *d_dst,
                                              const T *d_dst2, const uint8_t *which,
                                              float (&sum)[GROUP])
{
    size_t channels = size_t(p.groups) * GROUP;

#pragma unroll
    for (int c = 0; c < GROUP; c++)
        sum[c] = 0;
#pragma unroll 1
    for (int oy = y / 2; oy <= (y + 1) / 2 && oy < p.out_h; oy++)
#pragma unroll 1
        for (int ox = x / 2; ox <= (x + 1) / 2 && ox < p.out_w; ox++) {
            unsigned mine = unsigned((y - 2 * oy + 1) * 3 + (x - 2 * ox + 1));
            size_t at = (size_t(oy) * p.out_w + ox) * channels;
            uint2 places = *reinterpret_cast<const uint2 *>(which + at);
            float g[GROUP];

            load_sum<GROUP>(d_dst, d_dst2, at, g);
#pragma unroll
            for (int c = 0; c < GROUP; c++)
                if (((c < 4 ? places.x : places.y) >> (c % 4 * 8) & 255) == mine)
                    sum[c] += g[c];
        }
}

#endif
