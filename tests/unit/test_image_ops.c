/* Operations on images: what must hold whatever Pillow does. That the bytes are Pillow's is tested
 * in tests/e2e. */
#include "tests/support/random.h"
#include "worker/data/area_ops.h"
#include "worker/data/color_ops.h"
#include "worker/data/image_ops.h"
#include "worker/data/point_ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

void *__real_realloc(void *p, size_t bytes);
void *__wrap_realloc(void *p, size_t bytes);

static int no_memory;
static struct apd_image image, spare, before;
static struct apd_err err;

void *__wrap_realloc(void *p, size_t bytes)
{
    return no_memory ? NULL : __real_realloc(p, bytes);
}

static size_t bytes(void)
{
    return (size_t)image.w * (size_t)image.h * (size_t)image.c;
}

/* Random bytes in `image`, and a copy in `before`. */
static void fill(struct test_random *random, int w, int h, int c)
{
    assert_int_equal(apd_image_reserve(&image, w, h, c, &err), APD_OK);
    assert_int_equal(apd_image_reserve(&before, w, h, c, &err), APD_OK);
    for (size_t i = 0; i < bytes(); i++)
        image.px[i] = (uint8_t)test_next(random);
    memcpy(before.px, image.px, bytes());
}

static void apply(enum apd_op op, double magnitude)
{
    assert_int_equal(apd_op_apply(op, magnitude, &image, &spare, &err), APD_OK);
}

static void assert_unchanged(void)
{
    assert_memory_equal(image.px, before.px, bytes());
}

static void neutral_magnitudes_change_nothing(void **state)
{
    static const struct {
        enum apd_op op;
        double magnitude;
    } neutral[] = {{APD_OP_IDENTITY, 7},    {APD_OP_SHEAR_X, 0},        {APD_OP_SHEAR_Y, 0},
                   {APD_OP_ROTATE, 0},      {APD_OP_TRANSLATE_X, 0.99}, {APD_OP_TRANSLATE_Y, -0.99},
                   {APD_OP_BRIGHTNESS, 0},  {APD_OP_COLOR, 0},          {APD_OP_CONTRAST, 0},
                   {APD_OP_SHARPNESS, 0},   {APD_OP_POSTERIZE, 8},      {APD_OP_SOLARIZE, 256},
                   {APD_OP_ROTATE, 360 * 7}};
    struct test_random random = test_random_start();

    (void)state;
    for (int c = 1; c <= 3; c += 2)
        for (size_t i = 0; i < sizeof neutral / sizeof *neutral; i++) {
            fill(&random, 1 + (int)test_below(&random, 40), 1 + (int)test_below(&random, 40), c);
            apply(neutral[i].op, neutral[i].magnitude);
            assert_unchanged();
        }
}

static void invert_and_quarter_turns_come_back(void **state)
{
    struct test_random random = test_random_start();

    (void)state;
    for (int c = 1; c <= 3; c += 2) {
        fill(&random, 23, 23, c);
        for (int i = 0; i < 2; i++)
            apply(APD_OP_INVERT, 0);
        assert_unchanged();
        for (int i = 0; i < 4; i++)
            apply(APD_OP_ROTATE, 90);
        assert_unchanged();
    }
}

static void translation_moves_right_and_down_over_black(void **state)
{
    static const uint8_t start[6] = {1, 2, 3, 4, 5, 6}, right[6] = {0, 1, 2, 0, 4, 5},
                         right_and_up[6] = {0, 4, 5, 0, 0, 0}, none[6] = {0};

    (void)state;
    assert_int_equal(apd_image_reserve(&image, 3, 2, 1, &err), APD_OK);
    memcpy(image.px, start, 6);
    apply(APD_OP_TRANSLATE_X, 1.9);
    assert_memory_equal(image.px, right, 6);
    apply(APD_OP_TRANSLATE_Y, -1);
    assert_memory_equal(image.px, right_and_up, 6);
    apply(APD_OP_TRANSLATE_X, -3);
    assert_memory_equal(image.px, none, 6);
    apply(APD_OP_TRANSLATE_X, 3000);
    assert_memory_equal(image.px, none, 6);
}

static void grey_images_have_no_colour_to_change(void **state)
{
    struct test_random random = test_random_start();

    (void)state;
    fill(&random, 9, 8, 1);
    apd_op_saturation(&image, 0);
    apd_op_hue(&image, 0.25);
    assert_unchanged();
}

static void saturation_zero_is_grey_and_hue_keeps_the_largest_channel(void **state)
{
    struct test_random random = test_random_start();

    (void)state;
    fill(&random, 31, 17, 3);
    apd_op_hue(&image, 0.3);
    for (uint8_t *px = image.px, *old = before.px; px < image.px + bytes(); px += 3, old += 3) {
        int now = px[0] > px[1] ? px[0] : px[1], was = old[0] > old[1] ? old[0] : old[1];

        assert_int_equal(now > px[2] ? now : px[2], was > old[2] ? was : old[2]);
    }
    apd_op_saturation(&image, 0);
    for (uint8_t *px = image.px; px < image.px + bytes(); px += 3)
        assert_true(px[0] == px[1] && px[1] == px[2]);
}

static void autocontrast_uses_the_whole_range_of_each_channel(void **state)
{
    static const uint8_t start[6] = {100, 10, 7, 110, 200, 7}, want[6] = {0, 0, 7, 255, 255, 7};

    (void)state;
    assert_int_equal(apd_image_reserve(&image, 2, 1, 3, &err), APD_OK);
    memcpy(image.px, start, 6);
    apd_op_autocontrast(&image);
    assert_memory_equal(image.px, want, 6);
}

static void operations_keep_to_two_buffers(void **state)
{
    struct test_random random = test_random_start();
    const uint8_t *one, *other;

    (void)state;
    fill(&random, 30, 20, 3);
    apply(APD_OP_ROTATE, 10);
    one = image.px;
    other = spare.px;
    no_memory = 1;
    for (int op = 0; op < APD_OPS; op++)
        apply((enum apd_op)op, 0.3);
    no_memory = 0;
    assert_true((image.px == one && spare.px == other) || (image.px == other && spare.px == one));
}

static void no_memory_for_the_spare_image_is_told_and_changes_nothing(void **state)
{
    static const enum apd_op need_it[] = {APD_OP_SHEAR_X, APD_OP_ROTATE, APD_OP_SHARPNESS};
    struct test_random random = test_random_start();

    (void)state;
    apd_image_fini(&spare);
    fill(&random, 30, 20, 3);
    no_memory = 1;
    for (size_t i = 0; i < sizeof need_it / sizeof *need_it; i++)
        assert_int_equal(apd_op_apply(need_it[i], 0.3, &image, &spare, &err), APD_NOMEM);
    no_memory = 0;
    assert_unchanged();
}

static int free_images(void **state)
{
    (void)state;
    apd_image_fini(&image);
    apd_image_fini(&spare);
    apd_image_fini(&before);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neutral_magnitudes_change_nothing),
        cmocka_unit_test(invert_and_quarter_turns_come_back),
        cmocka_unit_test(translation_moves_right_and_down_over_black),
        cmocka_unit_test(grey_images_have_no_colour_to_change),
        cmocka_unit_test(saturation_zero_is_grey_and_hue_keeps_the_largest_channel),
        cmocka_unit_test(autocontrast_uses_the_whole_range_of_each_channel),
        cmocka_unit_test(operations_keep_to_two_buffers),
        cmocka_unit_test(no_memory_for_the_spare_image_is_told_and_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, free_images);
}
