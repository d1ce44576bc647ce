/* The table of formats. */
#include "worker/data/dataset.h"

#include "worker/data/idx.h"
#include "worker/data/images.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct apd_dataset_ops *const formats[] = {&apd_idx_ops, &apd_images_ops};

static const struct apd_dataset_ops *format_named(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i]->format, name) == 0)
            return formats[i];
    return NULL;
}

enum apd_code apd_dataset_open(const char *format, const char *path, enum apd_split split,
                               uint32_t classes, struct apd_dataset **out, struct apd_err *err)
{
    const struct apd_dataset_ops *ops = format_named(format);
    struct apd_dataset *dataset;

    if (ops == NULL)
        return apd_fail(err, APD_CONFIG, "data.format is %s, expected idx or images", format);
    dataset = calloc(1, sizeof *dataset);
    if (dataset == NULL)
        return apd_fail(err, APD_NOMEM, "data set %s", path);
    dataset->ops = ops;
    if (ops->open(dataset, path, split, classes, err) != APD_OK) {
        apd_dataset_close(&dataset);
        return err->code;
    }
    *out = dataset;
    return APD_OK;
}

enum apd_code apd_dataset_fetch(const struct apd_dataset *dataset, uint64_t sample,
                                struct apd_buffer *buffer, struct apd_stored *out,
                                struct apd_err *err)
{
    if (sample >= dataset->samples)
        return apd_fail(err, APD_BUG, "sample %" PRIu64 " asked for, expected below %" PRIu64,
                        sample, dataset->samples);
    return dataset->ops->fetch(dataset, sample, buffer, out, err);
}

void apd_dataset_class(const struct apd_dataset *dataset, uint32_t label, char *out, size_t size)
{
    const char *name =
        dataset->ops->class_name != NULL ? dataset->ops->class_name(dataset, label) : NULL;

    if (name != NULL)
        (void)snprintf(out, size, "%s", name);
    else
        (void)snprintf(out, size, "%u", label);
}

void apd_dataset_sample(const struct apd_dataset *dataset, uint64_t sample, char *out, size_t size)
{
    if (dataset->ops->sample_name != NULL)
        dataset->ops->sample_name(dataset, sample, out, size);
    else
        (void)snprintf(out, size, "%" PRIu64, sample);
}

void apd_dataset_close(struct apd_dataset **dataset)
{
    if (*dataset == NULL)
        return;
    (*dataset)->ops->close(*dataset);
    free((*dataset)->shard_samples);
    free(*dataset);
    *dataset = NULL;
}
