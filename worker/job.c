#include "worker/job.h"

#include "worker/data/widen.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

enum apd_code apd_job_open_data(struct apd_job *job, struct apd_err *err)
{
    const struct apd_config *config = &job->config;

    APD_TRY(apd_dataset_open(config->data.format, config->data.path, APD_SPLIT_TRAIN, 0,
                             &job->train, err));
    APD_TRY(apd_dataset_open(config->data.format, config->data.path, APD_SPLIT_TEST,
                             job->train->classes, &job->test, err));
    APD_TRY(apd_dataset_widen(&job->train, (int)config->data.channels, err));
    APD_TRY(apd_dataset_widen(&job->test, (int)config->data.channels, err));
    if (job->test->c != job->train->c || job->test->h != job->train->h ||
        job->test->w != job->train->w)
        return apd_fail(err, APD_DATA,
                        "%s: test images of %d x %d x %d, expected those of training, %d x %d x %d",
                        config->data.path, job->test->c, job->test->h, job->test->w, job->train->c,
                        job->train->h, job->train->w);
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
    struct apd_shape image = {job->train->c, job->train->h, job->train->w};

    APD_TRY(apd_arch_build(config->model.arch, (int)config->model.width,
                           config->model.stem == APD_STEM_SMALL, image, (int)job->train->classes,
                           &job->arch, err));
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
