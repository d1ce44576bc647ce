/* Augmentation of a decoded image: a recipe and a function that follows it. Every choice is a pure
 * function of seed, epoch and sample (docs/data.md, "Augmentation").
 *
 * The caller asks apd_augment_box() for the part of the image that is used, decodes, cuts and
 * resizes it, then calls apd_augment_image(): zero padding and crop, flip, colour, erasing. */
#ifndef APD_WORKER_DATA_AUGMENT_IMAGE_H
#define APD_WORKER_DATA_AUGMENT_IMAGE_H

#include "base/err.h"
#include "worker/data/crop_box.h"
#include "worker/data/image.h"
#include "worker/data/policy.h"

enum apd_augment_crop {
    APD_CROP_NONE,
    APD_CROP_PADDED,  /* crop of the same size out of the padded image, flip */
    APD_CROP_RESIZED, /* RandomResizedCrop, flip */
};

enum apd_augment_color {
    APD_COLOR_KEPT,
    APD_COLOR_JITTER,
    APD_COLOR_RANDAUGMENT,
    APD_COLOR_AUTOAUGMENT,
};

struct apd_augment_recipe {
    uint64_t seed;
    enum apd_augment_crop crop;
    int crop_padding_px; /* >= 0 */
    enum apd_augment_color color;
    struct apd_jitter jitter;
    int randaugment_ops, randaugment_magnitude; /* 0 .. APD_RANDAUGMENT_MAX_OPS, 0 .. 30 */
    double erase_probability;                   /* 0 .. 1 */
    int erase_noise;                            /* fill with random bytes instead of black */
};

/* Sets crop and color by a name: none, crop_flip, rrc_flip, rrc_flip_jitter, randaugment,
 * autoaugment (the last two after rrc_flip's crop). Leaves the rest. APD_CONFIG: no such name. */
APD_MUST_USE enum apd_code apd_augment_recipe_set(struct apd_augment_recipe *recipe,
                                                  const char *name, struct apd_err *err);

/* The part of a w x h image to cut out and resize; all of it unless the crop is APD_CROP_RESIZED.
 */
struct apd_box apd_augment_box(const struct apd_augment_recipe *recipe, uint32_t epoch,
                               uint64_t sample, int w, int h);

/* Whether "everything else" below is at most to mirror the image, which a decoder does on its way;
 * *out_flip: whether it is. */
int apd_augment_is_flip(const struct apd_augment_recipe *recipe, uint32_t epoch, uint64_t sample,
                        int *out_flip);

/* Everything else, on the image in its final size. spare: a second image, one a thread; once both
 * have grown nothing is allocated. Any thread. APD_NOMEM leaves the image in between. */
APD_MUST_USE enum apd_code apd_augment_image(const struct apd_augment_recipe *recipe,
                                             uint32_t epoch, uint64_t sample,
                                             struct apd_image *spare, struct apd_image *image,
                                             struct apd_err *err);

#endif
