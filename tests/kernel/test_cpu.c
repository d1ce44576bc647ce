/* Every operation of the CPU backend against the reference.
 * usage: test_cpu ISA THREADS ALGO; exit 77: this machine lacks the instruction set. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *algo;

static const struct {
    struct apd_conv_shape shape;
    int n;
} convs[] = {
    /* in, out_c, kernel, stride, pad, groups, image */
    {{{1, 9, 7}, 16, 3, 1, 1, 1, 1}, 3},     {{{3, 9, 7}, 16, 3, 1, 1, 1, 1}, 3},
    {{{5, 9, 7}, 17, 3, 1, 1, 1, 1}, 3},     {{{3, 17, 15}, 33, 7, 2, 3, 1, 1}, 3},
    {{{1, 11, 13}, 5, 7, 2, 3, 1, 1}, 1},    {{{1, 5, 5}, 1, 3, 1, 1, 1, 0}, 3},
    {{{3, 5, 7}, 5, 3, 2, 1, 1, 0}, 3},      {{{5, 7, 5}, 1, 3, 2, 1, 1, 0}, 3},
    {{{16, 7, 9}, 16, 3, 1, 1, 1, 0}, 5},    {{{17, 9, 7}, 33, 3, 1, 1, 1, 0}, 3},
    {{{33, 7, 7}, 17, 3, 2, 1, 1, 0}, 3},    {{{16, 7, 7}, 33, 1, 1, 0, 1, 0}, 3},
    {{{33, 7, 5}, 16, 1, 2, 0, 1, 0}, 3},    {{{17, 8, 8}, 5, 7, 1, 3, 1, 0}, 1},
    {{{6, 7, 7}, 10, 3, 1, 1, 2, 0}, 3},     {{{32, 7, 7}, 32, 3, 1, 1, 2, 0}, 3},
    {{{128, 5, 5}, 128, 3, 1, 1, 32, 0}, 3}, {{{128, 7, 7}, 128, 3, 2, 1, 32, 0}, 1},
    {{{256, 7, 5}, 256, 3, 1, 1, 32, 0}, 3}, {{{256, 5, 9}, 256, 3, 2, 1, 32, 0}, 2},
    {{{64, 5, 7}, 64, 3, 1, 1, 32, 0}, 3},   {{{64, 9, 7}, 64, 3, 2, 1, 32, 0}, 1},
    {{{32, 7, 9}, 32, 3, 1, 1, 32, 0}, 3},   {{{32, 7, 5}, 32, 3, 2, 1, 32, 0}, 2},
    {{{512, 3, 3}, 512, 3, 1, 1, 32, 0}, 2}, {{{96, 7, 5}, 96, 3, 2, 1, 32, 0}, 3},
    {{{17, 7, 7}, 17, 3, 1, 1, 17, 0}, 3},   {{{32, 12, 12}, 48, 3, 1, 1, 1, 0}, 8},
};

static void convolutions_match_reference(void **state)
{
    double tolerance = strcmp(algo, "direct") == 0 ? 1e-5 : 1e-4;

    (void)state;
    for (size_t i = 0; i < sizeof convs / sizeof *convs; i++) {
        const struct apd_conv_shape *s = &convs[i].shape;

        if (check_conv(s, convs[i].n, tolerance) != 0)
            fail_msg("%dx%dx%d -> %d, kernel %d, stride %d, groups %d, image %d, n %d", s->in.c,
                     s->in.h, s->in.w, s->out_c, s->kernel, s->stride, s->groups, s->input_is_image,
                     convs[i].n);
    }
}

static void random_convolutions_match_reference(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        int kernel = 1 + 2 * (int)random_below(3);
        struct apd_conv_shape s = {
            .in = {1 + (int)random_below(40), kernel + (int)random_below(12),
                   kernel + (int)random_below(12)},
            .out_c = 1 + (int)random_below(40),
            .kernel = kernel,
            .stride = 1 + (int)random_below(2),
            .pad = kernel / 2,
            .groups = 1,
            .input_is_image = random_below(4) == 0,
        };
        int n = 1 + (int)random_below(5);

        if (check_conv(&s, n, 1e-4) != 0)
            fail_msg("%dx%dx%d -> %d, kernel %d, stride %d, image %d, n %d", s.in.c, s.in.h, s.in.w,
                     s.out_c, s.kernel, s.stride, s.input_is_image, n);
    }
}

static const struct apd_shape shapes[] = {{1, 3, 3},  {1, 5, 7},  {3, 7, 5},    {5, 3, 3},
                                          {16, 7, 7}, {17, 9, 5}, {33, 13, 11}, {16, 37, 35}};

static void batch_norm_matches_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int n = 3; n <= 7; n += 4) {
            struct segments lists[4];

            for (int k = segment_lists(n, lists) - 1; k >= 0; k--)
                for (int in_place = 0; in_place < 2; in_place++)
                    if (check_bn(shapes[i], n, &lists[k], in_place) != 0)
                        fail_msg("%dx%dx%d, n %d, segments %d", shapes[i].c, shapes[i].h,
                                 shapes[i].w, n, k);
        }
}

static void pools_match_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (check_maxpool(shapes[i], 3) + check_avgpool(shapes[i], 3) != 0)
            fail_msg("%dx%dx%d", shapes[i].c, shapes[i].h, shapes[i].w);
    assert_int_equal(check_maxpool((struct apd_shape){3, 8, 6}, 1), 0);
}

static void classifier_matches_reference(void **state)
{
    (void)state;
    assert_int_equal(check_linear(1, 1, 2), 0);
    assert_int_equal(check_linear(5, 33, 10), 0);
    assert_int_equal(check_linear(7, 129, 101), 0);
}

static void loss_matches_reference(void **state)
{
    (void)state;
    for (int mixed = 0; mixed < 2; mixed++)
        for (int smooth = 0; smooth < 2; smooth++) {
            assert_int_equal(check_softmax(7, 2, mixed, smooth * 0.1), 0);
            assert_int_equal(check_softmax(7, 10, mixed, smooth * 0.1), 0);
            assert_int_equal(check_softmax(41, 301, mixed, smooth * 0.1), 0);
        }
}

static void images_match_reference(void **state)
{
    (void)state;
    assert_int_equal(check_images(1, 1), 0);
    assert_int_equal(check_images(5, 3 * 7 * 5), 0);
    assert_int_equal(check_images(16, 3 * 33 * 31), 0);
    assert_int_equal(check_mix(1, (struct apd_shape){1, 1, 1}), 0);
    assert_int_equal(check_mix(5, (struct apd_shape){3, 7, 5}), 0);
    assert_int_equal(check_mix(16, (struct apd_shape){3, 33, 31}), 0);
}

static void flat_arrays_match_reference(void **state)
{
    (void)state;
    assert_int_equal(check_flat(1), 0);
    assert_int_equal(check_flat(37), 0);
    assert_int_equal(check_flat(100001), 0);
}

static void a_wrong_operation_is_caught(void **state)
{
    (void)state;
    assert_true(check_wrong_bn() > 0);
    release();
}

/* The variance from bn_sums against two passes in double over the same floats. */
static double worst_variance_error(struct apd_shape shape, int n, const float *values)
{
    size_t plane = (size_t)shape.h * (size_t)shape.w, stride = channels(TESTED, shape.c);
    double count = (double)n * (double)plane, worst = 0;
    struct apd_segment seg = {0, n, APD_BN_MAIN};
    struct both x = make_activation(shape, n, values);
    struct both sums = make_bytes(2 * stride * sizeof(double));
    const double *found = sums.at[TESTED];

    OK(backend[TESTED]->ops->bn_sums(backend[TESTED], shape, &seg, 1, x.at[TESTED], sums.at[TESTED],
                                     2 * stride, &err));
    for (int c = 0; c < shape.c; c++) {
        double mean = 0, variance = 0, m = found[c] / count, error;

        for (int pass = 0; pass < 2; pass++)
            for (int i = 0; i < n; i++)
                for (size_t p = 0; p < plane; p++) {
                    double v = values[((size_t)i * (size_t)shape.c + (size_t)c) * plane + p];

                    if (pass == 0)
                        mean += v / count;
                    else
                        variance += (v - mean) * (v - mean) / count;
                }
        error = (found[stride + (size_t)c] / count - m * m) / variance - 1;
        worst = error > worst ? error : -error > worst ? -error : worst;
    }
    return worst;
}

static void bn_sums_stand_a_mean_of_100_deviations(void **state)
{
    struct apd_shape shape = {17, 33, 31};
    size_t elems = 5 * apd_shape_elems(shape), plane = 33 * 31;
    float *values = random_floats(elems);

    (void)state;
    for (size_t i = 0; i < elems; i++)
        values[i] = 58 + values[i]; /* the deviation of U(-1, 1) is 0.577 */
    assert_true(worst_variance_error(shape, 5, values) < 1e-5);
    for (size_t i = 0; i < elems; i += plane)
        values[i] = 0; /* the first pixel is far away */
    assert_true(worst_variance_error(shape, 5, values) < 1e-5);
    release();
}

/* Bytes of the tested backend's array. */
static void expect_same(const char *what, const void *a, const void *b, size_t bytes)
{
    if (memcmp(a, b, bytes) != 0)
        fail_msg("%s: two runs differ", what);
}

static void the_same_call_twice_gives_the_same_bits(void **state)
{
    struct apd_backend *be = backend[TESTED];
    struct apd_conv_shape shape = {{48, 14, 14}, 32, 3, 1, 1, 1, 0};
    struct apd_shape out = apd_conv_out(&shape);
    const int n = 9;
    struct apd_segment seg[] = {{0, 6, APD_BN_MAIN}, {6, 3, APD_BN_AUX}};
    struct both src = make_activation(shape.in, n, random_floats(n * apd_shape_elems(shape.in)));
    struct both d_dst = make_activation(out, n, random_floats(n * apd_shape_elems(out)));
    struct both dst[2] = {make_result(out, n), make_result(out, n)};
    struct both d_src[2] = {make_result(shape.in, n), make_result(shape.in, n)};
    struct both sums[2] = {make_bytes(128 * sizeof(double)), make_bytes(128 * sizeof(double))};
    struct apd_conv *conv = NULL;
    size_t weights;
    struct both w, d_w[2];

    (void)state;
    OK(be->ops->conv_create(be, &shape, &conv, &err));
    weights = be->ops->conv_weight_elems(conv);
    w = make_plain(weights, random_floats(weights));
    for (int run = 0; run < 2; run++) {
        void *dw;

        d_w[run] = make_bytes(weights * sizeof(float));
        dw = d_w[run].at[TESTED];
        OK(be->ops->conv_forward(be, conv, n, src.at[TESTED], w.at[TESTED], dst[run].at[TESTED],
                                 &err));
        OK(be->ops->conv_backward_data(be, conv, n, d_dst.at[TESTED], w.at[TESTED],
                                       d_src[run].at[TESTED], &err));
        OK(be->ops->conv_backward_weights(be, conv, n, src.at[TESTED], d_dst.at[TESTED], dw, &err));
        OK(be->ops->bn_sums(be, out, seg, 2, dst[run].at[TESTED], sums[run].at[TESTED],
                            2 * channels(TESTED, out.c), &err));
    }
    expect_same("conv_forward", dst[0].at[TESTED], dst[1].at[TESTED],
                n * be->ops->image_elems(be, out) * sizeof(float));
    expect_same("conv_backward_data", d_src[0].at[TESTED], d_src[1].at[TESTED],
                n * be->ops->image_elems(be, shape.in) * sizeof(float));
    expect_same("conv_backward_weights", d_w[0].at[TESTED], d_w[1].at[TESTED],
                weights * sizeof(float));
    expect_same("bn_sums", sums[0].at[TESTED], sums[1].at[TESTED], 128 * sizeof(double));
    be->ops->conv_destroy(be, &conv);
    release();
}

static void another_isa_in_the_same_process_is_refused(void **state)
{
    int is_baseline = strcmp((const char *)*state, "baseline") == 0;
    struct apd_cpu_options other = {1, is_baseline ? "avx2" : "baseline", "auto"};
    struct apd_backend *be = NULL;
    struct apd_err err = {0};

    assert_int_equal(apd_backend_cpu(&other, &be, &err), APD_CONFIG);
    assert_null(be);
}

static void unknown_options_are_refused(void **state)
{
    struct apd_cpu_options isa = {1, "avx1024", "auto"}, conv = {1, "auto", "fft"};
    struct apd_backend *be = NULL;
    struct apd_err err = {0};
    enum apd_code rc;

    (void)state;
    rc = apd_backend_cpu(&isa, &be, &err);
    assert_int_equal(rc, APD_CONFIG);
    rc = apd_backend_cpu(&conv, &be, &err);
    assert_int_equal(rc, APD_CONFIG);
}

int main(int argc, char **argv)
{
    const char *isa = argc > 1 ? argv[1] : "auto";
    struct apd_cpu_options options = {
        .threads = argc > 2 ? atoi(argv[2]) : 1,
        .isa = isa,
        .conv_algo = algo = argc > 3 ? argv[3] : "auto",
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_match_reference),
        cmocka_unit_test(random_convolutions_match_reference),
        cmocka_unit_test(batch_norm_matches_reference),
        cmocka_unit_test(pools_match_reference),
        cmocka_unit_test(classifier_matches_reference),
        cmocka_unit_test(loss_matches_reference),
        cmocka_unit_test(images_match_reference),
        cmocka_unit_test(flat_arrays_match_reference),
        cmocka_unit_test(a_wrong_operation_is_caught),
        cmocka_unit_test(bn_sums_stand_a_mean_of_100_deviations),
        cmocka_unit_test(the_same_call_twice_gives_the_same_bits),
        cmocka_unit_test_prestate(another_isa_in_the_same_process_is_refused,
                                  (void *)(uintptr_t)isa),
        cmocka_unit_test(unknown_options_are_refused),
    };
    struct apd_err err = {0};
    int failed;

    if (apd_backend_cpu(&options, &backend[TESTED], &err) != APD_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return err.code == APD_CONFIG ? 77 : 1;
    }
    if (apd_backend_ref(&backend[REF], &err) != APD_OK)
        return 1;
    seed_from_environment();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int b = 0; b < BOTH; b++)
        backend[b]->ops->destroy(backend[b]);
    return failed;
}
