/* Networks as data, their parameters, the learning rate, the order of sums. */
#include "tests/support/stepper.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/optim/schedule.h"
#include "worker/tree.h"

static const struct apd_shape imagenet = {3, 224, 224};

static void networks_have_as_many_parameters_as_torchvision(void **state)
{
    static const struct {
        const char *name;
        size_t parameters;
    } networks[] = {{"resnet18", 11689512},         {"resnet34", 21797672},
                    {"resnet50", 25557032},         {"resnet101", 44549160},
                    {"resnet152", 60192808},        {"resnext50_32x4d", 25028904},
                    {"resnext101_32x8d", 88791336}, {"wide_resnet50_2", 68883240},
                    {"wide_resnet101_2", 126886696}};
    struct apd_arch *arch = malloc(sizeof *arch);
    struct apd_err err;

    (void)state;
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
        assert_int_equal(apd_arch_build(networks[i].name, 64, 0, imagenet, 1000, arch, &err),
                         APD_OK);
        assert_int_equal(apd_arch_parameters(arch), networks[i].parameters);
        assert_int_equal(arch->features.h, 7);
    }
    free(arch);
}

static void unknown_network_and_small_image_are_refused(void **state)
{
    struct apd_shape speck = {3, 4, 4};
    struct apd_arch *arch = malloc(sizeof *arch);
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_arch_build("resnet19", 64, 0, imagenet, 10, arch, &err), APD_CONFIG);
    assert_non_null(strstr(err.msg, "resnet19"));
    assert_int_equal(apd_arch_build("resnet18", 64, 0, speck, 10, arch, &err), APD_CONFIG);
    assert_int_equal(apd_arch_build("resnet18", 64, 0, imagenet, 1, arch, &err), APD_CONFIG);
    free(arch);
}

static void groups_of_no_whole_number_of_channels_are_refused(void **state)
{
    struct apd_arch *arch = malloc(sizeof *arch);
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_arch_build("resnext50_32x4d", 24, 1, imagenet, 10, arch, &err),
                     APD_CONFIG);
    assert_non_null(strstr(err.msg, "24 * 4 / 64 = 1.5 channels: expected a multiple of 16"));
    assert_int_equal(apd_arch_build("resnext101_32x8d", 4, 1, imagenet, 10, arch, &err),
                     APD_CONFIG);
    assert_int_equal(apd_arch_build("resnext101_32x8d", 24, 1, imagenet, 10, arch, &err), APD_OK);
    assert_int_equal(arch->layer[2].shape.groups, 32); /* layer1.0.conv2 */
    assert_int_equal(arch->layer[2].shape.in.c, 96);
    assert_int_equal(apd_arch_build("wide_resnet50_2", 1, 1, imagenet, 10, arch, &err), APD_OK);
    assert_int_equal(arch->layer[2].shape.in.c, 2);
    free(arch);
}

/* Mean and deviation of what a fresh network's tensor holds. */
static void moments(struct stepper *stepper, const char *name, double *mean, double *deviation)
{
    struct apd_tensor_info info;
    struct apd_err err;
    double sum = 0, squares = 0;

    for (int i = 0; apd_params_tensor(stepper->params, i, &info); i++) {
        float *values;

        if (strcmp(info.name, name) != 0)
            continue;
        values = malloc(info.elems * sizeof *values);
        assert_int_equal(
            apd_params_export(stepper->params, &info,
                              info.is_stat ? stepper->params->stats : stepper->params->weights,
                              values, &err),
            APD_OK);
        for (size_t k = 0; k < info.elems; k++) {
            sum += values[k];
            squares += (double)values[k] * values[k];
        }
        *mean = sum / (double)info.elems;
        *deviation = sqrt(squares / (double)info.elems - *mean * *mean);
        free(values);
        return;
    }
    fail_msg("no tensor %s", name);
}

static void fresh_weights_have_the_deviation_of_kaiming_fan_out(void **state)
{
    const struct stepper_shape shape = {"resnet18", 16, 1, 16, 1, 4, 2};
    struct apd_config config;
    struct stepper stepper;
    double mean, deviation;

    (void)state;
    stepper_config(&config, &shape);
    stepper_init(&stepper, stepper_ref(), &config, &shape);
    moments(&stepper, "layer4.1.conv2.weight", &mean, &deviation); /* 128 out, 3 x 3 */
    assert_true(fabs(mean) < 1e-3 && fabs(deviation / sqrt(2.0 / (128 * 9)) - 1) < 0.01);
    moments(&stepper, "fc.weight", &mean, &deviation); /* U(+-1/sqrt(128)) */
    assert_true(fabs(deviation / (1 / sqrt(128.0) / sqrt(3.0)) - 1) < 0.1);
    moments(&stepper, "bn1.aux_bn.weight", &mean, &deviation);
    assert_true(mean == 1 && deviation == 0);
    moments(&stepper, "bn1.aux_bn.running_mean", &mean, &deviation);
    assert_true(mean == 0 && deviation == 0);
    stepper_fini(&stepper);
}

static struct apd_lr_schedule schedule_of(const char *const *overrides, size_t count,
                                          uint64_t samples)
{
    struct apd_lr_schedule schedule;
    struct apd_config config;
    struct apd_err err;

    if (apd_config_load(NULL, overrides, count, &config, &err) != APD_OK)
        fail_msg("%s", err.msg);
    apd_lr_schedule_init(&schedule, &config, samples);
    return schedule;
}

static void step_schedule_falls_at_its_milestones_after_a_warm_up(void **state)
{
    const char *const overrides[] = {"train.batch=100",
                                     "train.epochs=10",
                                     "schedule.kind=step",
                                     "schedule.milestones=[4, 8]",
                                     "schedule.warmup_epochs=0.5",
                                     "optim.lr=1"};
    struct apd_lr_schedule s = schedule_of(overrides, 6, 1000);

    (void)state;
    assert_int_equal(s.steps, 100);
    assert_true(fabs(apd_lr_schedule_at(&s, 0) - 0.2) < 1e-12); /* 5 steps of warm-up */
    assert_true(fabs(apd_lr_schedule_at(&s, 3) - 0.8) < 1e-12);
    assert_true(apd_lr_schedule_at(&s, 4) == 1 && apd_lr_schedule_at(&s, 39) == 1);
    assert_true(fabs(apd_lr_schedule_at(&s, 40) - 0.1) < 1e-12);
    assert_true(fabs(apd_lr_schedule_at(&s, 80) - 0.01) < 1e-12);
}

static void cosine_schedule_ends_near_zero_whatever_max_steps(void **state)
{
    const char *const overrides[] = {"train.batch=300", "train.epochs=3", "train.max_steps=5",
                                     "schedule.kind=cosine", "optim.lr=0.4"};
    struct apd_lr_schedule s = schedule_of(overrides, 5, 1000);

    (void)state;
    assert_int_equal(s.steps, 5);
    assert_int_equal(s.full_steps, 10);
    assert_true(fabs(apd_lr_schedule_at(&s, 5) - 0.2) < 1e-12);
    assert_true(apd_lr_schedule_at(&s, 10) < 1e-12);
}

/* In double precision the order of these four shows: big + small loses the small. */
static void sums_are_made_in_tree_order(void **state)
{
    double x[4] = {1e16, 1, -1e16, 1}, y[3] = {1e16, 1, -1e16};

    (void)state;
    apd_tree_sum_doubles(x, 4, 1, 1);
    assert_true(x[0] == (1e16 + 1) + (-1e16 + 1)); /* not ((1e16 + 1) - 1e16) + 1 = 1 */
    assert_true(x[0] == 0);
    apd_tree_sum_doubles(y, 3, 1, 1);
    assert_true(y[0] == (1e16 + 1) + -1e16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_have_as_many_parameters_as_torchvision),
        cmocka_unit_test(unknown_network_and_small_image_are_refused),
        cmocka_unit_test(groups_of_no_whole_number_of_channels_are_refused),
        cmocka_unit_test(fresh_weights_have_the_deviation_of_kaiming_fan_out),
        cmocka_unit_test(step_schedule_falls_at_its_milestones_after_a_warm_up),
        cmocka_unit_test(cosine_schedule_ends_near_zero_whatever_max_steps),
        cmocka_unit_test(sums_are_made_in_tree_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
