#include "tests/support/stepper.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CLASSES = 5 };

const struct stepper_shape stepper_tiny = {"resnet18", 2, 1, 8, 2, 4, 3};

struct apd_backend *stepper_ref64(void)
{
    struct apd_backend *be = NULL;
    struct apd_err err = {0};

    assert_int_equal(apd_backend_ref64(&be, &err), APD_OK);
    return be;
}

struct apd_backend *stepper_ref(void)
{
    struct apd_backend *be = NULL;
    struct apd_err err = {0};

    assert_int_equal(apd_backend_ref(&be, &err), APD_OK);
    return be;
}

struct apd_backend *stepper_cpu(int threads)
{
    struct apd_cpu_options options = {threads, "auto", "direct"};
    struct apd_backend *be = NULL;
    struct apd_err err = {0};

    assert_int_equal(apd_backend_cpu(&options, &be, &err), APD_OK);
    return be;
}

void stepper_config(struct apd_config *config, const struct stepper_shape *shape)
{
    struct apd_err err = {0};

    assert_int_equal(apd_config_load(NULL, NULL, 0, config, &err), APD_OK);
    config->train.mode = shape->aux > 0 ? APD_MODE_FAST_ADVPROP : APD_MODE_VANILLA;
    config->train.lanes = shape->lanes;
    config->train.batch = (int64_t)shape->lanes * (shape->clean + shape->aux);
    config->train.clean_parts = shape->clean;
    config->train.aux_parts = shape->aux > 0 ? shape->aux : 1;
    config->model.stem = APD_STEM_SMALL;
    config->model.width = shape->width;
    config->optim.weight_decay = 0;
    config->attack.noise_prob = 1;
    config->attack.eps = 8;
    config->attack.step = 8;
    config->seed = 11;
}

void stepper_init(struct stepper *stepper, struct apd_backend *be, const struct apd_config *config,
                  const struct stepper_shape *shape)
{
    struct apd_err err = {0};
    struct apd_shape image = {shape->c, shape->px, shape->px};
    struct apd_step_setup setup = {
        .config = config, .lanes = shape->lanes, .lane_count = shape->lanes, .samples = 1000};

    memset(stepper, 0, sizeof *stepper);
    stepper->be = be;
    stepper->config = *config;
    stepper->rows = (size_t)config->train.batch;
    stepper->pixels_per_image = (size_t)shape->c * (size_t)(shape->px * shape->px);
    assert_int_equal(apd_arch_build(shape->arch, shape->width, config->model.stem == APD_STEM_SMALL,
                                    image, CLASSES, &stepper->arch, &err),
                     APD_OK);
    assert_int_equal(apd_params_create(be, &stepper->arch, shape->aux > 0, &stepper->params, &err),
                     APD_OK);
    if (config->optim.ema_decay > 0)
        assert_int_equal(apd_params_add_ema(stepper->params, &err), APD_OK);
    assert_int_equal(apd_params_init(stepper->params, (uint64_t)config->seed, 0, &err), APD_OK);
    assert_int_equal(apd_params_start_ema(stepper->params, &err), APD_OK);
    assert_int_equal(apd_comm_self(&stepper->comm, &err), APD_OK);
    setup.params = stepper->params;
    setup.comm = setup.host_comm = stepper->comm;
    if (apd_step_create(&setup, &stepper->step, &err) != APD_OK)
        fail_msg("%s", err.msg);

    stepper->pixels = malloc(stepper->rows * stepper->pixels_per_image);
    stepper->labels = malloc(stepper->rows * sizeof *stepper->labels);
    stepper->sample = malloc(stepper->rows * sizeof *stepper->sample);
    stepper->epoch = calloc(stepper->rows, sizeof *stepper->epoch);
    for (size_t r = 0; r < stepper->rows; r++) {
        stepper->sample[r] = r;
        stepper->labels[r] = (int32_t)(apd_mix64(r + 1) % CLASSES);
        for (size_t p = 0; p < stepper->pixels_per_image; p++)
            stepper->pixels[r * stepper->pixels_per_image + p] =
                (uint8_t)(apd_mix64(r * stepper->pixels_per_image + p + 77) >> 20);
    }
    stepper->data =
        (struct apd_step_data){.lane_count = (uint32_t)shape->lanes,
                               .lane_batch = (uint32_t)(stepper->rows / (size_t)shape->lanes),
                               .pixels = stepper->pixels,
                               .labels = stepper->labels,
                               .sample = stepper->sample,
                               .epoch = stepper->epoch};
}

void stepper_fini(struct stepper *stepper)
{
    free(stepper->pixels);
    free(stepper->labels);
    free(stepper->sample);
    free(stepper->epoch);
    apd_step_destroy(&stepper->step);
    stepper->comm->ops->destroy(stepper->comm);
    apd_params_destroy(&stepper->params);
    stepper->be->ops->destroy(stepper->be);
}

double stepper_run(struct stepper *stepper, uint64_t number, double lr,
                   struct apd_step_result *out_result)
{
    struct apd_step_result result = {0};
    struct apd_err err = {0};

    if (apd_step_run(stepper->step, number, &stepper->data, NULL, lr, 0, &result, &err) != APD_OK)
        fail_msg("%s", err.msg);
    if (out_result != NULL)
        *out_result = result;
    return stepper->config.train.weight_clean * result.loss[APD_CLEAN].ce_sum +
           stepper->config.train.weight_noise * result.loss[APD_NOISE].ce_sum +
           stepper->config.train.weight_adv * result.loss[APD_ADV].ce_sum;
}

float *stepper_values(struct stepper *stepper, const void *flat, int stats, size_t *out_n)
{
    struct apd_tensor_info info;
    struct apd_err err = {0};
    float *values = NULL;
    size_t n = 0;

    for (int i = 0; apd_params_tensor(stepper->params, i, &info); i++) {
        if (info.is_stat != stats)
            continue;
        values = realloc(values, (n + info.elems) * sizeof *values);
        assert_non_null(values);
        assert_int_equal(apd_params_export(stepper->params, &info, flat, values + n, &err), APD_OK);
        n += info.elems;
    }
    *out_n = n;
    return values;
}

double relative_distance(const float *a, const float *b, size_t n)
{
    double difference = 0, norm = 0;

    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(difference / norm);
}
