/* advprop data cat --config: one sample as the loader hands it to a step, or as it is evaluated. */
#include "worker/tool.h"

#include "worker/data/image.h"
#include "worker/data/png_write.h"
#include "worker/show.h"

#include <inttypes.h>
#include <stdio.h>

static enum apd_code check(const struct apd_dataset *dataset, const struct apd_shape *shape,
                           uint64_t sample, struct apd_err *err)
{
    if (sample >= dataset->samples)
        return apd_fail(err, APD_USAGE, "sample %" PRIu64 ": expected a number below %" PRIu64,
                        sample, dataset->samples);
    if (shape->c != 1 && shape->c != 3)
        return apd_fail(err, APD_CONFIG,
                        "PNG has 1 or 3 channels, data.channels is %d: say data.channels=1, all "
                        "channels are equal",
                        shape->c);
    return APD_OK;
}

static void print_facts(const struct apd_dataset *dataset, const struct apd_view_options *options,
                        const struct apd_shape *shape, int32_t label)
{
    char name[4096];

    apd_dataset_class(dataset, (uint32_t)label, name, sizeof name);
    fprintf(stderr, "sample  %" PRIu64 "\nlabel   %" PRId32 " (", options->sample, label);
    apd_show_text(name, 0, stderr);
    apd_dataset_sample(dataset, options->sample, name, sizeof name);
    fputs(")\nfile    ", stderr);
    apd_show_text(name, 0, stderr);
    if (options->test)
        fputs("\nview    as evaluated", stderr);
    else
        fprintf(stderr, "\nview    as trained on in epoch %" PRIu32, options->epoch);
    fprintf(stderr, ", %d x %d pixels, %d channel%s\n", shape->w, shape->h, shape->c,
            shape->c == 1 ? "" : "s");
}

enum apd_code apd_tool_data_view(struct apd_job *job, const struct apd_view_options *options,
                                 struct apd_err *err)
{
    enum apd_split split = options->test ? APD_SPLIT_TEST : APD_SPLIT_TRAIN;
    struct apd_image planes = {0}, image = {0};
    struct apd_sampler_settings settings;
    struct apd_sampler *sampler = NULL;
    struct apd_sample_bytes png = {0};
    const struct apd_dataset *dataset;
    struct apd_shape shape;
    enum apd_code rc;
    int32_t label;

    APD_GO(apd_job_open_data(job, err));
    dataset = options->test ? job->test : job->train;
    shape = job->image;
    APD_GO(check(dataset, &shape, options->sample, err));
    apd_job_sampler(job, split, &settings);
    APD_GO(apd_sampler_create(&settings, dataset, &sampler, err));
    APD_GO(apd_image_reserve(&planes, shape.w, shape.h, shape.c, err));
    APD_GO(apd_image_reserve(&image, shape.w, shape.h, shape.c, err));
    APD_GO(apd_sampler_run(sampler, options->epoch, options->sample, planes.px, &label, err));
    apd_image_interleave(planes.px, &image);
    APD_GO(apd_png_write(image.px, shape.w, shape.h, shape.c, APD_PNG_SMALL, &png, err));
    APD_GO(apd_show_bytes(options->out, png.data, png.size, err));
    print_facts(dataset, options, &shape, label);
done:
    apd_sampler_destroy(&sampler);
    apd_image_fini(&planes);
    apd_image_fini(&image);
    apd_sample_bytes_fini(&png);
    return rc;
}
