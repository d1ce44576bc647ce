/* The step against itself on other backends and threads, and against its own rules. */
#include "tests/support/stepper.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ten steps on both; losses within 1e-3 each. Takes the backends. */
static void compare_ten_steps(struct apd_backend *be_a, struct apd_backend *be_b)
{
    const struct stepper_shape shape = {"resnet18", 4, 3, 16, 2, 8, 2};
    struct apd_config config;
    struct stepper a, b;

    stepper_config(&config, &shape);
    config.attack.eps = 2;
    config.attack.step = 2;
    config.optim.weight_decay = 1e-4;
    stepper_init(&a, be_a, &config, &shape);
    stepper_init(&b, be_b, &config, &shape);
    for (uint64_t t = 0; t < 10; t++) {
        struct apd_step_result of_a, of_b;

        stepper_run(&a, t, 0.02, &of_a);
        stepper_run(&b, t, 0.02, &of_b);
        for (int branch = 0; branch < APD_BRANCHES; branch++) {
            const struct apd_loss *x = &of_a.loss[branch], *y = &of_b.loss[branch];
            double difference = x->ce_sum / (double)x->images - y->ce_sum / (double)y->images;

            assert_int_equal(x->images, y->images);
            if (fabs(difference) > 1e-3)
                fail_msg("step %d branch %d: losses differ by %.6f", (int)t, branch, difference);
        }
        if (t == 0) {
            size_t n;
            float *g_a = stepper_values(&a, apd_step_gradient(a.step), 0, &n);
            float *g_b = stepper_values(&b, apd_step_gradient(b.step), 0, &n);

            assert_true(relative_distance(g_b, g_a, n) < 1e-5);
            free(g_a);
            free(g_b);
        }
    }
    stepper_fini(&a);
    stepper_fini(&b);
}

static void cpu_agrees_with_ref_over_ten_steps(void **state)
{
    (void)state;
    compare_ten_steps(stepper_ref(), stepper_cpu(2));
}

static void other_thread_counts_agree_over_ten_steps(void **state)
{
    (void)state;
    compare_ten_steps(stepper_cpu(1), stepper_cpu(2));
}

static void other_thread_counts_give_the_same_first_gradient(void **state)
{
    const struct stepper_shape shape = {"resnet18", 16, 1, 28, 2, 16, 4};
    struct apd_config config;
    struct stepper one, two;
    size_t n;
    float *a, *b;

    (void)state;
    stepper_config(&config, &shape);
    stepper_init(&one, stepper_cpu(1), &config, &shape);
    stepper_run(&one, 0, 0.01, NULL);
    a = stepper_values(&one, apd_step_gradient(one.step), 0, &n);
    stepper_init(&two, stepper_cpu(2), &config, &shape);
    stepper_run(&two, 0, 0.01, NULL);
    b = stepper_values(&two, apd_step_gradient(two.step), 0, &n);
    print_message("1 and 2 threads: gradients differ by %.2e of their norm\n",
                  relative_distance(a, b, n));
    assert_true(relative_distance(a, b, n) < 1e-5);
    free(a);
    free(b);
    stepper_fini(&one);
    stepper_fini(&two);
}

static void same_step_twice_is_bitwise_equal(void **state)
{
    const struct stepper_shape shape = {"resnet18", 8, 1, 12, 4, 4, 2};
    float *values[2];
    size_t n = 0;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct apd_config config;
        struct stepper stepper;

        stepper_config(&config, &shape);
        stepper_init(&stepper, stepper_cpu(2), &config, &shape);
        for (uint64_t t = 0; t < 3; t++)
            stepper_run(&stepper, t, 0.05, NULL);
        values[i] = stepper_values(&stepper, stepper.params->weights, 0, &n);
        stepper_fini(&stepper);
    }
    assert_memory_equal(values[0], values[1], n * sizeof(float));
    free(values[0]);
    free(values[1]);
}

/* ---------------------------------------------------------------- scale, update */

static void update_divides_each_set_by_its_weighted_count(void **state)
{
    struct apd_config config;
    struct stepper stepper;
    const double lr = 0.3;

    (void)state;
    stepper_config(&config, &stepper_tiny);
    config.optim.weight_decay = 0.01;
    config.optim.lr_factor_aux = 0.5;
    stepper_init(&stepper, stepper_ref64(), &config, &stepper_tiny);
    /* 2 lanes of 4 + 3, weights 1 / .5 / .5: METHOD's example in small. */
    const double counts[APD_SETS] = {8 + 3 + 3, 8, 6};
    const double factors[APD_SETS] = {1, 1, 0.5};
    size_t n = stepper.params->count;
    double *w = stepper.params->weights, *before = malloc(n * sizeof *before);
    const double *g;

    memcpy(before, w, n * sizeof *before);
    stepper_run(&stepper, 0, lr, NULL);
    g = apd_step_gradient(stepper.step);
    for (int set = 0; set < APD_SETS; set++) {
        struct apd_range range = stepper.params->set[set];

        assert_true(apd_step_count(stepper.step, set) == counts[set]);
        for (size_t i = range.first; i < range.first + range.count; i++) {
            double expected =
                before[i] - lr * factors[set] * (g[i] / counts[set] + 0.01 * before[i]);

            assert_true(fabs(w[i] - expected) < 1e-12);
        }
    }
    free(before);
    stepper_fini(&stepper);
}

static void gradients_that_are_dropped_are_not_counted(void **state)
{
    struct apd_config config;
    struct stepper stepper;

    (void)state;
    stepper_config(&config, &stepper_tiny);
    config.attack.reuse_gradients = 0;
    stepper_init(&stepper, stepper_ref64(), &config, &stepper_tiny);
    stepper_run(&stepper, 0, 0.1, NULL);
    assert_true(apd_step_count(stepper.step, APD_SET_SHARED) == 8 + 3);
    assert_true(apd_step_count(stepper.step, APD_SET_MAIN) == 8);
    assert_true(apd_step_count(stepper.step, APD_SET_AUX) == 3);
    stepper_fini(&stepper);
}

static void average_follows_weights_and_statistics(void **state)
{
    struct apd_config config;
    struct stepper stepper;
    struct apd_err err = {0};
    size_t n[2];
    float *at[3][2];

    (void)state;
    stepper_config(&config, &stepper_tiny);
    config.optim.ema_decay = 0.75;
    stepper_init(&stepper, stepper_ref64(), &config, &stepper_tiny);
    for (int t = 0; t < 3; t++) {
        if (t > 0)
            stepper_run(&stepper, (uint64_t)t, 0.1, NULL);
        at[t][0] = stepper_values(&stepper, stepper.params->weights, 0, &n[0]);
        at[t][1] = stepper_values(&stepper, stepper.params->stats, 1, &n[1]);
    }
    assert_int_equal(apd_params_swap_ema(stepper.params, &err), APD_OK);
    for (int stats = 0; stats < 2; stats++) {
        void *flat = stats ? stepper.params->stats : stepper.params->weights;
        float *found = stepper_values(&stepper, flat, stats, &n[stats]);

        for (size_t i = 0; i < n[stats]; i++) {
            double expected =
                0.5625 * at[0][stats][i] + 0.1875 * at[1][stats][i] + 0.25 * at[2][stats][i];

            assert_true(fabs(found[i] - expected) < 1e-6);
        }
        free(found);
    }
    assert_int_equal(apd_params_swap_ema(stepper.params, &err), APD_OK);
    for (int t = 0; t < 3; t++) {
        free(at[t][0]);
        free(at[t][1]);
    }
    stepper_fini(&stepper);
}

static void failed_step_leaves_everything_as_it_was(void **state)
{
    struct apd_config config;
    struct stepper stepper;
    struct apd_step_result result;
    struct apd_err failure = {.code = APD_DATA, .msg = "sample 7 is broken"}, err = {0};
    size_t n;
    float *before, *after;

    (void)state;
    stepper_config(&config, &stepper_tiny);
    stepper_init(&stepper, stepper_ref(), &config, &stepper_tiny);
    before = stepper_values(&stepper, stepper.params->weights, 0, &n);
    assert_int_equal(apd_step_run(stepper.step, 0, NULL, &failure, 0.1, 0, &result, &err),
                     APD_DATA);
    assert_string_equal(err.msg, "sample 7 is broken");
    after = stepper_values(&stepper, stepper.params->weights, 0, &n);
    assert_memory_equal(before, after, n * sizeof(float));
    free(before);
    free(after);
    stepper_fini(&stepper);
}

static void gradient_that_is_not_finite_is_refused(void **state)
{
    struct apd_config config;
    struct stepper stepper;
    struct apd_step_result result;
    struct apd_err err = {0};

    (void)state;
    stepper_config(&config, &stepper_tiny);
    stepper_init(&stepper, stepper_ref(), &config, &stepper_tiny);
    ((float *)stepper.params->weights)[3] = INFINITY;
    assert_int_equal(apd_step_run(stepper.step, 4, &stepper.data, NULL, 0.1, 0, &result, &err),
                     APD_CONFIG);
    assert_non_null(strstr(err.msg, "step 4"));
    stepper_fini(&stepper);
}

static void synchronised_lanes_equal_one_big_lane(void **state)
{
    const struct stepper_shape two = {"resnet18", 2, 1, 8, 2, 4, 0};
    const struct stepper_shape one = {"resnet18", 2, 1, 8, 1, 8, 0};
    struct apd_config config;
    struct stepper a, b;
    size_t n;
    float *wa, *wb;

    (void)state;
    stepper_config(&config, &two);
    config.bn.sync = APD_BN_SYNC_FULL;
    stepper_init(&a, stepper_ref64(), &config, &two);
    stepper_config(&config, &one);
    stepper_init(&b, stepper_ref64(), &config, &one);
    for (uint64_t t = 0; t < 3; t++)
        assert_true(fabs(stepper_run(&a, t, 0.1, NULL) - stepper_run(&b, t, 0.1, NULL)) < 1e-9);
    for (int stats = 0; stats < 2; stats++) {
        wa = stepper_values(&a, stats ? a.params->stats : a.params->weights, stats, &n);
        wb = stepper_values(&b, stats ? b.params->stats : b.params->weights, stats, &n);
        assert_true(relative_distance(wa, wb, n) < 1e-6);
        free(wa);
        free(wb);
    }
    stepper_fini(&a);
    stepper_fini(&b);
}

/* The outputs of ResNet-50's blocks are about a third of what its layers make. */
static void recompute_keeps_much_less(void **state)
{
    const struct stepper_shape shape = {"resnet50", 8, 3, 64, 1, 8, 2};
    size_t bytes[2];

    (void)state;
    for (int recompute = 0; recompute < 2; recompute++) {
        struct apd_config config;
        struct stepper stepper;

        stepper_config(&config, &shape);
        config.train.recompute = recompute;
        stepper_init(&stepper, stepper_ref(), &config, &shape);
        bytes[recompute] = apd_net_arena_bytes(apd_step_net(stepper.step));
        stepper_fini(&stepper);
    }
    assert_true(bytes[1] < bytes[0] * 6 / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_agrees_with_ref_over_ten_steps),
        cmocka_unit_test(other_thread_counts_agree_over_ten_steps),
        cmocka_unit_test(other_thread_counts_give_the_same_first_gradient),
        cmocka_unit_test(same_step_twice_is_bitwise_equal),
        cmocka_unit_test(update_divides_each_set_by_its_weighted_count),
        cmocka_unit_test(gradients_that_are_dropped_are_not_counted),
        cmocka_unit_test(average_follows_weights_and_statistics),
        cmocka_unit_test(failed_step_leaves_everything_as_it_was),
        cmocka_unit_test(gradient_that_is_not_finite_is_refused),
        cmocka_unit_test(synchronised_lanes_equal_one_big_lane),
        cmocka_unit_test(recompute_keeps_much_less),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
