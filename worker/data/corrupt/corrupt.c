#include "worker/data/corrupt/corrupt.h"

#include "worker/data/corrupt/task.h"

#include <assert.h>

const struct apd_corruption apd_corruptions[APD_CORRUPTIONS] = {
    {"gaussian_noise", "noise", apd_corrupt_gaussian_noise, 0},
    {"shot_noise", "noise", apd_corrupt_shot_noise, 0},
    {"impulse_noise", "noise", apd_corrupt_impulse_noise, 0},
    {"defocus_blur", "blur", apd_corrupt_defocus_blur, 0},
    {"glass_blur", "blur", apd_corrupt_glass_blur, 0},
    {"motion_blur", "blur", apd_corrupt_motion_blur, 0},
    {"zoom_blur", "blur", apd_corrupt_zoom_blur, 0},
    {"snow", "weather", apd_corrupt_snow, 0},
    {"frost", "weather", apd_corrupt_frost, 0},
    {"fog", "weather", apd_corrupt_fog, 0},
    {"brightness", "weather", apd_corrupt_brightness, 0},
    {"contrast", "digital", apd_corrupt_contrast, 0},
    {"elastic_transform", "digital", apd_corrupt_elastic_transform, 0},
    {"pixelate", "digital", apd_corrupt_pixelate, 1},
    {"jpeg_compression", "digital", apd_corrupt_jpeg_compression, 1},
    {"speckle_noise", "noise", apd_corrupt_speckle_noise, 0},
    {"gaussian_blur", "blur", apd_corrupt_gaussian_blur, 0},
    {"spatter", "weather", apd_corrupt_spatter, 0},
    {"saturate", "digital", apd_corrupt_saturate, 0},
};

void apd_corrupt_scratch_fini(struct apd_corrupt_scratch *scratch)
{
    apd_field_fini(&scratch->x);
    apd_field_fini(&scratch->layer);
    apd_field_fini(&scratch->other);
    apd_field_fini(&scratch->spare);
    apd_image_fini(&scratch->image);
}

enum apd_code apd_corrupt(int corruption, int severity, uint64_t seed, uint64_t sample,
                          struct apd_corrupt_scratch *scratch, struct apd_image *image,
                          struct apd_err *err)
{
    const struct apd_corruption *entry = &apd_corruptions[corruption];
    struct apd_corrupt_task task = {
        .level = severity - 1,
        .small = image->w <= APD_CORRUPTION_SMALL_PX && image->h <= APD_CORRUPTION_SMALL_PX,
        .words = {.seed = seed, .sample = sample, .epoch = (uint32_t)(corruption * 8 + severity)},
        .image = image,
        .spare_image = &scratch->image,
        .x = &scratch->x,
        .layer = &scratch->layer,
        .other = &scratch->other,
        .spare = &scratch->spare};

    assert(corruption >= 0 && corruption < APD_CORRUPTIONS);
    assert(severity >= 1 && severity <= APD_SEVERITIES);
    if (entry->of_bytes)
        return entry->apply(&task, err);
    APD_TRY(apd_field_load(image, task.x, err));
    APD_TRY(entry->apply(&task, err));
    apd_field_store(task.x, image);
    return APD_OK;
}
