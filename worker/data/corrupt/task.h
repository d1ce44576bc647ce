/* What one corruption sees, and the corruptions: the table in corrupt.c is made of them. */
#ifndef APD_WORKER_DATA_CORRUPT_TASK_H
#define APD_WORKER_DATA_CORRUPT_TASK_H

#include "base/err.h"
#include "worker/data/corrupt/corrupt.h"
#include "worker/data/corrupt/words.h"

/* Constants are written as table[2][APD_SEVERITIES], ImageNet-C's and CIFAR-10-C's, and read as
 * table[task->small][task->level]. */
struct apd_corrupt_task {
    int level; /* severity - 1 */
    int small;
    struct apd_words words;
    struct apd_image *image;
    struct apd_image *spare_image;
    struct apd_field *x; /* the image / 255, and the result */
    struct apd_field *layer, *other, *spare;
};

typedef enum apd_code apd_corrupt_function(struct apd_corrupt_task *task, struct apd_err *err);

/* noise.c */
apd_corrupt_function apd_corrupt_gaussian_noise, apd_corrupt_shot_noise, apd_corrupt_impulse_noise,
    apd_corrupt_speckle_noise;
/* blur.c */
apd_corrupt_function apd_corrupt_defocus_blur, apd_corrupt_glass_blur, apd_corrupt_motion_blur,
    apd_corrupt_zoom_blur, apd_corrupt_gaussian_blur;
/* weather.c, fog.c, frost.c, spatter.c */
apd_corrupt_function apd_corrupt_snow, apd_corrupt_frost, apd_corrupt_fog, apd_corrupt_brightness,
    apd_corrupt_spatter;
/* digital.c, elastic.c, jpeg.c */
apd_corrupt_function apd_corrupt_contrast, apd_corrupt_elastic_transform, apd_corrupt_pixelate,
    apd_corrupt_jpeg_compression, apd_corrupt_saturate;

#endif
