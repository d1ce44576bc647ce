/* The draws of one training image: which block of the stream AUGMENT (base/rng.h) decides what.
 * Part of the method's definition, documented in docs/data.md; changing one changes every run. */
#ifndef APD_WORKER_DATA_DRAW_H
#define APD_WORKER_DATA_DRAW_H

#include "base/rng.h"

#include <stdint.h>

enum apd_draw_block {
    APD_DRAW_CROP_FLIP = 0,  /* dx, dy, flip; augment.h */
    APD_DRAW_BOX = 1,        /* + try, 10 */
    APD_DRAW_JITTER = 16,    /* four strengths */
    APD_DRAW_ORDER = 17,     /* in which jitter is applied */
    APD_DRAW_POLICY = 32,    /* + operation, 16 */
    APD_DRAW_ERASE = 64,     /* whether */
    APD_DRAW_ERASE_BOX = 65, /* + try, 10 */
    APD_DRAW_NOISE = 256,    /* + (row << 16) + byte / 16 */
};

/* One image of a run. */
struct apd_draw_place {
    uint64_t seed;
    uint32_t epoch;
    uint64_t sample;
};

static inline struct apd_philox apd_draw(const struct apd_draw_place *place, uint32_t block)
{
    return apd_rng(place->seed, APD_RNG_AUGMENT, place->epoch, place->sample, block);
}

/* Uniform between two numbers, in double. */
static inline double apd_draw_between(uint32_t word, double from, double to)
{
    return from + (to - from) * apd_uniform(word);
}

#endif
