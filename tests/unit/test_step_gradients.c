/* Gradients of the whole step against finite differences, in double precision on the reference
 * backend. */
#include "tests/support/stepper.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* d loss / d weights[at], central; the weights are host doubles on this backend. */
static double numeric_gradient(struct stepper *stepper, size_t at)
{
    double *w = stepper->params->weights, old = w[at], up, down;
    const double h = 1e-7; /* larger steps cross kinks of ReLU and of the attack's sign */

    w[at] = old + h;
    up = stepper_run(stepper, 0, 0, NULL);
    w[at] = old - h;
    down = stepper_run(stepper, 0, 0, NULL);
    w[at] = old;
    return (up - down) / (2 * h);
}

/* Compares up to `most` places of each tensor of each parameter set. Returns the worst difference
 * relative to the largest gradient of the set, and counts places per set. */
static double check_weight_gradients(struct stepper *stepper, size_t most, int places[APD_SETS])
{
    const struct apd_params *params = stepper->params;
    size_t n = params->count;
    double *analytic = malloc(n * sizeof *analytic), worst = 0;

    stepper_run(stepper, 0, 0, NULL);
    memcpy(analytic, apd_step_gradient(stepper->step), n * sizeof *analytic);
    for (int set = 0; set < APD_SETS; set++) {
        struct apd_range range = params->set[set];
        size_t stride = range.count / most + 1;
        double largest = 1e-3;

        for (size_t i = range.first; i < range.first + range.count; i++)
            largest = fmax(largest, fabs(analytic[i]));
        for (size_t i = range.first; i < range.first + range.count; i += stride, places[set]++)
            worst = fmax(worst, fabs(numeric_gradient(stepper, i) - analytic[i]) / largest);
    }
    free(analytic);
    print_message(
        "worst difference %.2e of the largest gradient of its set, over %d + %d + %d places\n",
        worst, places[0], places[1], places[2]);
    return worst;
}

static void gradients_of_every_parameter_set_equal_finite_differences(void **state)
{
    struct apd_config config;
    struct stepper stepper;
    int places[APD_SETS] = {0};
    double worst;

    (void)state;
    stepper_config(&config, &stepper_tiny);
    config.train.label_smoothing = 0.1;
    stepper_init(&stepper, stepper_ref64(), &config, &stepper_tiny);
    worst = check_weight_gradients(&stepper, 80, places);
    for (int set = 0; set < APD_SETS; set++)
        assert_true(places[set] > 20);
    assert_true(worst < 1e-6);
    stepper_fini(&stepper);
}

static void two_noise_passes_equal_finite_differences(void **state)
{
    struct apd_config config;
    struct stepper stepper;
    int places[APD_SETS] = {0};

    (void)state;
    stepper_config(&config, &stepper_tiny);
    config.attack.steps = 2;
    config.attack.step = 4;
    config.train.weight_noise = 0.7;
    stepper_init(&stepper, stepper_ref64(), &config, &stepper_tiny);
    assert_true(check_weight_gradients(&stepper, 40, places) < 1e-6);
    stepper_fini(&stepper);
}

/* Mode advprop: attack by running statistics, gradients of noise passes dropped. */
static void paired_attack_equals_finite_differences(void **state)
{
    const struct stepper_shape shape = {"resnet18", 2, 1, 8, 2, 4, 4};
    struct apd_config config;
    struct stepper stepper;
    int places[APD_SETS] = {0};

    (void)state;
    stepper_config(&config, &shape);
    config.train.mode = APD_MODE_ADVPROP;
    config.train.batch = 8;
    config.train.weight_noise = 0; /* stepper_run adds up what is differentiated */
    config.attack.steps = 2;
    config.attack.goal = APD_GOAL_TARGETED;
    config.attack.bn_mode = APD_BN_MODE_EVAL;
    config.attack.reuse_gradients = 0;
    config.bn.momentum = 0; /* or the attack would be another one at each call */
    stepper_init(&stepper, stepper_ref64(), &config, &shape);
    assert_true(check_weight_gradients(&stepper, 40, places) < 1e-6);
    stepper_fini(&stepper);
}

static void mixed_images_equal_finite_differences(void **state)
{
    static const int64_t kinds[] = {APD_MIX_MIXUP, APD_MIX_CUTMIX};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct apd_config config;
        struct stepper stepper;
        int places[APD_SETS] = {0};

        stepper_config(&config, &stepper_tiny);
        config.mix.kind = kinds[i];
        config.mix.noise = config.mix.adv = 1;
        config.train.label_smoothing = 0.1;
        stepper_init(&stepper, stepper_ref64(), &config, &stepper_tiny);
        assert_true(check_weight_gradients(&stepper, 40, places) < 1e-6);
        stepper_fini(&stepper);
    }
}

static void bad_samples_weigh_nothing(void **state)
{
    struct apd_config config;
    struct stepper stepper;
    int places[APD_SETS] = {0};

    (void)state;
    stepper_config(&config, &stepper_tiny);
    config.mix.kind = APD_MIX_MIXUP;
    stepper_init(&stepper, stepper_ref64(), &config, &stepper_tiny);
    stepper.labels[1] = -1;                      /* clean: it and the one it is mixed into */
    stepper.labels[stepper_tiny.clean + 1] = -1; /* auxiliary */
    assert_true(check_weight_gradients(&stepper, 40, places) < 1e-6);
    assert_true(apd_step_count(stepper.step, APD_SET_AUX) == 5);
    assert_true(apd_step_count(stepper.step, APD_SET_MAIN) < 8 &&
                apd_step_count(stepper.step, APD_SET_MAIN) >= 6);
    stepper_fini(&stepper);
}

static void synchronised_bn_equals_finite_differences(void **state)
{
    struct apd_config config;
    struct stepper stepper;
    int places[APD_SETS] = {0};

    (void)state;
    stepper_config(&config, &stepper_tiny);
    config.bn.sync = APD_BN_SYNC_FULL;
    stepper_init(&stepper, stepper_ref64(), &config, &stepper_tiny);
    assert_true(check_weight_gradients(&stepper, 60, places) < 1e-6);
    stepper_fini(&stepper);
}

static void imagenet_stem_equals_finite_differences(void **state)
{
    const struct stepper_shape shape = {"resnet50", 2, 3, 33, 1, 3, 2};
    struct apd_config config;
    struct stepper stepper;
    int places[APD_SETS] = {0};

    (void)state;
    stepper_config(&config, &shape);
    config.model.stem = APD_STEM_IMAGENET;
    stepper_init(&stepper, stepper_ref64(), &config, &shape);
    assert_true(check_weight_gradients(&stepper, 25, places) < 1e-6);
    stepper_fini(&stepper);
}

/* One pass over the aux images by one BN, batch or running statistics: d loss / d pixel. */
static double check_image_gradient(struct stepper *stepper, enum apd_bn_set set, int batch_stats)
{
    enum { N = 3 };
    struct apd_backend *be = stepper->be;
    struct apd_net *net = apd_step_net(stepper->step);
    struct apd_segment seg = {0, N, set};
    size_t elems = N * stepper->pixels_per_image;
    double *x, *d_x, *sums, *weight, largest = 0, worst = 0;
    int32_t *label;
    double loss[APD_LOSS_DOUBLES];
    struct apd_err err = {0};
    struct apd_targets targets = {0};
    struct apd_pass pass = {.n = N, .seg = &seg, .segments = 1, .batch_stats = batch_stats};

    assert_int_equal(be->ops->alloc(be, elems * 8, (void **)&x, &err), APD_OK);
    assert_int_equal(be->ops->alloc(be, elems * 8, (void **)&d_x, &err), APD_OK);
    assert_int_equal(be->ops->alloc(be, N * 4, (void **)&label, &err), APD_OK);
    assert_int_equal(be->ops->alloc(be, N * 8, (void **)&weight, &err), APD_OK);
    assert_int_equal(be->ops->alloc(be, apd_net_sums(net) * 8, (void **)&sums, &err), APD_OK);
    for (int i = 0; i < N; i++) {
        label[i] = i;
        weight[i] = 0.5 + i;
    }
    assert_int_equal(
        be->ops->input_pack(be, N, stepper->pixels_per_image, stepper->pixels, NULL, x, NULL, &err),
        APD_OK);
    targets.label = label;
    targets.weight = weight;
    pass.images = x;
    pass.sums = sums;
    pass.loss = loss;
    pass.targets = &targets;
    pass.d_images = d_x;
    assert_int_equal(apd_net_prepare(net, N, 1, 1, &err), APD_OK);
    assert_int_equal(apd_net_forward(net, &pass, &err), APD_OK);
    assert_int_equal(apd_net_backward(net, &pass, &err), APD_OK);
    pass.d_images = NULL;
    for (size_t i = 0; i < elems; i++)
        largest = fmax(largest, fabs(d_x[i]));
    for (size_t i = 0; i < elems; i += 5) {
        double old = x[i], difference = 0;

        for (int sign = 1; sign >= -1; sign -= 2) {
            for (int only = 0; only < N; only++) { /* weight times CE of each image */
                double kept[N];

                memcpy(kept, weight, sizeof kept);
                for (int j = 0; j < N; j++)
                    weight[j] = j == only ? kept[j] : 0;
                x[i] = old + sign * 1e-5;
                assert_int_equal(apd_net_forward(net, &pass, &err), APD_OK);
                assert_int_equal(apd_net_backward(net, &pass, &err), APD_OK);
                difference += sign * kept[only] * loss[0];
                memcpy(weight, kept, sizeof kept);
            }
        }
        x[i] = old;
        worst = fmax(worst, fabs(difference / 2e-5 - d_x[i]) / largest);
    }
    be->ops->free(be, x);
    be->ops->free(be, d_x);
    be->ops->free(be, label);
    be->ops->free(be, weight);
    be->ops->free(be, sums);
    return worst;
}

static void image_gradient_equals_finite_differences(void **state)
{
    struct apd_config config;
    struct stepper stepper;

    (void)state;
    stepper_config(&config, &stepper_tiny);
    stepper_init(&stepper, stepper_ref64(), &config, &stepper_tiny);
    for (int k = 0; k < 3; k++) /* move the running statistics away from 0 and 1 */
        stepper_run(&stepper, (uint64_t)k, 0.01, NULL);
    for (int set = 0; set < APD_BN_SETS; set++)
        for (int batch_stats = 0; batch_stats < 2; batch_stats++)
            assert_true(check_image_gradient(&stepper, set, batch_stats) < 1e-6);
    stepper_fini(&stepper);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_every_parameter_set_equal_finite_differences),
        cmocka_unit_test(two_noise_passes_equal_finite_differences),
        cmocka_unit_test(paired_attack_equals_finite_differences),
        cmocka_unit_test(mixed_images_equal_finite_differences),
        cmocka_unit_test(bad_samples_weigh_nothing),
        cmocka_unit_test(synchronised_bn_equals_finite_differences),
        cmocka_unit_test(imagenet_stem_equals_finite_differences),
        cmocka_unit_test(image_gradient_equals_finite_differences),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
