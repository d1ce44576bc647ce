/* Augmentation: the documented mapping, and nothing else, decides each pixel. */
#include "base/rng.h"
#include "tests/support/random.h"
#include "worker/data/augment.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

static const struct apd_augment_settings crop_flip = {
    .kind = APD_AUGMENT_CROP_FLIP, .crop_padding_px = 4, .seed = 42};

static void known_sample_gives_known_choice(void **state)
{
    /* apd_rng(42, AUGMENT, 3, 7) = a543b653 9c872ef9 76451f0f: 9 * that / 2^32 = 5, 5; odd */
    struct apd_augment_choice choice = apd_augment_choose(&crop_flip, 3, 7);

    (void)state;
    assert_int_equal(choice.dx, 1);
    assert_int_equal(choice.dy, 1);
    assert_int_equal(choice.flip, 1);
}

static void every_choice_comes_about_equally_often(void **state)
{
    enum { DRAWS = 90000 };
    uint32_t dx[9] = {0}, dy[9] = {0}, flips = 0;

    (void)state;
    for (uint64_t sample = 0; sample < DRAWS; sample++) {
        struct apd_augment_choice choice = apd_augment_choose(&crop_flip, 1, sample);

        assert_in_range(choice.dx + 4, 0, 8);
        assert_in_range(choice.dy + 4, 0, 8);
        dx[choice.dx + 4]++;
        dy[choice.dy + 4]++;
        flips += (uint32_t)choice.flip;
    }
    for (int i = 0; i < 9; i++) { /* 10000 +- 5 deviations */
        assert_in_range(dx[i], 9500, 10500);
        assert_in_range(dy[i], 9500, 10500);
    }
    assert_in_range(flips, 44250, 45750);
}

static void choices_depend_on_seed_epoch_and_sample(void **state)
{
    struct apd_augment_settings other = crop_flip;
    int differ[3] = {0};

    (void)state;
    other.seed = 43;
    for (uint64_t sample = 0; sample < 100; sample++) {
        struct apd_augment_choice base = apd_augment_choose(&crop_flip, 0, sample);
        struct apd_augment_choice with[3] = {apd_augment_choose(&other, 0, sample),
                                             apd_augment_choose(&crop_flip, 1, sample),
                                             apd_augment_choose(&crop_flip, 0, sample + 1)};

        for (int i = 0; i < 3; i++)
            differ[i] += memcmp(&base, &with[i], sizeof base) != 0;
    }
    for (int i = 0; i < 3; i++)
        assert_true(differ[i] > 90);
}

static void none_copies(void **state)
{
    struct apd_augment_settings none = {.kind = APD_AUGMENT_NONE, .crop_padding_px = 4, .seed = 1};
    uint8_t src[2 * 3 * 5], dst[sizeof src];

    (void)state;
    for (size_t i = 0; i < sizeof src; i++)
        src[i] = (uint8_t)(i + 1);
    apd_augment_apply(apd_augment_choose(&none, 2, 9), 2, 3, 5, src, dst);
    assert_memory_equal(src, dst, sizeof src);
}

static void shift_and_flip_move_pixels_as_written(void **state)
{
    static const uint8_t src[6] = {1, 2, 3, 4, 5, 6}; /* 2 x 3 */
    static const uint8_t right[6] = {2, 3, 0, 5, 6, 0}, right_flip[6] = {0, 3, 2, 0, 6, 5},
                         down[6] = {4, 5, 6, 0, 0, 0}, gone[6] = {0};
    uint8_t dst[6];

    (void)state;
    apd_augment_apply((struct apd_augment_choice){.dx = 1}, 1, 2, 3, src, dst);
    assert_memory_equal(dst, right, 6);
    apd_augment_apply((struct apd_augment_choice){.dx = 1, .flip = 1}, 1, 2, 3, src, dst);
    assert_memory_equal(dst, right_flip, 6);
    apd_augment_apply((struct apd_augment_choice){.dy = 1}, 1, 2, 3, src, dst);
    assert_memory_equal(dst, down, 6);
    apd_augment_apply((struct apd_augment_choice){.dx = -3}, 1, 2, 3, src, dst);
    assert_memory_equal(dst, gone, 6);
}

/* Pad, cut out, mirror: three plain steps with a padded copy, as the words say it. */
static void apply_agrees_with_pad_crop_mirror(void **state)
{
    struct test_random random = test_random_start();

    (void)state;
    for (int round = 0; round < 200; round++) {
        int c = 1 + (int)test_below(&random, 3), h = 1 + (int)test_below(&random, 9),
            w = 1 + (int)test_below(&random, 9), pad = (int)test_below(&random, 12);
        struct apd_augment_settings settings = {APD_AUGMENT_CROP_FLIP, pad, test_next(&random)};
        struct apd_augment_choice choice = apd_augment_choose(&settings, 5, test_next(&random));
        int wide = w + 2 * pad, high = h + 2 * pad;
        uint8_t src[3 * 9 * 9], dst[3 * 9 * 9], padded[33 * 33];

        for (int i = 0; i < c * h * w; i++)
            src[i] = (uint8_t)test_next(&random);
        apd_augment_apply(choice, c, h, w, src, dst);
        for (int k = 0; k < c; k++) {
            memset(padded, 0, sizeof padded);
            for (int y = 0; y < h; y++)
                memcpy(padded + (y + pad) * wide + pad, src + (k * h + y) * w, (size_t)w);
            for (int y = 0; y < h; y++)
                for (int x = 0; x < w; x++) {
                    int cut_x = choice.flip ? w - 1 - x : x;
                    int at_y = y + pad + choice.dy, at_x = cut_x + pad + choice.dx;

                    assert_true(at_y >= 0 && at_y < high && at_x >= 0 && at_x < wide);
                    assert_int_equal(dst[(k * h + y) * w + x], padded[at_y * wide + at_x]);
                }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_sample_gives_known_choice),
        cmocka_unit_test(every_choice_comes_about_equally_often),
        cmocka_unit_test(choices_depend_on_seed_epoch_and_sample),
        cmocka_unit_test(none_copies),
        cmocka_unit_test(shift_and_flip_move_pixels_as_written),
        cmocka_unit_test(apply_agrees_with_pad_crop_mirror),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
