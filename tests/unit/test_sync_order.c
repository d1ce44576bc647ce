/* bn.sync full: what is sent, and what is done while it travels. In traces: S a sum leaves, W it is
 * waited for, a and m a batch norm of auxiliary or main images alone. */
#include "tests/support/stepper.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

static char trace[4096];
static size_t events;
static const struct apd_backend_ops *backend_ops;
static const struct apd_comm_ops *comm_ops;

static void note(char event)
{
    assert_true(events + 1 < sizeof trace);
    trace[events++] = event;
}

static void note_images(const struct apd_bn *bn)
{
    int images[APD_BN_SETS] = {0};

    for (int s = 0; s < bn->segments; s++)
        images[bn->seg[s].set] += bn->seg[s].count;
    if (images[APD_BN_MAIN] == 0)
        note('a');
    if (images[APD_BN_AUX] == 0)
        note('m');
}

static enum apd_code noting_forward(struct apd_backend *be, const struct apd_bn *bn,
                                    const struct apd_bn *other, const void *add, int relu, void *y,
                                    uint8_t *mask, struct apd_err *err)
{
    note_images(bn);
    return backend_ops->bn_forward(be, bn, other, add, relu, y, mask, err);
}

static enum apd_code noting_backward(struct apd_backend *be, const struct apd_bn *bn,
                                     const struct apd_bn *other, const void *d_g,
                                     const double *d_sums, const double *d_sums_other,
                                     const double *count, int batch_stats, void *d_x,
                                     void *d_x_other, struct apd_err *err)
{
    note_images(bn);
    return backend_ops->bn_backward_data(be, bn, other, d_g, d_sums, d_sums_other, count,
                                         batch_stats, d_x, d_x_other, err);
}

static enum apd_code noting_start(struct apd_comm *comm, void *buf, size_t n,
                                  enum apd_sum_type type, struct apd_err *err)
{
    if (type == APD_SUM_F64)
        note('S');
    return comm_ops->sum_start(comm, buf, n, type, err);
}

static enum apd_code noting_wait(struct apd_comm *comm, struct apd_err *err)
{
    note('W');
    return comm_ops->sum_wait(comm, err);
}

/* A step's train pass: the noise pass knows no main images, so its batch norms are all 'a'. */
static void sums_travel_together_while_auxiliary_images_are_dealt_with(void **state)
{
    enum { CONVOLUTIONS = 20, PROJECTIONS = 3 };
    const struct stepper_shape shape = {"resnet18", 4, 1, 8, 2, 4, 1};
    const struct apd_backend_ops *ops;
    struct apd_backend_ops noting_ops;
    struct apd_comm_ops noting_comm;
    struct apd_config config;
    struct stepper stepper;
    const char *at;
    int exchanges = 0;

    (void)state;
    stepper_config(&config, &shape);
    config.bn.sync = APD_BN_SYNC_FULL;
    stepper_init(&stepper, stepper_cpu(1), &config, &shape);
    ops = backend_ops = stepper.be->ops;
    noting_ops = *ops;
    noting_ops.bn_forward = noting_forward;
    noting_ops.bn_backward_data = noting_backward;
    comm_ops = stepper.comm->ops;
    noting_comm = *comm_ops;
    noting_comm.sum_start = noting_start;
    noting_comm.sum_wait = noting_wait;
    stepper.be->ops = &noting_ops;
    stepper.comm->ops = &noting_comm;
    stepper_run(&stepper, 0, 0.1, NULL);
    stepper.be->ops = ops;
    stepper.comm->ops = comm_ops;

    for (at = strchr(trace, 'S'); at != NULL && strncmp(at, "SaWm", 4) == 0; at += 4)
        exchanges++;
    assert_int_equal(exchanges, 2 * (CONVOLUTIONS - PROJECTIONS));
    /* What is left is the gradient and the commit. */
    assert_non_null(at);
    assert_null(strpbrk(at, "am"));
    stepper_fini(&stepper);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_travel_together_while_auxiliary_images_are_dealt_with),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
