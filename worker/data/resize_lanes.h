/* The inner loops of resizing, once per instruction set: resize_lanes.c is compiled for each and
 * fills one table; all tables give the same bits. A pixel is four bytes, R G B and one that means
 * nothing. Weights are integers, APD_RESIZE_ONE stands for 1; the rounding is resize.h's. */
#ifndef APD_WORKER_DATA_RESIZE_LANES_H
#define APD_WORKER_DATA_RESIZE_LANES_H

#include <stddef.h>
#include <stdint.h>

enum {
    APD_RESIZE_BITS = 22,
    APD_RESIZE_ONE = 1 << APD_RESIZE_BITS,
    APD_RESIZE_LOW_BITS = 11, /* of a weight in two 16-bit parts */
    APD_RESIZE_TAPS = 4,      /* the taps of `across` are a multiple of it */
    APD_RESIZE_PIXELS = 16 /* so are the pixels of `across`, and of the rows `down` and `split` read
                              and write beyond what is wanted */
};

struct apd_resize_lanes {
    /* dst pixel i = sum over k < taps of weight k * src pixel (first[i] + k), for n pixels. Weights
     * lie as the vectors want them: for each four pixels, for each four taps, for each of the
     * pixels, w being its weights of these taps, 16 bits each: high w0 w1 w2 w3, low w0 w1 w2 w3;
     * w = high * 2^APD_RESIZE_LOW_BITS + low. */
    void (*across)(const uint8_t *src, const int32_t *first, const int32_t *weights, int taps,
                   int n, uint8_t *dst);
    /* dst pixel i = sum over k < taps of weights[k] * rows[k] pixel i. */
    void (*down)(const uint8_t *const *rows, const int32_t *weights, int taps, int n, uint8_t *dst);
    /* n pixels into three planes; no byte beyond them is written. */
    void (*split)(const uint8_t *src, int n, uint8_t *r, uint8_t *g, uint8_t *b);
};

extern const struct apd_resize_lanes apd_resize_avx512, apd_resize_avx2, apd_resize_baseline;

#endif
