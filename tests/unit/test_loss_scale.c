#include "worker/loss_scale.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void overflow_halves_and_one_is_the_least(void **state)
{
    struct apd_loss_scale scale = {.factor = 4, .good_steps = 7};

    (void)state;
    assert_int_equal(apd_loss_scale_update(&scale, 0), 1);
    assert_int_equal(scale.factor, 2);
    assert_int_equal(scale.good_steps, 0);
    assert_int_equal(apd_loss_scale_update(&scale, 0), 1);
    assert_int_equal(scale.factor, 1);
    assert_int_equal(apd_loss_scale_update(&scale, 0), 0);
}

static void good_steps_double_up_to_the_most(void **state)
{
    struct apd_loss_scale scale = {.factor = APD_LOSS_SCALE_MOST / 2};

    (void)state;
    for (int i = 1; i < APD_LOSS_SCALE_GROWTH; i++)
        assert_int_equal(apd_loss_scale_update(&scale, 1), 1);
    assert_int_equal(scale.factor, APD_LOSS_SCALE_MOST / 2);
    for (int i = 0; i < 2 * APD_LOSS_SCALE_GROWTH; i++)
        assert_int_equal(apd_loss_scale_update(&scale, 1), 1);
    assert_int_equal(scale.factor, APD_LOSS_SCALE_MOST);
}

static void without_a_factor_an_overflow_is_the_end(void **state)
{
    struct apd_loss_scale scale = {0};

    (void)state;
    assert_int_equal(apd_loss_scale_update(&scale, 1), 1);
    assert_true(apd_loss_scale_of(&scale) == 1);
    assert_int_equal(apd_loss_scale_update(&scale, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overflow_halves_and_one_is_the_least),
        cmocka_unit_test(good_steps_double_up_to_the_most),
        cmocka_unit_test(without_a_factor_an_overflow_is_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
