#include "worker/data/sampler.h"

#include "worker/data/augment.h"
#include "worker/data/decode.h"

#include <stdlib.h>
#include <string.h>

struct apd_sampler {
    struct apd_sampler_settings settings;
    const struct apd_dataset *dataset; /* not owned */
    struct apd_shape shape;
    struct apd_buffer stored;
    /* Of image files: */
    struct apd_decoder *decoder;
    struct apd_image image, spare;
};

static enum apd_code encoded_shape(const struct apd_sampler_settings *settings,
                                   struct apd_shape *out, struct apd_err *err)
{
    int channels = settings->channels != 0 ? settings->channels : 3;

    if (channels != 1 && channels != 3)
        return apd_fail(err, APD_CONFIG,
                        "data.channels is %d: image files give 3 (colour) or 1 (grey)", channels);
    *out = (struct apd_shape){channels, settings->size_px, settings->size_px};
    return APD_OK;
}

enum apd_code apd_sampler_shape(const struct apd_sampler_settings *settings,
                                const struct apd_dataset *dataset, struct apd_shape *out,
                                struct apd_err *err)
{
    int channels = settings->channels != 0 ? settings->channels : dataset->c;

    if (dataset->encoded)
        return encoded_shape(settings, out, err);
    if (channels != dataset->c && dataset->c != 1)
        return apd_fail(
            err, APD_CONFIG,
            "data.channels is %d, but the images have %d: only grey ones can be widened", channels,
            dataset->c);
    if (settings->train &&
        (settings->recipe.crop == APD_CROP_RESIZED || settings->recipe.color != APD_COLOR_KEPT ||
         settings->recipe.erase_probability > 0))
        return apd_fail(err, APD_CONFIG,
                        "this data set has images of one size, for which augment is none or "
                        "crop_flip, without erasing; the others are for image files");
    *out = (struct apd_shape){channels, dataset->h, dataset->w};
    return APD_OK;
}

enum apd_code apd_sampler_create(const struct apd_sampler_settings *settings,
                                 const struct apd_dataset *dataset, struct apd_sampler **out,
                                 struct apd_err *err)
{
    struct apd_sampler *sampler;
    struct apd_shape shape;
    enum apd_code rc = APD_OK;

    APD_TRY(apd_sampler_shape(settings, dataset, &shape, err));
    sampler = calloc(1, sizeof *sampler);
    if (sampler == NULL)
        return apd_fail(err, APD_NOMEM, "sampler");
    sampler->settings = *settings;
    sampler->dataset = dataset;
    sampler->shape = shape;
    if (dataset->encoded)
        APD_GO(apd_decoder_create(settings->max_px, &sampler->decoder, err));
    *out = sampler;
    sampler = NULL;
done:
    apd_sampler_destroy(&sampler);
    return rc;
}

void apd_sampler_destroy(struct apd_sampler **sampler)
{
    if (*sampler == NULL)
        return;
    apd_decoder_destroy(&(*sampler)->decoder);
    apd_image_fini(&(*sampler)->image);
    apd_image_fini(&(*sampler)->spare);
    free((*sampler)->stored.bytes);
    free(*sampler);
    *sampler = NULL;
}

/* ---------------------------------------------------------------- images of one size */

static void take_raw(const struct apd_sampler *sampler, uint32_t epoch, uint64_t sample,
                     const uint8_t *bytes, uint8_t *out)
{
    const struct apd_dataset *dataset = sampler->dataset;
    const struct apd_augment_recipe *recipe = &sampler->settings.recipe;
    int crops = sampler->settings.train && recipe->crop == APD_CROP_PADDED;
    struct apd_augment_settings augment = {.kind = crops ? APD_AUGMENT_CROP_FLIP : APD_AUGMENT_NONE,
                                           .crop_padding_px = recipe->crop_padding_px,
                                           .seed = recipe->seed};
    size_t plane = (size_t)dataset->h * (size_t)dataset->w;

    apd_augment_apply(apd_augment_choose(&augment, epoch, sample), dataset->c, dataset->h,
                      dataset->w, bytes, out);
    for (int c = dataset->c; c < sampler->shape.c; c++)
        memcpy(out + (size_t)c * plane, out, plane);
}

/* ---------------------------------------------------------------- image files */

/* Which part of the file's image is decoded, and to which size. */
static struct apd_view view_of(const struct apd_sampler *sampler, uint32_t epoch, uint64_t sample,
                               int w, int h)
{
    const struct apd_sampler_settings *settings = &sampler->settings;
    struct apd_box box;

    if (!settings->train)
        return apd_view_centre(w, h, settings->resize_px, settings->size_px);
    box = apd_augment_box(&settings->recipe, epoch, sample, w, h);
    return (struct apd_view){
        .box = {box.left, box.top, box.w, box.h}, .w = settings->size_px, .h = settings->size_px};
}

/* Rows of RGB pixels to planes; one plane: luma as Pillow's convert("L") has it. */
static void to_planes(const struct apd_image *image, int channels, uint8_t *out)
{
    size_t pixels = (size_t)image->w * (size_t)image->h;
    const uint8_t *px = image->px;

    for (size_t i = 0; i < pixels; i++, px += 3) {
        if (channels == 1) {
            out[i] = (uint8_t)((px[0] * 19595u + px[1] * 38470u + px[2] * 7471u + 0x8000u) >> 16);
            continue;
        }
        out[i] = px[0];
        out[i + pixels] = px[1];
        out[i + 2 * pixels] = px[2];
    }
}

static enum apd_code take_file(struct apd_sampler *sampler, uint32_t epoch, uint64_t sample,
                               const struct apd_stored *stored, uint8_t *out, struct apd_err *err)
{
    struct apd_image_info info;
    struct apd_view view;

    APD_TRY(apd_image_probe(stored->bytes, stored->size, &info, err));
    view = view_of(sampler, epoch, sample, info.w, info.h);
    if (sampler->settings.train && sampler->shape.c == 3 &&
        apd_augment_is_flip(&sampler->settings.recipe, epoch, sample, &view.flip))
        return apd_decode_planar(sampler->decoder, stored->bytes, stored->size, &view, out, err);
    APD_TRY(apd_decode(sampler->decoder, stored->bytes, stored->size, &view, &sampler->image, err));
    if (sampler->settings.train)
        APD_TRY(apd_augment_image(&sampler->settings.recipe, epoch, sample, &sampler->spare,
                                  &sampler->image, err));
    to_planes(&sampler->image, sampler->shape.c, out);
    return APD_OK;
}

enum apd_code apd_sampler_run(struct apd_sampler *sampler, uint32_t epoch, uint64_t sample,
                              uint8_t *out_pixels, int32_t *out_label, struct apd_err *err)
{
    struct apd_stored stored = {0};

    APD_TRY(apd_dataset_fetch(sampler->dataset, sample, &sampler->stored, &stored, err));
    *out_label = stored.label;
    if (!sampler->dataset->encoded) {
        take_raw(sampler, epoch, sample, stored.bytes, out_pixels);
        return APD_OK;
    }
    if (take_file(sampler, epoch, sample, &stored, out_pixels, err) != APD_OK)
        return apd_prefix(err, "%s", stored.name);
    return APD_OK;
}
