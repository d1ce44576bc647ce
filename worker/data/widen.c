#include "worker/data/widen.h"

#include <stdlib.h>
#include <string.h>

static enum apd_code widen_read(const struct apd_dataset *dataset, uint64_t sample,
                                uint8_t *out_pixels, int32_t *out_label, struct apd_err *err)
{
    size_t plane = (size_t)dataset->h * (size_t)dataset->w;

    APD_TRY(apd_dataset_read(dataset->state, sample, out_pixels, out_label, err));
    for (int c = 1; c < dataset->c; c++)
        memcpy(out_pixels + (size_t)c * plane, out_pixels, plane);
    return APD_OK;
}

static void widen_close(struct apd_dataset *dataset)
{
    struct apd_dataset *inner = dataset->state;

    dataset->shard_samples = NULL; /* the inner one's */
    apd_dataset_close(&inner);
}

static const struct apd_dataset_ops widen_ops = {
    .format = "wide", .read = widen_read, .close = widen_close};

enum apd_code apd_dataset_widen(struct apd_dataset **dataset, int channels, struct apd_err *err)
{
    struct apd_dataset *wide;

    if (channels == 0 || channels == (*dataset)->c)
        return APD_OK;
    if ((*dataset)->c != 1)
        return apd_fail(
            err, APD_CONFIG,
            "data.channels is %d, but the images have %d: only grey ones can be widened", channels,
            (*dataset)->c);
    wide = malloc(sizeof *wide);
    if (wide == NULL)
        return apd_fail(err, APD_NOMEM, "data set of %d channels", channels);
    *wide = **dataset;
    wide->ops = &widen_ops;
    wide->c = channels;
    wide->state = *dataset;
    *dataset = wide;
    return APD_OK;
}
