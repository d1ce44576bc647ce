#include "worker/job.h"

#include "worker/device.h"
#include "worker/index/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void apd_job_sampler(const struct apd_job *job, enum apd_split split,
                     struct apd_sampler_settings *out)
{
    const struct apd_config *config = &job->config;
    int size_px = (int)config->data.size_px, resize_px = (int)config->data.resize_px;
    struct apd_err known; /* the option table has the names */

    *out = (struct apd_sampler_settings){
        .train = split == APD_SPLIT_TRAIN,
        .recipe = {.seed = (uint64_t)config->seed,
                   .crop_padding_px = (int)config->data.crop_padding_px,
                   .jitter = {config->jitter.brightness, config->jitter.contrast,
                              config->jitter.saturation, config->jitter.hue},
                   .randaugment_ops = (int)config->randaugment.ops,
                   .randaugment_magnitude = (int)config->randaugment.magnitude,
                   .erase_probability = config->erase.probability,
                   .erase_noise = (int)config->erase.noise},
        .channels = (int)config->data.channels,
        .size_px = size_px,
        .resize_px = resize_px > 0 ? resize_px : size_px * 256 / 224,
        .max_px = (uint64_t)config->data.max_px};
    (void)!apd_augment_recipe_set(&out->recipe, config->augment, &known);
}

static enum apd_code image_shape(const struct apd_job *job, enum apd_split split,
                                 struct apd_shape *out, struct apd_err *err)
{
    struct apd_sampler_settings settings;

    apd_job_sampler(job, split, &settings);
    return apd_sampler_shape(&settings, split == APD_SPLIT_TRAIN ? job->train : job->test, out,
                             err);
}

/* Where a split of image files is: as it is said, or by the folders' usual names. */
static enum apd_code images_source(const struct apd_config *config, enum apd_split split,
                                   char out[2 * APD_TEXT], struct apd_err *err)
{
    const char *root = config->data.path;
    const char *said = split == APD_SPLIT_TRAIN ? config->data.train : config->data.test;

    if (said[0] == '/')
        (void)snprintf(out, 2 * APD_TEXT, "%s", said);
    else if (said[0] != '\0')
        (void)snprintf(out, 2 * APD_TEXT, "%s/%s", root, said);
    else
        (void)snprintf(out, 2 * APD_TEXT, "%s/%s", root,
                       split == APD_SPLIT_TRAIN ? "train" : "val");
    if (said[0] == '\0' && split == APD_SPLIT_TEST && access(out, F_OK) != 0)
        (void)snprintf(out, 2 * APD_TEXT, "%s/test", root);
    if (said[0] == '\0' && access(out, F_OK) != 0)
        return apd_fail(err, APD_CONFIG,
                        "%s: no folder %s in it; name the data with data.train and data.test", root,
                        split == APD_SPLIT_TRAIN ? "train" : "val and no test");
    return APD_OK;
}

static enum apd_code open_split(struct apd_job *job, enum apd_split split, uint32_t classes,
                                struct apd_dataset **out, struct apd_err *err)
{
    const struct apd_config *config = &job->config;
    char source[2 * APD_TEXT], *index = NULL;
    enum apd_code rc;

    if (strcmp(config->data.format, "images") != 0) {
        rc = apd_dataset_open(config->data.format, config->data.path, split, classes, out, err);
        return rc == APD_CONFIG ? apd_prefix(err, "data.path") : rc;
    }
    APD_TRY(images_source(config, split, source, err));
    APD_TRY(apd_source_find_index(source, &index, err));
    rc = apd_dataset_open("images", index, split, classes, out, err);
    free(index);
    return rc;
}

enum apd_code apd_job_open_data(struct apd_job *job, struct apd_err *err)
{
    const struct apd_config *config = &job->config;
    struct apd_shape test;

    APD_TRY(open_split(job, APD_SPLIT_TRAIN, 0, &job->train, err));
    APD_TRY(open_split(job, APD_SPLIT_TEST, job->train->classes, &job->test, err));
    APD_TRY(image_shape(job, APD_SPLIT_TRAIN, &job->image, err));
    APD_TRY(image_shape(job, APD_SPLIT_TEST, &test, err));
    if (test.c != job->image.c || test.h != job->image.h || test.w != job->image.w)
        return apd_fail(err, APD_DATA,
                        "%s: test images of %d x %d x %d, expected those of training, %d x %d x %d",
                        config->data.path, test.c, test.h, test.w, job->image.c, job->image.h,
                        job->image.w);
    return APD_OK;
}

enum apd_code apd_job_open_device(struct apd_job *job, struct apd_err *err)
{
    const struct apd_config *config = &job->config;
    const struct apd_device_place place = {job->local_rank, job->workers_on_host, job->run_dir};

    APD_TRY(apd_arch_build(config->model.arch, (int)config->model.width,
                           config->model.stem == APD_STEM_SMALL, job->image,
                           (int)job->train->classes, &job->arch, err));
    return apd_device_open(config, &place, &job->be, job->backend_text, err);
}

enum apd_code apd_job_make_params(struct apd_job *job, struct apd_err *err)
{
    return apd_params_create(job->be, &job->arch, job->config.train.mode != APD_MODE_VANILLA,
                             &job->params, err);
}

void apd_job_plan_desc(const struct apd_job *job, struct apd_plan_desc *out)
{
    memset(out, 0, sizeof *out);
    out->samples = job->train->samples;
    out->shards = job->train->shards;
    out->shard_samples = job->train->shard_samples;
    out->lanes = (uint32_t)job->config.train.lanes;
    out->lane_batch = (uint32_t)(job->config.train.batch / job->config.train.lanes);
    out->window = (uint32_t)job->config.data.window;
    out->seed = (uint64_t)job->config.seed;
    out->shuffle = (int)job->config.data.shuffle;
    memcpy(out->data_digest, job->train->digest, sizeof out->data_digest);
}

void apd_job_fini(struct apd_job *job)
{
    apd_params_destroy(&job->params);
    if (job->be != NULL)
        job->be->ops->destroy(job->be);
    job->be = NULL;
    if (job->device_comm != NULL && job->device_comm != job->comm)
        job->device_comm->ops->destroy(job->device_comm);
    job->device_comm = NULL;
    apd_dataset_close(&job->train);
    apd_dataset_close(&job->test);
}
