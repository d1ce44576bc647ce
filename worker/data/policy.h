/* Which operations an image gets: RandAugment, AutoAugment and colour jitter, as in torchvision
 * 0.14, drawn from our streams (docs/data.md). */
#ifndef APD_WORKER_DATA_POLICY_H
#define APD_WORKER_DATA_POLICY_H

#include "base/err.h"
#include "worker/data/draw.h"
#include "worker/data/image.h"

enum {
    APD_RANDAUGMENT_MAX_OPS = 16,
    APD_RANDAUGMENT_BINS = 31, /* magnitudes 0 to 30 */
};

/* `ops` <= APD_RANDAUGMENT_MAX_OPS operations, all of one magnitude. spare: as in area_ops.h. On
 * failure (APD_NOMEM) some of them may be done, here and below. */
APD_MUST_USE enum apd_code apd_randaugment(int ops, int magnitude,
                                           const struct apd_draw_place *place,
                                           struct apd_image *image, struct apd_image *spare,
                                           struct apd_err *err);

/* The policy found on ImageNet: two operations at most. */
APD_MUST_USE enum apd_code apd_autoaugment(const struct apd_draw_place *place,
                                           struct apd_image *image, struct apd_image *spare,
                                           struct apd_err *err);

/* Bounds of ColorJitter: factors between max(0, 1 - x) and 1 + x, hue between -x and x with x <=
 * 0.5; 0 leaves that part out. */
struct apd_jitter {
    double brightness, contrast, saturation, hue;
};

/* In place, the parts in a random order. */
void apd_jitter_apply(const struct apd_jitter *jitter, const struct apd_draw_place *place,
                      struct apd_image *image);

#endif
