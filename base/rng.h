/* Randomness: counter based, so that every draw is a pure function of (seed, purpose, place) and
 * does not depend on workers, threads or restarts. The streams are part of the method's definition
 * and are documented in docs/data.md; changing one changes every run.
 *
 *   key     = { seed[31:0], seed[63:32] }
 *   counter = { block, purpose << 24 | epoch, id[31:0], id[63:32] }      per sample: id = sample id
 *   counter = { block, purpose << 24,         step[31:0], step[63:32] }  per step
 *
 * Philox 4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
#ifndef APD_BASE_RNG_H
#define APD_BASE_RNG_H

#include <stdint.h>

enum apd_purpose {
    APD_RNG_INIT = 1,          /* initial weights; id = FNV-1a of the name */
    APD_RNG_AUGMENT = 2,       /* augmentation; per sample, blocks: worker/data/draw.h */
    APD_RNG_NOISE = 3,         /* delta0 of the noise pass; per sample, block = pixel / 4 */
    APD_RNG_NOISE_CHOICE = 4,  /* is noise used at all; per step */
    APD_RNG_SHUFFLE = 5,       /* permutation of attacked images over lanes; per step */
    APD_RNG_PLAN_SHARDS = 6,   /* order of shards; per epoch */
    APD_RNG_PLAN_WINDOW = 7,   /* order inside a window; per epoch, lane stream and window */
    APD_RNG_EVAL_ATTACK = 8,   /* random start of PGD; per sample, block = pixel / 4 */
    APD_RNG_ATTACK_TARGET = 9, /* label that a targeted attack aims at; per sample */
    APD_RNG_MIX = 10,          /* mixup and CutMix; per step, lane and pass */
    APD_RNG_CORRUPT = 11,      /* corrupted test images; per corruption, severity and sample */
};

struct apd_philox {
    uint32_t v[4];
};

/* The raw block function; key and counter as in the paper. */
struct apd_philox apd_philox(uint64_t key, const uint32_t counter[4]);

/* The block of the streams above. epoch < 2^24. For per-step streams pass epoch 0, id = step. */
struct apd_philox apd_rng(uint64_t seed, enum apd_purpose purpose, uint32_t epoch, uint64_t id,
                          uint32_t block);

/* Uniform in [0, 1), 24 bits, exactly representable. */
static inline float apd_uniform(uint32_t x)
{
    return (float)(x >> 8) * 0x1p-24f;
}

/* Uniform integer in [0, n) by multiply-shift; n > 0. Bias below n / 2^32. */
static inline uint32_t apd_below(uint32_t x, uint32_t n)
{
    return (uint32_t)(((uint64_t)x * n) >> 32);
}

/* 64-bit finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection. */
uint64_t apd_mix64(uint64_t x);

/* Receipt of one trained sample: summed mod 2^64 over an epoch. */
uint64_t apd_receipt(uint64_t epoch, uint64_t sample);

/* Image of x under a keyed permutation of [0, n): 6-round Feistel network on the next even bit
 * width, walking the cycle until the value is in range. x < n, n > 0. O(1), no memory. */
uint64_t apd_permute(uint64_t key, uint64_t n, uint64_t x);

#endif
