/* Parts of `advprop ckpt` below the command: values of every type, settings in odd texts. */
#include "tests/support/scratch.h"
#include "worker/ckpt/settings.h"
#include "worker/ckpt/values.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void halves_are_read_as_ieee_says(void **state)
{
    static const struct {
        uint16_t bits;
        double value;
    } halves[] = {
        {0x3c00, 1},        {0xc000, -2},         {0x7bff, 65504}, {0x0400, 0x1p-14},
        {0x0001, 0x1p-24},  {0x83ff, -0x3ffp-24}, {0x0000, 0},     {0x3555, 0x1.554p-2},
        {0x7c00, INFINITY}, {0xfc00, -INFINITY},
    };
    const uint16_t nan_bits = 0x7e01;

    (void)state;
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++)
        assert_true(apd_value_at(APD_DTYPE_F16, &halves[i].bits, 0) == halves[i].value);
    assert_true(isnan(apd_value_at(APD_DTYPE_F16, &nan_bits, 0)));
}

static void every_type_gives_its_value(void **state)
{
    static const float f32[2] = {0, -1.5f};
    static const double f64[2] = {0, 0x1.23456789p-100};
    static const uint16_t bf16[2] = {0, 0xbfc0};
    static const int8_t i8[2] = {0, -7};
    static const int16_t i16[2] = {0, -700};
    static const int32_t i32[2] = {0, -70000};
    static const int64_t i64[2] = {0, -7000000000};
    static const uint8_t u8[2] = {0, 200};
    static const uint64_t u64[2] = {0, 0x8000000000000000};

    (void)state;
    assert_true(apd_value_at(APD_DTYPE_F32, f32, 1) == -1.5);
    assert_true(apd_value_at(APD_DTYPE_F64, f64, 1) == f64[1]);
    assert_true(apd_value_at(APD_DTYPE_BF16, bf16, 1) == -1.5);
    assert_true(apd_value_at(APD_DTYPE_I8, i8, 1) == -7);
    assert_true(apd_value_at(APD_DTYPE_I16, i16, 1) == -700);
    assert_true(apd_value_at(APD_DTYPE_I32, i32, 1) == -70000);
    assert_true(apd_value_at(APD_DTYPE_I64, i64, 1) == -7e9);
    assert_true(apd_value_at(APD_DTYPE_U8, u8, 1) == 200);
    assert_true(apd_value_at(APD_DTYPE_U64, u64, 1) == 0x1p63);
}

static void values_that_are_not_finite_are_counted(void **state)
{
    static const uint16_t halves[4] = {0x7c00, 0x7bff, 0xffff, 0};
    static const uint16_t brains[4] = {0x7f80, 0x7f7f, 0xffff, 0x7c00};
    static const float floats[4] = {NAN, 1, -INFINITY, 3e38f};

    (void)state;
    assert_int_equal(apd_values_not_finite(APD_DTYPE_F16, halves, 4), 2);
    assert_int_equal(apd_values_not_finite(APD_DTYPE_BF16, brains, 4), 2);
    assert_int_equal(apd_values_not_finite(APD_DTYPE_F32, floats, 4), 2);
    assert_int_equal(apd_values_not_finite(APD_DTYPE_U16, halves, 4), 0);
}

static struct apd_safetensors *with_config(const char *name, const char *config)
{
    const struct apd_meta meta[] = {{"step", "1"}, {"config", config}};
    struct apd_safetensors *file = NULL;
    char sha256[APD_SHA256_HEX];
    struct apd_err err;
    uint64_t bytes;

    if (apd_safetensors_write(scratch_path(name), NULL, 0, meta, config == NULL ? 1 : 2, &bytes,
                              sha256, &err) != APD_OK ||
        apd_safetensors_open(scratch_path(name), NULL, &file, &err) != APD_OK)
        fail_msg("%s", err.msg);
    return file;
}

/* The list as compact JSON. */
static void expect_settings(const char *a, const char *b, const char *expected)
{
    struct apd_safetensors *of_a = with_config("a", a), *of_b = with_config("b", b);
    json_t *list = apd_settings_diff(of_a, of_b);
    char *text = json_dumps(list, JSON_COMPACT);

    assert_string_equal(text, expected);
    free(text);
    json_decref(list);
    apd_safetensors_close(&of_a);
    apd_safetensors_close(&of_b);
}

static void settings_are_compared_by_their_full_keys(void **state)
{
    (void)state;
    expect_settings("seed: 1\na:\n  x: 2\nb:\n  x: 3\n", "seed: 1\na:\n  x: 2\nb:\n  x: 4\n",
                    "[{\"key\":\"b.x\",\"a\":\"3\",\"b\":\"4\"}]");
    expect_settings("a:\n  x: \"u: v\"\nlast: 1\n", "a:\n  y: 1\nlast: 1\n",
                    "[{\"key\":\"a.x\",\"a\":\"\\\"u: v\\\"\"},{\"key\":\"a.y\",\"b\":\"1\"}]");
    expect_settings("seed: 1\n", NULL, "[]");
    expect_settings("seed: 1\n", "seed: 1", "[]");
}

static void odd_settings_do_no_harm(void **state)
{
    char line[2048];

    (void)state;
    memset(line, 'k', sizeof line);
    line[1024] = ':';
    line[sizeof line - 1] = '\0';
    expect_settings(line, line, "[]");
    expect_settings("\n\n:\n  :\n  \n: :\n", "",
                    "[{\"key\":\".\",\"a\":\"\"},{\"key\":\"\",\"a\":\":\"}]");
}

static int set_up(void **state)
{
    (void)state;
    scratch_create();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_are_read_as_ieee_says),
        cmocka_unit_test(every_type_gives_its_value),
        cmocka_unit_test(values_that_are_not_finite_are_counted),
        cmocka_unit_test(settings_are_compared_by_their_full_keys),
        cmocka_unit_test(odd_settings_do_no_harm),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
