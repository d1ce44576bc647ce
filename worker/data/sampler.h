/* The way of one sample from the data set into a batch: fetch what is stored, decode it, augment it
 * or, for evaluation, cut it to size. A pure function of settings, epoch and sample. One sampler
 * serves one thread: it owns the buffers that the way needs. */
#ifndef APD_WORKER_DATA_SAMPLER_H
#define APD_WORKER_DATA_SAMPLER_H

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/data/augment_image.h"
#include "worker/data/dataset.h"

#include <stdint.h>

struct apd_sampler_settings {
    int train; /* augment; otherwise the evaluation's middle crop */
    struct apd_augment_recipe recipe;
    int channels; /* 0: as stored, 3 for image files; grey images become that many equal ones */
    /* Of image files: */
    int size_px;     /* side of the square that comes out */
    int resize_px;   /* evaluation: shorter side before the crop, >= size_px */
    uint64_t max_px; /* larger images are bad samples */
};

struct apd_sampler;

/* Shape of the images that come out. APD_CONFIG if the settings do not fit the data set. */
APD_MUST_USE enum apd_code apd_sampler_shape(const struct apd_sampler_settings *settings,
                                             const struct apd_dataset *dataset,
                                             struct apd_shape *out, struct apd_err *err);

/* dataset must outlive the sampler; settings are copied. */
APD_MUST_USE enum apd_code apd_sampler_create(const struct apd_sampler_settings *settings,
                                              const struct apd_dataset *dataset,
                                              struct apd_sampler **out, struct apd_err *err);
void apd_sampler_destroy(struct apd_sampler **sampler);

/* out_pixels: [c][h][w] of the shape above. APD_DATA: this sample cannot be used, the message names
 * file and reason. */
APD_MUST_USE enum apd_code apd_sampler_run(struct apd_sampler *sampler, uint32_t epoch,
                                           uint64_t sample, uint8_t *out_pixels, int32_t *out_label,
                                           struct apd_err *err);

#endif
