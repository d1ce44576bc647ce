/* Parts of images as numbers. That they are torchvision's is tested in tests/e2e. */
#include "tests/support/random.h"
#include "worker/data/crop_box.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static int inside(struct apd_box box, int w, int h)
{
    return box.left >= 0 && box.top >= 0 && box.w >= 0 && box.h >= 0 && box.left + box.w <= w &&
           box.top + box.h <= h;
}

static void boxes_are_inside_images_of_any_size(void **state)
{
    struct test_random random = test_random_start();

    (void)state;
    for (int round = 0; round < 20000; round++) {
        struct apd_draw_place place = {test_next(&random), 3, test_next(&random)};
        int w = 1 + (int)test_below(&random, 1u << (1 + round % 15));
        int h = 1 + (int)test_below(&random, 1u << (1 + round % 13));
        struct apd_box crop = apd_crop_box(&place, w, h), erase = apd_erase_box(&place, w, h);

        assert_true(inside(crop, w, h) && crop.w > 0 && crop.h > 0);
        assert_true(inside(erase, w, h) && (erase.w < w && erase.h < h));
        assert_int_equal(erase.w == 0, erase.h == 0);
    }
}

static void areas_and_ratios_fill_their_ranges(void **state)
{
    double least = 1, most = 0, narrow = 9, wide = 0;

    (void)state;
    for (uint64_t sample = 0; sample < 20000; sample++) {
        struct apd_draw_place place = {1, 0, sample};
        struct apd_box box = apd_crop_box(&place, 2000, 2000);
        double area = (double)box.w * box.h / 4e6, ratio = (double)box.w / box.h;

        least = area < least ? area : least;
        most = area > most ? area : most;
        narrow = ratio < narrow ? ratio : narrow;
        wide = ratio > wide ? ratio : wide;
    }
    assert_true(least > 0.079 && least < 0.09 && most > 0.95 && most <= 1);
    assert_true(narrow > 0.749 && narrow < 0.76 && wide > 1.31 && wide < 1.335);
}

static void image_too_long_gives_its_middle(void **state)
{
    struct apd_draw_place place = {1, 2, 3};
    struct apd_box flat = apd_crop_box(&place, 3000, 30), high = apd_crop_box(&place, 30, 3000);

    (void)state;
    assert_memory_equal(&flat, &((struct apd_box){1480, 0, 40, 30}), sizeof flat);
    assert_memory_equal(&high, &((struct apd_box){0, 1480, 30, 40}), sizeof high);
}

static void evaluation_takes_the_middle_of_the_resized_image(void **state)
{
    static const struct {
        int w, h, shorter, crop;
        struct apd_eval_geometry want;
    } cases[] = {
        {500, 375, 256, 224, {341, 256, 58, 16}}, /* 58.5 and 16: halves to even */
        {375, 500, 256, 224, {256, 341, 16, 58}}, {500, 334, 256, 224, {383, 256, 80, 16}},
        {224, 224, 224, 224, {224, 224, 0, 0}},   {300, 200, 100, 128, {150, 100, 11, -14}},
        {10, 10, 5, 8, {5, 5, -1, -1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct apd_eval_geometry found =
            apd_eval_geometry(cases[i].w, cases[i].h, cases[i].shorter, cases[i].crop);

        assert_memory_equal(&found, &cases[i].want, sizeof found);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boxes_are_inside_images_of_any_size),
        cmocka_unit_test(areas_and_ratios_fill_their_ranges),
        cmocka_unit_test(image_too_long_gives_its_middle),
        cmocka_unit_test(evaluation_takes_the_middle_of_the_resized_image),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
