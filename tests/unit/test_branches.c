/* Clean images and attacked images stay in their own batch norm, and a wrong branch is noticed. */
#include "tests/support/stepper.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

    stepper_config(&config, &stepper_tiny);
    stepper_init(&stepper, be, &config, &stepper_tiny);
    for (size_t r = 0; r < stepper.rows && change != CHANGE_NOTHING; r++) {
        int is_clean =
            (int)(r % (size_t)(stepper_tiny.clean + stepper_tiny.aux)) < stepper_tiny.clean;

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
    assert_true(branches_are_apart(stepper_ref));
}

/* Backends with one deliberate mistake each: the ref table with one function replaced. */
static struct apd_backend_ops wrong_ops;
static const struct apd_backend_ops *right_ops;

static enum apd_code sums_over_both_branches(struct apd_backend *be, struct apd_shape shape,
                                             const struct apd_segment *seg, int segments,
                                             const void *x, double *sums, size_t stride,
                                             struct apd_err *err)
{
    struct apd_segment merged[2];

    if (segments != 2)
        return right_ops->bn_sums(be, shape, seg, segments, x, sums, stride, err);
    /* The main segment takes in the first attacked image. */
    memcpy(merged, seg, sizeof merged);
    merged[0].count++;
    merged[1].first++;
    merged[1].count--;
    return right_ops->bn_sums(be, shape, merged, 2, x, sums, stride, err);
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
    struct apd_backend *be = stepper_ref();

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
        cmocka_unit_test(clean_images_move_main_and_attacked_images_aux_only),
        cmocka_unit_test(wrong_branch_is_caught),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
