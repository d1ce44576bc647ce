/* The step against finite differences, against the reference backend, and against its own rules. */
#include "tests/support/stepper.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct stepper_shape tiny = {"resnet18", 2, 1, 8, 2, 4, 3};

static struct apd_backend *make_ref64(void)
{
    struct apd_backend *be = NULL;
    struct apd_err err = {0};

    assert_int_equal(apd_backend_ref64(&be, &err), APD_OK);
    return be;
}

static struct apd_backend *make_ref(void)
{
    struct apd_backend *be = NULL;
    struct apd_err err = {0};

    assert_int_equal(apd_backend_ref(&be, &err), APD_OK);
    return be;
}

static struct apd_backend *make_cpu(int threads)
{
    struct apd_cpu_options options = {threads, "auto", "direct"};
    struct apd_backend *be = NULL;
    struct apd_err err = {0};

    assert_int_equal(apd_backend_cpu(&options, &be, &err), APD_OK);
    return be;
}

/* ---------------------------------------------------------------- finite differences */

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
    stepper_config(&config, &tiny);
    config.train.label_smoothing = 0.1;
    stepper_init(&stepper, make_ref64(), &config, &tiny);
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
    stepper_config(&config, &tiny);
    config.attack.steps = 2;
    config.attack.step = 4;
    config.train.weight_noise = 0.7;
    stepper_init(&stepper, make_ref64(), &config, &tiny);
    assert_true(check_weight_gradients(&stepper, 40, places) < 1e-6);
    stepper_fini(&stepper);
}

static void synchronised_bn_equals_finite_differences(void **state)
{
    struct apd_config config;
    struct stepper stepper;
    int places[APD_SETS] = {0};

    (void)state;
    stepper_config(&config, &tiny);
    config.bn.sync = APD_BN_SYNC_FULL;
    stepper_init(&stepper, make_ref64(), &config, &tiny);
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
    stepper_init(&stepper, make_ref64(), &config, &shape);
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
    struct apd_loss loss;
    struct apd_err err = {0};
    struct apd_targets targets = {0};
    struct apd_pass pass = {.n = N, .seg = &seg, .segments = 1, .batch_stats = batch_stats};

    assert_int_equal(be->ops->alloc(be, elems * 8, (void **)&x, &err), APD_OK);
    assert_int_equal(be->ops->alloc(be, elems * 8, (void **)&d_x, &err), APD_OK);
    assert_int_equal(be->ops->alloc(be, N * 4, (void **)&label, &err), APD_OK);
    assert_int_equal(be->ops->alloc(be, N * 8, (void **)&weight, &err), APD_OK);
    assert_int_equal(be->ops->alloc(be, apd_net_sums(net, 1) * 8, (void **)&sums, &err), APD_OK);
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
    pass.targets = &targets;
    pass.d_images = d_x;
    assert_int_equal(apd_net_prepare(net, N, &err), APD_OK);
    assert_int_equal(apd_net_forward(net, &pass, &err), APD_OK);
    assert_int_equal(apd_net_backward(net, &pass, &loss, &err), APD_OK);
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
                assert_int_equal(apd_net_backward(net, &pass, &loss, &err), APD_OK);
                difference += sign * kept[only] * loss.ce_sum;
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
    stepper_config(&config, &tiny);
    stepper_init(&stepper, make_ref64(), &config, &tiny);
    for (int k = 0; k < 3; k++) /* move the running statistics away from 0 and 1 */
        stepper_run(&stepper, (uint64_t)k, 0.01, NULL);
    for (int set = 0; set < APD_BN_SETS; set++)
        for (int batch_stats = 0; batch_stats < 2; batch_stats++)
            assert_true(check_image_gradient(&stepper, set, batch_stats) < 1e-6);
    stepper_fini(&stepper);
}

/* ---------------------------------------------------------------- backends agree */

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
    compare_ten_steps(make_ref(), make_cpu(2));
}

static void other_thread_counts_agree_over_ten_steps(void **state)
{
    (void)state;
    compare_ten_steps(make_cpu(1), make_cpu(2));
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
    stepper_init(&one, make_cpu(1), &config, &shape);
    stepper_run(&one, 0, 0.01, NULL);
    a = stepper_values(&one, apd_step_gradient(one.step), 0, &n);
    stepper_init(&two, make_cpu(2), &config, &shape);
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
        stepper_init(&stepper, make_cpu(2), &config, &shape);
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
    stepper_config(&config, &tiny);
    config.optim.weight_decay = 0.01;
    config.optim.lr_factor_aux = 0.5;
    stepper_init(&stepper, make_ref64(), &config, &tiny);
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

static void failed_step_leaves_everything_as_it_was(void **state)
{
    struct apd_config config;
    struct stepper stepper;
    struct apd_step_result result;
    struct apd_err failure = {.code = APD_DATA, .msg = "sample 7 is broken"}, err = {0};
    size_t n;
    float *before, *after;

    (void)state;
    stepper_config(&config, &tiny);
    stepper_init(&stepper, make_ref(), &config, &tiny);
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
    stepper_config(&config, &tiny);
    stepper_init(&stepper, make_ref(), &config, &tiny);
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
    stepper_init(&a, make_ref64(), &config, &two);
    stepper_config(&config, &one);
    stepper_init(&b, make_ref64(), &config, &one);
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

/* ---------------------------------------------------------------- branches stay apart */

/* What one branch may depend on: running statistics of its BN and the gradients of its gamma and
 * beta, after one step in which only the images of the other branch were changed. */
struct trace {
    float *stats[APD_BN_SETS], *gradient[APD_BN_SETS];
    size_t n_stats[APD_BN_SETS], n_gradient[APD_BN_SETS];
};

static float *values_of_set(struct stepper *stepper, const void *flat, int stats, enum apd_set set,
                            size_t *out_n)
{
    struct apd_tensor_info info;
    struct apd_err err = {0};
    float *values = NULL;
    size_t n = 0;

    for (int i = 0; apd_params_tensor(stepper->params, i, &info); i++) {
        if (info.is_stat != stats || info.set != set)
            continue;
        values = realloc(values, (n + info.elems) * sizeof *values);
        assert_int_equal(apd_params_export(stepper->params, &info, flat, values + n, &err), APD_OK);
        n += info.elems;
    }
    *out_n = n;
    return values;
}

enum change { CHANGE_NOTHING, CHANGE_CLEAN_IMAGES, CHANGE_AUX_IMAGES };

static void run_traced(struct apd_backend *be, enum change change, struct trace *trace)
{
    struct apd_config config;
    struct stepper stepper;

    stepper_config(&config, &tiny);
    stepper_init(&stepper, be, &config, &tiny);
    for (size_t r = 0; r < stepper.rows && change != CHANGE_NOTHING; r++) {
        int is_clean = (int)(r % (size_t)(tiny.clean + tiny.aux)) < tiny.clean;

        if (is_clean == (change == CHANGE_CLEAN_IMAGES))
            for (size_t p = 0; p < stepper.pixels_per_image; p++)
                stepper.pixels[r * stepper.pixels_per_image + p] ^= 0x55;
    }
    stepper_run(&stepper, 0, 0.1, NULL);
    for (int set = 0; set < APD_BN_SETS; set++) {
        trace->stats[set] = values_of_set(&stepper, stepper.params->stats, 1, APD_SET_MAIN + set,
                                          &trace->n_stats[set]);
        trace->gradient[set] = values_of_set(&stepper, apd_step_gradient(stepper.step), 0,
                                             APD_SET_MAIN + set, &trace->n_gradient[set]);
    }
    stepper_fini(&stepper);
}

static void free_trace(struct trace *trace)
{
    for (int set = 0; set < APD_BN_SETS; set++) {
        free(trace->stats[set]);
        free(trace->gradient[set]);
    }
}

static int same(const struct trace *a, const struct trace *b, enum apd_bn_set set)
{
    return memcmp(a->stats[set], b->stats[set], a->n_stats[set] * sizeof(float)) == 0 &&
           memcmp(a->gradient[set], b->gradient[set], a->n_gradient[set] * sizeof(float)) == 0;
}

/* Whether clean images move only main, and attacked images only auxiliary BN. */
static int branches_are_apart(struct apd_backend *(*make)(void))
{
    struct trace base, clean, aux;
    int apart;

    run_traced(make(), CHANGE_NOTHING, &base);
    run_traced(make(), CHANGE_CLEAN_IMAGES, &clean);
    run_traced(make(), CHANGE_AUX_IMAGES, &aux);
    apart = same(&base, &clean, APD_BN_AUX) && same(&base, &aux, APD_BN_MAIN) &&
            !same(&base, &clean, APD_BN_MAIN) && !same(&base, &aux, APD_BN_AUX);
    free_trace(&base);
    free_trace(&clean);
    free_trace(&aux);
    return apart;
}

static void clean_images_move_main_and_attacked_images_aux_only(void **state)
{
    (void)state;
    assert_true(branches_are_apart(make_ref));
}

/* Backends with one deliberate mistake each: the ref table with one function replaced. */
static struct apd_backend_ops wrong_ops;
static const struct apd_backend_ops *right_ops;

static enum apd_code sums_over_both_branches(struct apd_backend *be, struct apd_shape shape,
                                             const struct apd_segment *seg, int segments,
                                             const void *x, double *sums, struct apd_err *err)
{
    struct apd_segment merged[2];

    if (segments != 2)
        return right_ops->bn_sums(be, shape, seg, segments, x, sums, err);
    /* The main segment takes in the first attacked image. */
    memcpy(merged, seg, sizeof merged);
    merged[0].count++;
    merged[1].first++;
    merged[1].count--;
    return right_ops->bn_sums(be, shape, merged, 2, x, sums, err);
}

static enum apd_code
gradients_of_the_other_set(struct apd_backend *be, int c, const struct apd_segment *seg,
                           int segments, const double *d_sums, void *const d_gamma[APD_BN_SETS],
                           void *const d_beta[APD_BN_SETS], struct apd_err *err)
{
    void *const gamma[APD_BN_SETS] = {d_gamma[APD_BN_AUX], d_gamma[APD_BN_MAIN]};
    void *const beta[APD_BN_SETS] = {d_beta[APD_BN_AUX], d_beta[APD_BN_MAIN]};

    return right_ops->bn_backward_params(be, c, seg, segments, d_sums, gamma, beta, err);
}

static struct apd_backend *spoil(void)
{
    struct apd_backend *be = make_ref();

    right_ops = be->ops;
    wrong_ops = *be->ops;
    be->ops = &wrong_ops;
    return be;
}

static struct apd_backend *make_wrong_sums(void)
{
    struct apd_backend *be = spoil();

    wrong_ops.bn_sums = sums_over_both_branches;
    return be;
}

static struct apd_backend *make_wrong_set(void)
{
    struct apd_backend *be = spoil();

    wrong_ops.bn_backward_params = gradients_of_the_other_set;
    return be;
}

static void wrong_branch_is_caught(void **state)
{
    (void)state;
    assert_false(branches_are_apart(make_wrong_sums));
    assert_false(branches_are_apart(make_wrong_set));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_every_parameter_set_equal_finite_differences),
        cmocka_unit_test(two_noise_passes_equal_finite_differences),
        cmocka_unit_test(synchronised_bn_equals_finite_differences),
        cmocka_unit_test(imagenet_stem_equals_finite_differences),
        cmocka_unit_test(image_gradient_equals_finite_differences),
        cmocka_unit_test(cpu_agrees_with_ref_over_ten_steps),
        cmocka_unit_test(other_thread_counts_agree_over_ten_steps),
        cmocka_unit_test(other_thread_counts_give_the_same_first_gradient),
        cmocka_unit_test(same_step_twice_is_bitwise_equal),
        cmocka_unit_test(update_divides_each_set_by_its_weighted_count),
        cmocka_unit_test(failed_step_leaves_everything_as_it_was),
        cmocka_unit_test(gradient_that_is_not_finite_is_refused),
        cmocka_unit_test(synchronised_lanes_equal_one_big_lane),
        cmocka_unit_test(clean_images_move_main_and_attacked_images_aux_only),
        cmocka_unit_test(wrong_branch_is_caught),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
