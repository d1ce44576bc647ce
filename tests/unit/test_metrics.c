/* What the coordinator makes of step reports: the share of time spent waiting for data. */
#include "daemon/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

static int report(struct apd_metrics *metrics, uint64_t step, double step_ms, double wait_ms)
{
    Advprop__V1__StepReport told = ADVPROP__V1__STEP_REPORT__INIT;

    told.step = step;
    told.step_ms = step_ms;
    told.data_wait_ms = wait_ms;
    return apd_metrics_step(metrics, 1000 * step, &told);
}

static void assert_share(struct apd_metrics *metrics, double expected)
{
    double found = apd_metrics_take_wait_share(metrics);

    if (fabs(found - expected) > 1e-12)
        fail_msg("share %g, expected %g", found, expected);
}

/* Of the time, so long steps count for more than short ones. */
static void wait_share_is_of_the_time_since_it_was_taken(void **state)
{
    struct apd_metrics metrics;

    (void)state;
    apd_metrics_init(&metrics);
    assert_share(&metrics, 0);
    assert_true(report(&metrics, 1, 100, 100));
    assert_true(report(&metrics, 2, 900, 0));
    assert_share(&metrics, 0.1);
    assert_share(&metrics, 0);
    assert_true(report(&metrics, 3, 400, 100));
    assert_share(&metrics, 0.25);
}

static void report_that_comes_again_does_not_count(void **state)
{
    struct apd_metrics metrics;

    (void)state;
    apd_metrics_init(&metrics);
    assert_true(report(&metrics, 7, 100, 50));
    assert_false(report(&metrics, 7, 100, 100));
    assert_false(report(&metrics, 6, 100, 100));
    assert_share(&metrics, 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wait_share_is_of_the_time_since_it_was_taken),
        cmocka_unit_test(report_that_comes_again_does_not_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
