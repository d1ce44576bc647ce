/* The random words of one corrupted image: the stream CORRUPT (base/rng.h), used up word after
 * word. Part of the definition of each corruption (docs/corruptions.md). */
#ifndef APD_WORKER_DATA_CORRUPT_WORDS_H
#define APD_WORKER_DATA_CORRUPT_WORDS_H

#include "base/rng.h"

#include <math.h>
#include <stdint.h>

struct apd_words {
    uint64_t seed, sample;
    uint32_t epoch;
    uint64_t used;
    struct apd_philox block;
};

static inline uint32_t apd_words_next(struct apd_words *words)
{
    if (words->used % 4 == 0)
        words->block = apd_rng(words->seed, APD_RNG_CORRUPT, words->epoch, words->sample,
                               (uint32_t)(words->used / 4));
    return words->block.v[words->used++ % 4];
}

/* Uniform in [from, to). One word. */
static inline double apd_words_between(struct apd_words *words, double from, double to)
{
    return from + (to - from) * (double)apd_uniform(apd_words_next(words));
}

/* Two independent standard normals by Box-Muller. Two words. */
static inline void apd_words_normal(struct apd_words *words, double out[2])
{
    double u = ((double)apd_words_next(words) + 1) * 0x1p-32;
    double angle = 2 * M_PI * (double)apd_words_next(words) * 0x1p-32;
    double radius = sqrt(-2 * log(u));

    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

#endif
