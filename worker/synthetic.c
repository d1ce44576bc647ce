#include "worker/synthetic.h"

#include "base/rng.h"
#include "proto/config.h"
#include "worker/device.h"
#include "worker/step.h"

#include <math.h>
#include <stdlib.h>

struct apd_synthetic {
    struct apd_config config;
    struct apd_backend *be;
    char device[128];
    struct apd_comm *host_comm, *comm;
    struct apd_arch arch;
    struct apd_params *params;
    struct apd_loss_scale scale;
    struct apd_step *step;
    uint64_t number; /* of the next step */
    uint8_t *pixels;
    int32_t *labels;
    uint64_t *sample;
    uint32_t *epoch;
    struct apd_step_data data;
};

static enum apd_code make_images(struct apd_synthetic *s, struct apd_shape image, int classes,
                                 struct apd_err *err)
{
    size_t rows = (size_t)s->config.train.batch;
    size_t pixels = (size_t)image.c * (size_t)image.h * (size_t)image.w;

    s->pixels = malloc(rows * pixels);
    s->labels = malloc(rows * sizeof *s->labels);
    s->sample = malloc(rows * sizeof *s->sample);
    s->epoch = calloc(rows, sizeof *s->epoch);
    if (s->pixels == NULL || s->labels == NULL || s->sample == NULL || s->epoch == NULL)
        return apd_fail(err, APD_NOMEM, "%zu synthetic images", rows);
    for (size_t r = 0; r < rows; r++) {
        s->sample[r] = r;
        s->labels[r] = (int32_t)(apd_mix64(r + 1) % (uint64_t)classes);
    }
    for (size_t p = 0; p < rows * pixels; p++)
        s->pixels[p] = (uint8_t)(apd_mix64(p + 77) >> 20);
    s->data = (struct apd_step_data){.lane_count = 1,
                                     .lane_batch = (uint32_t)rows,
                                     .pixels = s->pixels,
                                     .labels = s->labels,
                                     .sample = s->sample,
                                     .epoch = s->epoch};
    return APD_OK;
}

static enum apd_code make_network(struct apd_synthetic *s, struct apd_shape image, int classes,
                                  const char *run_dir, struct apd_err *err)
{
    const struct apd_config *config = &s->config;
    const struct apd_device_place place = {.workers_on_host = 1, .run_dir = run_dir};

    APD_TRY(apd_arch_build(config->model.arch, (int)config->model.width,
                           config->model.stem == APD_STEM_SMALL, image, classes, &s->arch, err));
    APD_TRY(apd_device_open(config, &place, &s->be, s->device, err));
    APD_TRY(apd_params_create(s->be, &s->arch, config->train.mode != APD_MODE_VANILLA, &s->params,
                              err));
    return apd_params_init(s->params, (uint64_t)config->seed, (int)config->model.zero_init, err);
}

static enum apd_code make_step(struct apd_synthetic *s, struct apd_err *err)
{
    struct apd_step_setup setup = {.config = &s->config,
                                   .params = s->params,
                                   .lanes = 1,
                                   .lane_count = 1,
                                   .samples = (uint64_t)s->config.train.batch};

    APD_TRY(apd_comm_self(&s->host_comm, err));
    APD_TRY(apd_device_comm(&s->config, s->be, s->host_comm, &s->comm, err));
    if (apd_device_scales_loss(&s->config, s->be))
        s->scale.factor = (uint64_t)exp2(floor(log2(s->config.cuda.loss_scale)));
    setup.loss_scale = &s->scale;
    setup.comm = s->comm;
    setup.host_comm = s->host_comm;
    return apd_step_create(&setup, &s->step, err);
}

enum apd_code apd_synthetic_create(const char *const *overrides, size_t count,
                                   struct apd_shape image, int classes, const char *run_dir,
                                   struct apd_synthetic **out, struct apd_err *err)
{
    struct apd_synthetic *s = calloc(1, sizeof *s);
    enum apd_code rc;

    if (s == NULL)
        return apd_fail(err, APD_NOMEM, "synthetic training");
    APD_GO(apd_config_load(NULL, overrides, count, &s->config, err));
    s->config.train.lanes = 1;
    APD_GO(make_images(s, image, classes, err));
    APD_GO(make_network(s, image, classes, run_dir, err));
    APD_GO(make_step(s, err));
    *out = s;
    s = NULL;
done:
    apd_synthetic_destroy(&s);
    return rc;
}

void apd_synthetic_destroy(struct apd_synthetic **synthetic)
{
    struct apd_synthetic *s = *synthetic;

    if (s == NULL)
        return;
    apd_step_destroy(&s->step);
    apd_params_destroy(&s->params);
    if (s->be != NULL)
        s->be->ops->destroy(s->be);
    if (s->comm != NULL && s->comm != s->host_comm)
        s->comm->ops->destroy(s->comm);
    if (s->host_comm != NULL)
        s->host_comm->ops->destroy(s->host_comm);
    free(s->pixels);
    free(s->labels);
    free(s->sample);
    free(s->epoch);
    free(s);
    *synthetic = NULL;
}

enum apd_code apd_synthetic_step(struct apd_synthetic *s, double lr, double *out_loss,
                                 struct apd_err *err)
{
    struct apd_step_result result = {0};

    APD_TRY(apd_step_run(s->step, s->number++, &s->data, NULL, lr, 0, &result, err));
    *out_loss = 0;
    for (int b = 0; b < APD_BRANCHES; b++)
        if (result.loss[b].images > 0)
            *out_loss += result.loss[b].ce_sum / (double)result.loss[b].images;
    return APD_OK;
}

enum apd_code apd_synthetic_settle(struct apd_synthetic *s, struct apd_err *err)
{
    return apd_device_settled(s->be, err);
}

const char *apd_synthetic_device(const struct apd_synthetic *s)
{
    return s->device;
}

long apd_synthetic_images(const struct apd_synthetic *s)
{
    return (long)s->config.train.batch;
}
