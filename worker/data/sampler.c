#include "worker/data/sampler.h"

#include <stdlib.h>
#include <string.h>

struct apd_sampler {
    struct apd_sampler_settings settings;
    const struct apd_dataset *dataset; /* not owned */
    struct apd_shape shape;
    struct apd_buffer stored;
};

enum apd_code apd_sampler_shape(const struct apd_sampler_settings *settings,
                                const struct apd_dataset *dataset, struct apd_shape *out,
                                struct apd_err *err)
{
    int channels = settings->channels != 0 ? settings->channels : dataset->c;

    if (channels != dataset->c && dataset->c != 1)
        return apd_fail(
            err, APD_CONFIG,
            "data.channels is %d, but the images have %d: only grey ones can be widened", channels,
            dataset->c);
    *out = (struct apd_shape){channels, dataset->h, dataset->w};
    return APD_OK;
}

enum apd_code apd_sampler_create(const struct apd_sampler_settings *settings,
                                 const struct apd_dataset *dataset, struct apd_sampler **out,
                                 struct apd_err *err)
{
    struct apd_sampler *sampler;
    struct apd_shape shape;

    APD_TRY(apd_sampler_shape(settings, dataset, &shape, err));
    sampler = calloc(1, sizeof *sampler);
    if (sampler == NULL)
        return apd_fail(err, APD_NOMEM, "sampler");
    sampler->settings = *settings;
    sampler->dataset = dataset;
    sampler->shape = shape;
    *out = sampler;
    return APD_OK;
}

void apd_sampler_destroy(struct apd_sampler **sampler)
{
    if (*sampler == NULL)
        return;
    free((*sampler)->stored.bytes);
    free(*sampler);
    *sampler = NULL;
}

enum apd_code apd_sampler_run(struct apd_sampler *sampler, uint32_t epoch, uint64_t sample,
                              uint8_t *out_pixels, int32_t *out_label, struct apd_err *err)
{
    const struct apd_dataset *dataset = sampler->dataset;
    size_t plane = (size_t)dataset->h * (size_t)dataset->w;
    struct apd_stored stored = {0};

    APD_TRY(apd_dataset_fetch(dataset, sample, &sampler->stored, &stored, err));
    *out_label = stored.label;
    apd_augment_apply(apd_augment_choose(&sampler->settings.augment, epoch, sample), dataset->c,
                      dataset->h, dataset->w, stored.bytes, out_pixels);
    for (int c = dataset->c; c < sampler->shape.c; c++)
        memcpy(out_pixels + (size_t)c * plane, out_pixels, plane);
    return APD_OK;
}
