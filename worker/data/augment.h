/* Augmentation of one training image: zero padding, crop back to the size, horizontal flip. Pure.
 *
 * The choices come from one Philox block (base/rng.h), a function of seed, epoch and sample only:
 *
 *   v    = apd_rng(seed, APD_RNG_AUGMENT, epoch, sample, block 0)
 *   dx   = apd_below(v[0], 2 pad + 1) - pad
 *   dy   = apd_below(v[1], 2 pad + 1) - pad
 *   flip = v[2] & 1
 *   dst(c, y, x) = src(c, y + dy, (flip ? w - 1 - x : x) + dx), 0 (black) outside of src
 *
 * that is: crop at (dx, dy), then mirror. */
#ifndef APD_WORKER_DATA_AUGMENT_H
#define APD_WORKER_DATA_AUGMENT_H

#include <stdint.h>

enum apd_augment { APD_AUGMENT_NONE, APD_AUGMENT_CROP_FLIP };

struct apd_augment_settings {
    enum apd_augment kind;
    int crop_padding_px; /* >= 0 */
    uint64_t seed;
};

struct apd_augment_choice {
    int dx, dy;
    int flip;
};

/* All zero for APD_AUGMENT_NONE. */
struct apd_augment_choice apd_augment_choose(const struct apd_augment_settings *settings,
                                             uint32_t epoch, uint64_t sample);

/* src and dst: [c][h][w], must not overlap. */
void apd_augment_apply(struct apd_augment_choice choice, int c, int h, int w, const uint8_t *src,
                       uint8_t *dst);

#endif
