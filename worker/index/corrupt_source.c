#include "worker/index/corrupt_source.h"

#include "worker/data/idx.h"
#include "worker/index/open_images.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_BYTES = 255, SIZE_PX = 224 };

/* ---------------------------------------------------------------- class names */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum apd_code check_name(uint32_t label, const char *name, struct apd_err *err)
{
    if (name[0] != '.' && strchr(name, '/') == NULL && strlen(name) <= NAME_MAX_BYTES)
        return APD_OK;
    return apd_fail(
        err, APD_CONFIG,
        "class %u is called \"%.100s\", which can be no folder's name here: expected at "
        "most %d bytes without /, not beginning with a dot",
        label, name, NAME_MAX_BYTES);
}

/* Every class becomes a folder of its own. */
static enum apd_code check_classes(const struct apd_dataset *dataset, struct apd_err *err)
{
    uint32_t classes = dataset->classes;
    char **names = calloc((size_t)classes + 1, sizeof *names);
    enum apd_code rc = APD_OK;

    for (uint32_t c = 0; names != NULL && c < classes; c++) {
        char name[NAME_MAX_BYTES + 2];

        apd_dataset_class(dataset, c, name, sizeof name);
        APD_GO(check_name(c, name, err));
        names[c] = strdup(name);
        if (names[c] == NULL)
            break;
    }
    if (names == NULL || (classes > 0 && names[classes - 1] == NULL)) {
        rc = apd_fail(err, APD_NOMEM, "names of %u classes", classes);
        goto done;
    }
    qsort(names, classes, sizeof *names, by_name);
    for (uint32_t c = 1; c < classes; c++)
        if (strcmp(names[c - 1], names[c]) == 0) {
            rc = apd_fail(err, APD_CONFIG,
                          "two classes are called \"%.100s\": expected a name for each", names[c]);
            goto done;
        }
done:
    for (uint32_t c = 0; names != NULL && c < classes; c++)
        free(names[c]);
    free(names);
    return rc;
}

/* ---------------------------------------------------------------- opening */

static enum apd_code open_idx(const struct apd_corrupt_settings *settings,
                              struct apd_corrupt_source *out, struct apd_err *err)
{
    enum apd_split split = settings->split == APD_CORRUPT_TRAIN ? APD_SPLIT_TRAIN : APD_SPLIT_TEST;

    if (settings->size_px != 0 || settings->resize_px != 0 || settings->channels != 0)
        return apd_fail(err, APD_USAGE,
                        "%s is an IDX data set, whose images are taken as they are: expected no "
                        "--size, --resize or --channels",
                        settings->src);
    (void)snprintf(out->stamp, sizeof out->stamp, "split %s\n",
                   split == APD_SPLIT_TRAIN ? "train" : "test");
    return apd_dataset_open("idx", settings->src, split, 0, &out->dataset, err);
}

static enum apd_code open_files(const struct apd_corrupt_settings *settings,
                                struct apd_corrupt_source *out, struct apd_err *err)
{
    struct apd_reading reading = {.stop = settings->reading->stop};
    struct apd_index_settings index = {.src = settings->src,
                                       .threads = settings->threads,
                                       .reading = &reading,
                                       .say = settings->say,
                                       .context = settings->context};
    int size_px = settings->size_px != 0 ? settings->size_px : SIZE_PX;
    int resize_px = settings->resize_px != 0 ? settings->resize_px : size_px * 256 / 224;
    enum apd_code rc;

    if (settings->split != APD_CORRUPT_SPLIT_UNSAID)
        return apd_fail(err, APD_USAGE,
                        "%s is no IDX data set, and image files are of one split: expected its "
                        "folder or shards as SRC, and no --split",
                        settings->src);
    if (resize_px < size_px)
        return apd_fail(err, APD_USAGE, "--resize=%d: expected at least --size, %d", resize_px,
                        size_px);
    out->view.size_px = size_px;
    out->view.resize_px = resize_px;
    out->view.channels = settings->channels;
    (void)snprintf(out->stamp, sizeof out->stamp, "size %d\nresize %d\nchannels %d\n", size_px,
                   resize_px, settings->channels != 0 ? settings->channels : 3);
    rc = apd_open_images(&index, &out->dataset, err);
    return rc == APD_CONFIG
               ? apd_prefix(err, "%s has no t10k-images-idx3-ubyte[.gz], and as image files",
                            settings->src)
               : rc;
}

enum apd_code apd_corrupt_source_open(const struct apd_corrupt_settings *settings,
                                      struct apd_corrupt_source *out, struct apd_err *err)
{
    *out = (struct apd_corrupt_source){0};
    if (apd_idx_is_there(settings->src))
        APD_TRY(open_idx(settings, out, err));
    else
        APD_TRY(open_files(settings, out, err));
    APD_TRY(check_classes(out->dataset, err));
    return apd_sampler_shape(&out->view, out->dataset, &out->shape, err);
}

/* ---------------------------------------------------------------- reading */

enum apd_code apd_corrupt_source_read(const struct apd_corrupt_source *source,
                                      struct apd_sampler *sampler, uint64_t sample,
                                      struct apd_image *planes, struct apd_image *out,
                                      int32_t *out_label, struct apd_err *err)
{
    int c = source->shape.c, h = source->shape.h, w = source->shape.w;

    APD_TRY(apd_image_reserve(planes, w, h, c, err));
    APD_TRY(apd_image_reserve(out, w, h, c, err));
    APD_TRY(apd_sampler_run(sampler, 0, sample, planes->px, out_label, err));
    apd_image_interleave(planes->px, out);
    return APD_OK;
}

void apd_corrupt_source_fini(struct apd_corrupt_source *source)
{
    apd_dataset_close(&source->dataset);
}
