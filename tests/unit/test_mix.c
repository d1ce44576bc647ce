/* The draws of mixup and CutMix, and mixing's way back. */
#include "kernels/backend.h"
#include "worker/mix.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

static const struct apd_shape shape = {3, 9, 14};

static void partners_are_a_permutation_of_each_pass(void **state)
{
    int32_t partner[37], inverse[37], other[37];
    struct apd_mix mix;
    int same = 0;

    (void)state;
    for (uint32_t pass = 0; pass < 5; pass++) {
        struct apd_mix_place place = {7, 123456789012, 3, pass}, next = {7, 123456789012, 4, pass};

        apd_mix_draw(APD_MIX_MIXUP, 1, &place, 37, shape, partner, &mix);
        apd_mix_invert(partner, 37, inverse);
        for (int i = 0; i < 37; i++)
            assert_int_equal(inverse[partner[i]], i);
        apd_mix_draw(APD_MIX_MIXUP, 1, &next, 37, shape, other, &mix);
        for (int i = 0; i < 37; i++)
            same += partner[i] == other[i];
    }
    assert_true(same < 37); /* of 5 * 37: other lanes have other partners */
}

/* Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)). */
static void shares_are_distributed_as_beta(void **state)
{
    static const double alphas[] = {0.01, 0.2, 1, 4};
    enum { DRAWS = 20000 };

    (void)state;
    for (int i = 0; i < 4; i++) {
        double sum = 0, squares = 0, variance = 1 / (4 * (2 * alphas[i] + 1)), mean;

        for (uint64_t step = 0; step < DRAWS; step++) {
            struct apd_mix_place place = {1, step, 0, APD_MIX_CLEAN};
            int32_t partner;
            struct apd_mix mix;

            apd_mix_draw(APD_MIX_MIXUP, alphas[i], &place, 1, shape, &partner, &mix);
            assert_true(mix.share >= 0 && mix.share <= 1 && !mix.is_box);
            sum += mix.share;
            squares += (mix.share - 0.5) * (mix.share - 0.5);
        }
        mean = sum / DRAWS;
        assert_true(fabs(mean - 0.5) < 5 * sqrt(variance / DRAWS));
        assert_true(fabs(squares / DRAWS - variance) < 0.05 * variance);
    }
}

static void share_of_a_box_is_its_area(void **state)
{
    double sum = 0;
    enum { DRAWS = 2000 };

    (void)state;
    for (uint64_t step = 0; step < DRAWS; step++) {
        struct apd_mix_place place = {1, step, 0, APD_MIX_ADV};
        int32_t partner[4];
        struct apd_mix mix;

        apd_mix_draw(APD_MIX_CUTMIX, 1, &place, 4, shape, partner, &mix);
        assert_true(mix.is_box);
        assert_true(0 <= mix.top && mix.top <= mix.bottom && mix.bottom <= shape.h);
        assert_true(0 <= mix.left && mix.left <= mix.right && mix.right <= shape.w);
        assert_true(fabs(mix.share - (mix.bottom - mix.top) * (mix.right - mix.left) /
                                         ((double)shape.h * shape.w)) < 1e-12);
        sum += mix.share;
    }
    assert_true(sum / DRAWS > 0.1 && sum / DRAWS < 0.5); /* less than half: boxes are cut off */
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* <mix(x), d> = <x, mix with the inverse(d)> for all x, d: that is what a backward pass is. */
static void mixing_by_the_inverse_is_the_backward_pass(void **state)
{
    enum { N = 5 };
    size_t elems = N * (size_t)(shape.c * shape.h * shape.w);
    double *x = malloc(elems * 8), *d = malloc(elems * 8), *y = malloc(elems * 8),
           *d_x = malloc(elems * 8);
    struct apd_backend *be = NULL;
    struct apd_err err = {0};

    (void)state;
    assert_int_equal(apd_backend_ref64(&be, &err), APD_OK);
    for (size_t i = 0; i < elems; i++) {
        x[i] = sin((double)i);
        d[i] = cos(3 * (double)i);
    }
    for (int kind = APD_MIX_MIXUP; kind <= APD_MIX_CUTMIX; kind++) {
        struct apd_mix_place place = {5, 1, 2, APD_MIX_NOISE_0};
        int32_t partner[N], inverse[N];
        struct apd_mix mix;

        apd_mix_draw(kind, 1, &place, N, shape, partner, &mix);
        assert_true(mix.share > 0.05);
        assert_int_equal(be->ops->mix_images(be, N, shape, x, &mix, y, &err), APD_OK);
        apd_mix_invert(partner, N, inverse);
        mix.partner = inverse;
        assert_int_equal(be->ops->mix_images(be, N, shape, d, &mix, d_x, &err), APD_OK);
        assert_true(fabs(dot(y, d, elems) - dot(x, d_x, elems)) < 1e-9);
        assert_true(fabs(dot(y, d, elems) - dot(x, d, elems)) > 1e-3);
    }
    be->ops->destroy(be);
    free(x);
    free(d);
    free(y);
    free(d_x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(partners_are_a_permutation_of_each_pass),
        cmocka_unit_test(shares_are_distributed_as_beta),
        cmocka_unit_test(share_of_a_box_is_its_area),
        cmocka_unit_test(mixing_by_the_inverse_is_the_backward_pass),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
