#include "worker/data/augment_image.h"

#include "worker/data/area_ops.h"
#include "worker/data/augment.h"

#include <string.h>

static const struct named_recipe {
    const char *name;
    enum apd_augment_crop crop;
    enum apd_augment_color color;
} named_recipes[] = {
    {"none", APD_CROP_NONE, APD_COLOR_KEPT},
    {"crop_flip", APD_CROP_PADDED, APD_COLOR_KEPT},
    {"rrc_flip", APD_CROP_RESIZED, APD_COLOR_KEPT},
    {"rrc_flip_jitter", APD_CROP_RESIZED, APD_COLOR_JITTER},
    {"randaugment", APD_CROP_RESIZED, APD_COLOR_RANDAUGMENT},
    {"autoaugment", APD_CROP_RESIZED, APD_COLOR_AUTOAUGMENT},
};

enum apd_code apd_augment_recipe_set(struct apd_augment_recipe *recipe, const char *name,
                                     struct apd_err *err)
{
    for (size_t i = 0; i < sizeof named_recipes / sizeof *named_recipes; i++)
        if (strcmp(named_recipes[i].name, name) == 0) {
            recipe->crop = named_recipes[i].crop;
            recipe->color = named_recipes[i].color;
            return APD_OK;
        }
    return apd_fail(err, APD_CONFIG, "no augmentation is called \"%s\"", name);
}

struct apd_box apd_augment_box(const struct apd_augment_recipe *recipe, uint32_t epoch,
                               uint64_t sample, int w, int h)
{
    struct apd_draw_place place = {recipe->seed, epoch, sample};

    if (recipe->crop == APD_CROP_RESIZED)
        return apd_crop_box(&place, w, h);
    return (struct apd_box){.w = w, .h = h};
}

/* Crop out of the padded image and mirror, as one map. */
static enum apd_code crop_flip(const struct apd_augment_recipe *recipe,
                               const struct apd_draw_place *place, struct apd_image *image,
                               struct apd_image *spare, struct apd_err *err)
{
    struct apd_augment_settings settings = {
        .kind = APD_AUGMENT_CROP_FLIP,
        .crop_padding_px = recipe->crop == APD_CROP_PADDED ? recipe->crop_padding_px : 0,
        .seed = place->seed,
    };
    struct apd_augment_choice choice = apd_augment_choose(&settings, place->epoch, place->sample);
    double m[6] = {
        choice.flip ? -1 : 1, 0, choice.dx + (choice.flip ? image->w : 0), 0, 1, choice.dy};

    if (choice.flip == 0 && choice.dx == 0 && choice.dy == 0)
        return APD_OK;
    return apd_op_affine(image, m, spare, err);
}

int apd_augment_is_flip(const struct apd_augment_recipe *recipe, uint32_t epoch, uint64_t sample,
                        int *out_flip)
{
    struct apd_augment_settings settings = {.kind = APD_AUGMENT_CROP_FLIP, .seed = recipe->seed};

    if (recipe->crop == APD_CROP_PADDED || recipe->color != APD_COLOR_KEPT ||
        recipe->erase_probability > 0)
        return 0;
    *out_flip =
        recipe->crop == APD_CROP_RESIZED && apd_augment_choose(&settings, epoch, sample).flip;
    return 1;
}

static enum apd_code change_color(const struct apd_augment_recipe *recipe,
                                  const struct apd_draw_place *place, struct apd_image *image,
                                  struct apd_image *spare, struct apd_err *err)
{
    switch (recipe->color) {
    case APD_COLOR_RANDAUGMENT:
        return apd_randaugment(recipe->randaugment_ops, recipe->randaugment_magnitude, place, image,
                               spare, err);
    case APD_COLOR_AUTOAUGMENT:
        return apd_autoaugment(place, image, spare, err);
    case APD_COLOR_JITTER:
        apd_jitter_apply(&recipe->jitter, place, image);
        break;
    case APD_COLOR_KEPT:
        break;
    }
    return APD_OK;
}

/* Byte i of row y of the box is byte i mod 16 of block NOISE + (y << 16) + i / 16. */
static void fill_noise(const struct apd_draw_place *place, uint32_t y, size_t n, uint8_t *dst)
{
    struct apd_philox v = {{0}};

    for (size_t i = 0; i < n; i++) {
        if (i % 16 == 0)
            v = apd_draw(place, APD_DRAW_NOISE + (y << 16) + (uint32_t)(i / 16));
        dst[i] = (uint8_t)(v.v[i / 4 % 4] >> 8 * (i % 4));
    }
}

static void erase(const struct apd_augment_recipe *recipe, const struct apd_draw_place *place,
                  struct apd_image *image)
{
    struct apd_philox v = apd_draw(place, APD_DRAW_ERASE);
    struct apd_box box = apd_erase_box(place, image->w, image->h);
    size_t c = (size_t)image->c, row = (size_t)image->w * c, n = (size_t)box.w * c;
    uint8_t *dst = image->px + (size_t)box.top * row + (size_t)box.left * c;

    if (apd_uniform(v.v[0]) >= recipe->erase_probability)
        return;
    for (int y = 0; y < box.h; y++, dst += row) {
        if (recipe->erase_noise)
            fill_noise(place, (uint32_t)y, n, dst);
        else
            memset(dst, 0, n);
    }
}

enum apd_code apd_augment_image(const struct apd_augment_recipe *recipe, uint32_t epoch,
                                uint64_t sample, struct apd_image *spare, struct apd_image *image,
                                struct apd_err *err)
{
    struct apd_draw_place place = {recipe->seed, epoch, sample};

    if (recipe->crop != APD_CROP_NONE)
        APD_TRY(crop_flip(recipe, &place, image, spare, err));
    APD_TRY(change_color(recipe, &place, image, spare, err));
    if (recipe->erase_probability > 0)
        erase(recipe, &place, image);
    return APD_OK;
}
