/* Shape arithmetic of the operations in backend.h, in one place for backends and their callers. */
#ifndef APD_KERNELS_SHAPE_H
#define APD_KERNELS_SHAPE_H

#include "kernels/backend.h"

/* Places a window of `kernel` takes along an axis of `in` elements. */
static inline int apd_window_count(int in, int kernel, int stride, int pad)
{
    return (in + 2 * pad - kernel) / stride + 1;
}

static inline struct apd_shape apd_conv_out(const struct apd_conv_shape *s)
{
    return (struct apd_shape){
        .c = s->out_c,
        .h = apd_window_count(s->in.h, s->kernel, s->stride, s->pad),
        .w = apd_window_count(s->in.w, s->kernel, s->stride, s->pad),
    };
}

/* Output of the max pool: 3x3, stride 2, padding 1. */
static inline struct apd_shape apd_maxpool_out(struct apd_shape in)
{
    return (struct apd_shape){
        .c = in.c, .h = apd_window_count(in.h, 3, 2, 1), .w = apd_window_count(in.w, 3, 2, 1)};
}

static inline size_t apd_shape_elems(struct apd_shape s)
{
    return (size_t)s.c * (size_t)s.h * (size_t)s.w;
}

/* Elements of the canonical OIHW weights. */
static inline size_t apd_conv_oihw_elems(const struct apd_conv_shape *s)
{
    return (size_t)s->out_c * (size_t)(s->in.c / s->groups) * (size_t)s->kernel * (size_t)s->kernel;
}

/* Whether the shape can exist at all; backends assert it. */
static inline int apd_conv_shape_ok(const struct apd_conv_shape *s)
{
    return s->in.c > 0 && s->in.h > 0 && s->in.w > 0 && s->out_c > 0 && s->kernel > 0 &&
           s->stride > 0 && s->pad >= 0 && s->groups > 0 && s->in.c % s->groups == 0 &&
           s->out_c % s->groups == 0 && s->in.h + 2 * s->pad >= s->kernel &&
           s->in.w + 2 * s->pad >= s->kernel;
}

/* Whether segments are disjoint and ascending and, n >= 0, cover n images. */
static inline int apd_segments_ok(const struct apd_segment *seg, int segments, int n)
{
    int next = 0;

    if (segments < 1 || segments > APD_MAX_SEGMENTS)
        return 0;
    for (int s = 0; s < segments; s++) {
        if (seg[s].first < next || (n >= 0 && seg[s].first > next) || seg[s].count < 0 ||
            (unsigned)seg[s].set >= APD_BN_SETS)
            return 0;
        next = seg[s].first + seg[s].count;
    }
    return n < 0 || next == n;
}

static inline int apd_segments_images(const struct apd_segment *seg, int segments)
{
    return seg[segments - 1].first + seg[segments - 1].count;
}

#endif
