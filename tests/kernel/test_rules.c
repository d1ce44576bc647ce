/* What the table promises in words, on the float backends: noise streams, ranks of logits, weights
 * of zero, PyTorch's SGD, the order of segments. */
#include "base/rng.h"
#include "kernels/backend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct apd_backend *backends[2];

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct apd_err err = {0};                                                                  \
        if ((call) != APD_OK)                                                                      \
            fail_msg("%s: %s: %s", be->name, #call, err.msg);                                      \
    } while (0)

#define EACH_BACKEND                                                                               \
    for (struct apd_backend **each = backends, *be; each < backends + 2 && (be = *each); each++)

/* Known answers of Random123's kat_vectors for philox4x32-10. */
static void philox_gives_the_published_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        struct apd_philox got =
            apd_philox((uint64_t)kat[i].key[1] << 32 | kat[i].key[0], kat[i].counter);

        assert_memory_equal(got.v, kat[i].answer, sizeof got.v);
    }
}

static void noise_is_the_stream_of_the_sample(void **state)
{
    enum { N = 2, PIXELS = 2501 };
    static uint8_t bytes[N * PIXELS];
    static float x[N * PIXELS], noisy[N * PIXELS];
    static const uint64_t sample[N] = {7, 0x123456789ABCDull};
    static const uint32_t epoch[N] = {0, 0xABCDEF};
    struct apd_noise noise = {sample, epoch, 0xFEDCBA9876543210u, APD_RNG_NOISE, 2.0 / 255};

    (void)state;
    for (int i = 0; i < N * PIXELS; i++)
        bytes[i] = (uint8_t)(i * 37);
    EACH_BACKEND
    {
        OK(be->ops->input_pack(be, N, PIXELS, bytes, &noise, x, noisy, &err));
        for (int i = 0; i < N * PIXELS; i++) {
            int p = i % PIXELS, image = i / PIXELS;
            struct apd_philox block =
                apd_rng(noise.seed, APD_RNG_NOISE, epoch[image], sample[image], (uint32_t)(p / 4));
            float u = apd_uniform(block.v[p % 4]);
            float delta = (2 * u - 1) * (float)noise.range;
            float clean = (float)(bytes[i] / 127.5 - 1);

            assert_true(x[i] == clean);
            assert_true(noisy[i] == clean + delta);
        }
    }
}

static struct apd_loss loss_of_row(struct apd_backend *be, const float *z, int classes,
                                   int32_t label, float weight, float *d_z)
{
    static const struct apd_segment one = {0, 1, APD_BN_MAIN};
    struct apd_targets t = {.label = &label, .weight = &weight};
    double loss[APD_LOSS_DOUBLES];

    OK(be->ops->softmax_ce(be, 1, classes, z, &t, &one, 1, loss, d_z, &err));
    return apd_loss_from(loss);
}

static void equal_logits_rank_by_index(void **state)
{
    const float z[7] = {1, 2, 2, 2, 0, 2, 2};

    (void)state;
    EACH_BACKEND
    {
        assert_int_equal(loss_of_row(be, z, 7, 1, 1, NULL).top1, 1);
        assert_int_equal(loss_of_row(be, z, 7, 2, 1, NULL).top1, 0);
        assert_int_equal(loss_of_row(be, z, 7, 6, 1, NULL).top5, 1);
        assert_int_equal(loss_of_row(be, z, 7, 0, 1, NULL).top5, 0);
    }
}

static void nan_is_never_right(void **state)
{
    const float all[3] = {NAN, NAN, NAN}, label[3] = {NAN, 1, 0};

    (void)state;
    EACH_BACKEND
    {
        assert_int_equal(loss_of_row(be, all, 3, 0, 1, NULL).top1, 0);
        assert_int_equal(loss_of_row(be, all, 3, 0, 1, NULL).top5, 0);
        assert_int_equal(loss_of_row(be, label, 3, 0, 1, NULL).top5, 0);
        assert_true(isnan(loss_of_row(be, label, 3, 1, 1, NULL).ce_sum));
    }
}

static void weight_zero_leaves_an_image_out(void **state)
{
    const float z[3] = {NAN, INFINITY, 3};

    (void)state;
    EACH_BACKEND
    {
        float d_z[3] = {1, 1, 1};
        struct apd_loss loss = loss_of_row(be, z, 3, -1, 0, d_z);

        assert_true(loss.ce_sum == 0 && loss.images == 0 && loss.top1 == 0 && loss.top5 == 0);
        for (int k = 0; k < 3; k++)
            assert_true(d_z[k] == 0);
    }
}

static void large_logits_do_not_overflow(void **state)
{
    const float z[3] = {1000, 0, -1000};

    (void)state;
    EACH_BACKEND
    {
        float d_z[3];

        assert_true(loss_of_row(be, z, 3, 0, 1, d_z).ce_sum == 0);
        assert_true(d_z[0] == 0 && d_z[1] == 0 && d_z[2] == 0);
        assert_true(loss_of_row(be, z, 3, 2, 0.5f, d_z).ce_sum == 2000);
        assert_true(d_z[0] == 0.5f && d_z[2] == -0.5f);
    }
}

/* torch.optim.SGD with the gradient already scaled. */
static void sgd_follows_the_formula(void **state)
{
    (void)state;
    for (int nesterov = 0; nesterov < 2; nesterov++)
        EACH_BACKEND
        {
            struct apd_sgd sgd = {0.25, 0.1, 0.9, 0.01, nesterov};
            float d_w = 2, w = 3, m = 0.5f;
            double g, velocity = m, weight = w;

            for (int step = 0; step < 3; step++) {
                OK(be->ops->sgd(be, 1, &sgd, &d_w, &w, &m, &err));
                g = 0.25 * 2 + 0.01 * weight;
                velocity = 0.9 * velocity + g;
                weight -= 0.1 * (nesterov ? g + 0.9 * velocity : velocity);
            }
            assert_true(fabs(w - weight) < 1e-6 && fabs(m - velocity) < 1e-6);
        }
}

static void the_attack_stays_in_the_ball_and_in_the_image(void **state)
{
    const float x[5] = {0, 0.99f, -0.99f, 0.5f, 0.5f}, d[5] = {1, 2, -3, 0, NAN};
    const float at[5] = {0.015f, 0.99f, -0.99f, 0.51f, 0.5f};
    const float expected[5] = {0.02f, 1, -1, 0.51f, 0.5f};

    (void)state;
    EACH_BACKEND
    {
        float next[5];

        OK(be->ops->attack_step(be, 1, 5, x, at, d, 0.02, 0.02, NULL, next, &err));
        for (int i = 0; i < 5; i++)
            assert_true(next[i] == expected[i]);
    }
}

static void nan_passes_through_relu_and_max_pool(void **state)
{
    const struct apd_shape shape = {1, 3, 3};
    const struct apd_segment seg = {0, 1, APD_BN_MAIN};
    const float values[9] = {1, 2, 3, NAN, 4, 5, 6, 7, 8};

    (void)state;
    EACH_BACKEND
    {
        size_t c = be->ops->channel_elems(be, 1), elems = be->ops->image_elems(be, shape);
        float out[9], *mem = NULL;
        void *which = NULL, *device = NULL;
        struct apd_bn bn = {.shape = shape, .seg = &seg, .segments = 1};

        OK(be->ops->alloc(be, 2 * elems * sizeof *mem, &device, &err));
        OK(be->ops->alloc(be, elems, &which, &err));
        mem = device;
        OK(be->ops->activation_import(be, shape, 1, values, mem, &err));
        OK(be->ops->maxpool_forward(be, shape, 1, mem, mem + elems, which, &err));
        OK(be->ops->activation_export(be, (struct apd_shape){1, 2, 2}, 1, mem + elems, out, &err));
        assert_true(isnan(out[0]) && out[1] == 5 && isnan(out[2]) && out[3] == 8);

        OK(be->ops->alloc(be, 4 * c * sizeof *mem, &device, &err));
        bn.x = mem;
        bn.moments = device;
        bn.gamma[0] = bn.gamma[1] = (float *)device + 2 * c;
        bn.beta[0] = bn.beta[1] = (float *)device + 3 * c;
        OK(be->ops->bn_forward(be, &bn, NULL, NULL, 1, mem + elems, NULL, &err));
        OK(be->ops->activation_export(be, shape, 1, mem + elems, out, &err));
        assert_true(isnan(out[3]) && out[0] == 0);
        be->ops->free(be, mem);
        be->ops->free(be, which);
        be->ops->free(be, device);
    }
}

static void running_statistics_use_the_unbiased_variance(void **state)
{
    (void)state;
    EACH_BACKEND
    {
        size_t c = be->ops->channel_elems(be, 1);
        double *sums = calloc(2 * c, sizeof *sums);
        float *running = calloc(2 * c, sizeof *running);

        assert_true(sums != NULL && running != NULL);
        sums[0] = 4 * 3.0; /* 4 values: 2 2 4 4: mean 3, biased variance 1 */
        sums[c] = 4 + 4 + 16 + 16;
        running[c] = 1;
        OK(be->ops->bn_update_running(be, 1, sums, 4, 0.1, running, running + c, &err));
        assert_true(fabsf(running[0] - 0.3f) < 1e-6f);
        assert_true(fabs(running[c] - (0.9 + 0.1 * 4 / 3)) < 1e-6);
        OK(be->ops->bn_update_running(be, 1, sums, 0, 0.1, running, running + c, &err));
        OK(be->ops->bn_update_running(be, 1, sums, 1, 0, running, running + c, &err));
        assert_true(fabsf(running[0] - 0.3f) < 1e-6f);
        assert_true(fabs(running[c] - (0.9 + 0.1 * 4 / 3)) < 1e-6);
        free(sums);
        free(running);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(noise_is_the_stream_of_the_sample),
        cmocka_unit_test(equal_logits_rank_by_index),
        cmocka_unit_test(nan_is_never_right),
        cmocka_unit_test(weight_zero_leaves_an_image_out),
        cmocka_unit_test(large_logits_do_not_overflow),
        cmocka_unit_test(sgd_follows_the_formula),
        cmocka_unit_test(the_attack_stays_in_the_ball_and_in_the_image),
        cmocka_unit_test(nan_passes_through_relu_and_max_pool),
        cmocka_unit_test(running_statistics_use_the_unbiased_variance),
    };
    struct apd_cpu_options options = {2, "auto", "auto"};
    struct apd_err err = {0};
    int failed;

    if (apd_backend_ref(&backends[0], &err) != APD_OK ||
        apd_backend_cpu(&options, &backends[1], &err) != APD_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int b = 0; b < 2; b++)
        backends[b]->ops->destroy(backends[b]);
    return failed;
}
