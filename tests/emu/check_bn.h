/* A batch norm layer with all that its passes read and write, for check_bn.c (each step by itself)
 * and check_fused.c (steps in one). */
#ifndef APD_TESTS_EMU_CHECK_BN_H
#define APD_TESTS_EMU_CHECK_BN_H

#include "check.h"

struct bn_case {
    enum apd_cuda_type type;
    struct apd_shape shape;
    int n;
    struct apd_cuda_segments seg;
    int add, relu, second, batch_stats;
    double mean, deviation;
};

struct layer {
    const struct bn_case *k;
    int wide; /* channels rounded up */
    void *x, *add, *y, *d_y, *d_y2, *d_g, *d_x;
    uint8_t *mask; /* of y */
    float *gamma[APD_BN_SETS], *beta[APD_BN_SETS], *d_gamma[APD_BN_SETS], *d_beta[APD_BN_SETS];
    float *moments;
    double *sums, *d_sums, count[APD_MAX_SEGMENTS];
    size_t stride;
    void *scratch;
};

/* Inputs random, outputs garbage, moments zero. The last of several channels has a y about as small
 * as the smallest halves, so that some become zero when stored. */
struct layer make_layer(const struct bn_case *k);
struct apd_cuda_bn bn_of(const struct layer *l);
/* 1-3 segments, empty ones at either end and in the middle; which in [0, 4). */
struct apd_cuda_segments segments_of(int which, int n);
/* Whether the mask says which elements of y are not <= 0, padding included. */
void expect_mask(const struct layer *l);

/* Calls body for every value of channel c in segment s; i and p are the image and the pixel. */
#define EACH_VALUE(l, s, i, p)                                                                     \
    for (int i = (l)->k->seg.at[s].first; i < (l)->k->seg.at[s].first + (l)->k->seg.at[s].count;   \
         i++)                                                                                      \
        for (int p = 0; p < (l)->k->shape.h * (l)->k->shape.w; p++)

#define EACH_CHANNEL(l, s, c)                                                                      \
    for (int s = 0; s < (l)->k->seg.count; s++)                                                    \
        for (int c = 0; c < (l)->k->shape.c; c++)

static inline double at(const struct layer *l, const void *p, int image, int pixel, int c)
{
    return get(l->k->type, p, place(l->k->shape, image, pixel, c));
}

#endif
