/* Our own inner loops, once per instruction set: lanes.c is compiled for each and fills one table;
 * the backend takes the table of the machine it runs on. Every function works on one thread's share
 * of an operation; who shares out the work is in bn.c, pool.c, image.c and flat.c.
 *
 * A plane is one block of channels of one image: `pixels` groups of `block` floats. `lanes` stands
 * for an array of `block` floats, one per channel of the plane. Pointers need no alignment. */
#ifndef APD_KERNELS_CPU_SIMD_H
#define APD_KERNELS_CPU_SIMD_H

#include "kernels/backend.h"

#define APD_MAX_BLOCK 16

/* How BN treats one plane: y = (x - mean) * scale + beta. */
struct apd_bn_lanes {
    const float *mean, *scale, *beta;
};

/* d_x = scale * (g - mean_g - (x - mean) * slope). */
struct apd_bn_gradient_lanes {
    const float *mean, *scale, *mean_g, *slope;
};

/* One stream of pixel noise: key and counter words of base/rng.h. */
struct apd_noise_stream {
    uint64_t key;
    uint32_t word1, word2, word3; /* word 0 is the block */
};

struct apd_simd {
    int block; /* channels per block: 16 or 8 */

    /* {sum x, sum x^2} per channel over `images` planes `stride` floats apart (overwrites). Two
     * readings of a stretch of 256 pixels in the cache: about its own mean in float, then into
     * double. */
    void (*bn_sums)(const float *x, size_t stride, int images, size_t pixels, double *sum,
                    double *squares);
    /* add may be NULL. */
    void (*bn_forward)(const float *x, const float *add, size_t pixels, struct apd_bn_lanes p,
                       int relu, float *y);
    /* g = d_y (+ d_y2), 0 where relu_y <= 0; sum += g, sum_xc += g * (x - mean), in float over 256
     * pixels, then in double. d_y2, relu_y, g_out may be NULL. */
    void (*bn_backward_sums)(const float *d_y, const float *d_y2, const float *relu_y,
                             const float *x, size_t pixels, const float *mean, float *g_out,
                             double *sum, double *sum_xc);
    void (*bn_backward_data)(const float *g, const float *x, size_t pixels,
                             struct apd_bn_gradient_lanes p, float *d_x);

    /* 3x3, stride 2, padding 1 on one plane of h x w. */
    void (*maxpool_forward)(const float *src, int h, int w, float *dst, uint8_t *which);
    void (*maxpool_backward)(const float *d_dst, const uint8_t *which, int h, int w, float *d_src);
    /* lanes[] = mean over the plane. */
    void (*plane_mean)(const float *src, size_t pixels, float *lanes);
    void (*plane_fill)(const float *lanes, size_t pixels, float *dst);

    /* out[4 b + k] = (2 u - 1) * range, u = word k of block first + b as uniform; 4 * blocks
     * floats. */
    void (*noise)(struct apd_noise_stream stream, uint32_t first, size_t blocks, float range,
                  float *out);
    void (*attack)(size_t n, const float *x, const float *at, const float *d_x, float step,
                   float eps, float *next);

    void (*add)(size_t n, const float *src, float *dst);
    void (*sgd)(size_t n, const struct apd_sgd *sgd, const float *d_w, float *w, float *m);
    int (*nonfinite)(size_t n, const float *x);
};

extern const struct apd_simd apd_simd_avx512, apd_simd_avx2, apd_simd_baseline;

#endif
