#include "worker/job.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

void apd_job_sampler(const struct apd_job *job, enum apd_split split,
                     struct apd_sampler_settings *out)
{
    const struct apd_config *config = &job->config;

    *out = (struct apd_sampler_settings){
        .augment = {.kind = split == APD_SPLIT_TRAIN ? (enum apd_augment)config->augment
                                                     : APD_AUGMENT_NONE,
                    .crop_padding_px = (int)config->data.crop_padding_px,
                    .seed = (uint64_t)config->seed},
        .channels = (int)config->data.channels};
}

static enum apd_code image_shape(const struct apd_job *job, enum apd_split split,
                                 struct apd_shape *out, struct apd_err *err)
{
    struct apd_sampler_settings settings;

    apd_job_sampler(job, split, &settings);
    return apd_sampler_shape(&settings, split == APD_SPLIT_TRAIN ? job->train : job->test, out,
                             err);
}

enum apd_code apd_job_open_data(struct apd_job *job, struct apd_err *err)
{
    const struct apd_config *config = &job->config;
    struct apd_shape test;

    APD_TRY(apd_dataset_open(config->data.format, config->data.path, APD_SPLIT_TRAIN, 0,
                             &job->train, err));
    APD_TRY(apd_dataset_open(config->data.format, config->data.path, APD_SPLIT_TEST,
                             job->train->classes, &job->test, err));
    APD_TRY(image_shape(job, APD_SPLIT_TRAIN, &job->image, err));
    APD_TRY(image_shape(job, APD_SPLIT_TEST, &test, err));
    if (test.c != job->image.c || test.h != job->image.h || test.w != job->image.w)
        return apd_fail(err, APD_DATA,
                        "%s: test images of %d x %d x %d, expected those of training, %d x %d x %d",
                        config->data.path, test.c, test.h, test.w, job->image.c, job->image.h,
                        job->image.w);
    return APD_OK;
}

/* Cores this process may use, shared by the workers of the host. */
static int default_threads(int workers_on_host)
{
    cpu_set_t set;
    int cores = 1;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        cores = CPU_COUNT(&set);
    return cores > workers_on_host ? cores / workers_on_host : 1;
}

static enum apd_code make_backend(struct apd_job *job, struct apd_err *err)
{
    const struct apd_config *config = &job->config;
    struct apd_cpu_options options = {.isa = config->cpu.isa, .conv_algo = config->cpu.conv_algo};

    if (strcmp(config->device, "ref") == 0) {
        APD_TRY(apd_backend_ref(&job->be, err));
        (void)snprintf(job->backend_text, sizeof job->backend_text, "ref, 1 thread");
        return APD_OK;
    }
    options.threads =
        config->cpu.threads > 0 ? (int)config->cpu.threads : default_threads(job->workers_on_host);
    APD_TRY(apd_backend_cpu(&options, &job->be, err));
    (void)snprintf(job->backend_text, sizeof job->backend_text, "%s %s, %d thread%s", job->be->name,
                   job->be->layout, options.threads, options.threads == 1 ? "" : "s");
    return APD_OK;
}

enum apd_code apd_job_make_network(struct apd_job *job, struct apd_err *err)
{
    const struct apd_config *config = &job->config;

    APD_TRY(apd_arch_build(config->model.arch, (int)config->model.width,
                           config->model.stem == APD_STEM_SMALL, job->image,
                           (int)job->train->classes, &job->arch, err));
    APD_TRY(make_backend(job, err));
    return apd_params_create(job->be, &job->arch, config->train.mode != APD_MODE_VANILLA,
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
    apd_dataset_close(&job->train);
    apd_dataset_close(&job->test);
}
