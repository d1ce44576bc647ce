#include "check.h"

#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HELD 256

static void *held[MAX_HELD];
static int holds;
static uint64_t seed, trace;
static uint32_t drawn;

void *memory(size_t bytes)
{
    void *p = NULL;

    assert_int_equal(posix_memalign(&p, 16, bytes), 0);
    assert_true(holds < MAX_HELD);
    held[holds++] = p;
    memset(p, 0, bytes);
    return p;
}

void release(void)
{
    while (holds > 0)
        free(held[--holds]);
}

uint32_t random_word(void)
{
    return apd_rng(seed, APD_RNG_INIT, 0, 0, drawn++).v[0];
}

double random_unit(void)
{
    return 2 * (double)apd_uniform(random_word()) - 1;
}

float *floats(size_t n)
{
    return memory(n * sizeof(float));
}

double *doubles(size_t n)
{
    return memory(n * sizeof(double));
}

float *random_floats(size_t n)
{
    float *p = floats(n);

    for (size_t i = 0; i < n; i++)
        p[i] = (float)random_unit();
    return p;
}

/* ---- elements ---- */

size_t elem_bytes(enum apd_cuda_type type)
{
    return type == APD_CUDA_F32 ? 4 : 2;
}

double get(enum apd_cuda_type type, const void *p, size_t i)
{
    uint32_t bits;
    float v;

    if (type == APD_CUDA_F32)
        return ((const float *)p)[i];
    if (type == APD_CUDA_F16)
        return ((const _Float16 *)p)[i];
    bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    memcpy(&v, &bits, sizeof v);
    return v;
}

void put(enum apd_cuda_type type, void *p, size_t i, double v)
{
    float narrow = (float)v;
    uint32_t bits;

    if (type == APD_CUDA_F32) {
        ((float *)p)[i] = narrow;
        return;
    }
    if (type == APD_CUDA_F16) {
        ((_Float16 *)p)[i] = (_Float16)narrow;
        return;
    }
    memcpy(&bits, &narrow, sizeof bits);
    bits = isnan(narrow) ? 0x7FC00000u : bits + 0x7FFF + (bits >> 16 & 1);
    ((uint16_t *)p)[i] = (uint16_t)(bits >> 16);
}

/* ---- activations ---- */

int rounded_up(int c)
{
    return (c + APD_CUDA_CHANNELS - 1) / APD_CUDA_CHANNELS * APD_CUDA_CHANNELS;
}

size_t place(struct apd_shape s, int image, int pixel, int c)
{
    return ((size_t)image * (size_t)(s.h * s.w) + (size_t)pixel) * (size_t)rounded_up(s.c) +
           (size_t)c;
}

size_t activation_elems(struct apd_shape s, int n)
{
    return place(s, n, 0, 0);
}

void *random_activation(enum apd_cuda_type type, struct apd_shape s, int n, double mean,
                        double deviation)
{
    void *p = memory(activation_elems(s, n) * elem_bytes(type));

    for (int i = 0; i < n * s.h * s.w; i++)
        for (int c = 0; c < s.c; c++)
            put(type, p, place(s, 0, i, c), mean + deviation * random_unit());
    return p;
}

void *garbage_activation(enum apd_cuda_type type, struct apd_shape s, int n)
{
    size_t bytes = activation_elems(s, n) * elem_bytes(type);
    void *p = memory(bytes);

    memset(p, 0xff, bytes);
    return p;
}

void expect_zero_padding(enum apd_cuda_type type, struct apd_shape s, int n, const void *p)
{
    for (int i = 0; i < n * s.h * s.w; i++)
        for (int c = s.c; c < rounded_up(s.c); c++)
            if (get(type, p, place(s, 0, i, c)) != 0)
                fail_msg("padding channel %d of pixel %d is %g", c, i,
                         get(type, p, place(s, 0, i, c)));
}

/* ---- comparisons ---- */

void expect_near(const char *what, double got, double want, double tolerance)
{
    if (isnan(want) ? isnan(got) : got == want || fabs(got - want) <= tolerance)
        return;
    fail_msg("%s: %.9g, wanted %.9g (+- %.3g)", what, got, want, tolerance);
}

void expect_elem(const char *what, enum apd_cuda_type type, double got, double want, double scale)
{
    /* half a unit in the last place, and half the smallest step */
    static const double unit[APD_CUDA_TYPES] = {0x1p-24, 0x1p-11, 0x1p-8};
    static const double step[APD_CUDA_TYPES] = {0x1p-150, 0x1p-25, 0x1p-134};

    expect_near(what, got, want, 1.001 * unit[type] * fabs(want) + step[type] + 4e-7 * scale);
}

void record(const void *p, size_t bytes)
{
    const uint8_t *at = p;

    for (size_t i = 0; i < bytes; i++)
        trace = (trace ^ at[i]) * UINT64_C(0x100000001b3);
}

void in_every_order(void (*check)(const void *argument), const void *argument)
{
    static const char *const orders[] = {"forward", "reverse", "random"};
    uint64_t first = 0;

    for (int o = 0; o < 3; o++) {
        assert_int_equal(setenv("EMU_ORDER", orders[o], 1), 0);
        drawn = 0;
        trace = UINT64_C(0xcbf29ce484222325);
        check(argument);
        release();
        if (o == 0)
            first = trace;
        else if (trace != first)
            fail_msg("order %s: other bits than forward", orders[o]);
    }
}

int few(void)
{
    const char *asked = getenv("APD_TEST_FEW");

    return asked != NULL && asked[0] == '1';
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bn),
        cmocka_unit_test(test_bn_variance),
        cmocka_unit_test(test_bn_constant),
        cmocka_unit_test(test_bn_moments_left),
        cmocka_unit_test(test_bn_many_segments),
        cmocka_unit_test(test_bn_parts),
        cmocka_unit_test(test_bn_two),
        cmocka_unit_test(test_bn_scratch),
        cmocka_unit_test(test_bn_pool),
        cmocka_unit_test(test_maxpool),
        cmocka_unit_test(test_avgpool),
        cmocka_unit_test(test_input_pack),
        cmocka_unit_test(test_attack_step),
        cmocka_unit_test(test_mix_images),
        cmocka_unit_test(test_rows_gather),
        cmocka_unit_test(test_image_activation),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_column_sums),
        cmocka_unit_test(test_flat),
        cmocka_unit_test(test_nonfinite),
    };
    const char *text = getenv("APD_TEST_SEED");

    seed = text != NULL ? strtoull(text, NULL, 0) : 20261125;
    printf("# APD_TEST_SEED=%llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
