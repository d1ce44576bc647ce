/* Recipes: names, what depends on what, and the old crop and flip in the other layout. That the
 * images are the documented ones is tested in tests/e2e. */
#include "tests/support/random.h"
#include "worker/data/augment.h"
#include "worker/data/augment_image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

enum { W = 19, H = 13, C = 3, BYTES = W * H * C };

static const char *const names[] = {"none",        "crop_flip",  "rrc_flip", "rrc_flip_jitter",
                                    "randaugment", "autoaugment"};
static struct apd_image image, spare;
static struct apd_err err;

static struct apd_augment_recipe recipe_of(const char *name)
{
    struct apd_augment_recipe recipe = {
        .seed = 42,
        .crop_padding_px = 4,
        .jitter = {0.4, 0.4, 0.4, 0.1},
        .randaugment_ops = 2,
        .randaugment_magnitude = 9,
    };

    assert_int_equal(apd_augment_recipe_set(&recipe, name, &err), APD_OK);
    return recipe;
}

static void augment(const struct apd_augment_recipe *recipe, uint32_t epoch, uint64_t sample,
                    const uint8_t src[BYTES])
{
    assert_int_equal(apd_image_reserve(&image, W, H, C, &err), APD_OK);
    memcpy(image.px, src, BYTES);
    assert_int_equal(apd_augment_image(recipe, epoch, sample, &spare, &image, &err), APD_OK);
    assert_true(image.w == W && image.h == H && image.c == C);
}

static void fill(struct test_random *random, uint8_t src[BYTES])
{
    for (int i = 0; i < BYTES; i++)
        src[i] = (uint8_t)test_next(random);
}

static void unknown_name_is_refused(void **state)
{
    struct apd_augment_recipe recipe = {0};

    (void)state;
    assert_int_equal(apd_augment_recipe_set(&recipe, "rrc", &err), APD_CONFIG);
    assert_non_null(strstr(err.msg, "\"rrc\""));
}

static void images_depend_on_seed_epoch_and_sample_only(void **state)
{
    struct test_random random = test_random_start();
    uint8_t src[BYTES], first[BYTES];

    (void)state;
    fill(&random, src);
    for (size_t i = 1; i < sizeof names / sizeof *names; i++) {
        struct apd_augment_recipe recipe = recipe_of(names[i]), other = recipe;
        int differ[3] = {0};

        other.seed++;
        for (uint64_t sample = 0; sample < 50; sample++) {
            augment(&recipe, 1, sample, src);
            memcpy(first, image.px, BYTES);
            augment(&other, 1, sample, src);
            differ[0] += memcmp(first, image.px, BYTES) != 0;
            augment(&recipe, 2, sample, src);
            differ[1] += memcmp(first, image.px, BYTES) != 0;
            augment(&recipe, 1, sample + 1, src);
            differ[2] += memcmp(first, image.px, BYTES) != 0;
            augment(&recipe, 1, sample, src);
            assert_memory_equal(first, image.px, BYTES);
        }
        for (int k = 0; k < 3; k++)
            assert_true(differ[k] > 10); /* flips alone differ for half of them */
    }
}

static void crop_flip_is_the_one_of_packed_planes(void **state)
{
    struct test_random random = test_random_start();
    struct apd_augment_recipe recipe = recipe_of("crop_flip");
    struct apd_augment_settings settings = {APD_AUGMENT_CROP_FLIP, 4, 42};

    (void)state;
    for (uint64_t sample = 0; sample < 100; sample++) {
        uint8_t src[BYTES], planes[BYTES], want[BYTES];

        fill(&random, src);
        for (int i = 0; i < W * H; i++)
            for (int k = 0; k < C; k++)
                planes[k * W * H + i] = src[i * C + k];
        apd_augment_apply(apd_augment_choose(&settings, 5, sample), C, H, W, planes, want);
        augment(&recipe, 5, sample, src);
        for (int i = 0; i < W * H; i++)
            for (int k = 0; k < C; k++)
                assert_int_equal(image.px[i * C + k], want[k * W * H + i]);
    }
}

static void only_resized_crops_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct apd_augment_recipe recipe = recipe_of(names[i]);
        int whole = 0;

        for (uint64_t sample = 0; sample < 50; sample++) {
            struct apd_box box = apd_augment_box(&recipe, 0, sample, 100, 80);

            whole += box.left == 0 && box.top == 0 && box.w == 100 && box.h == 80;
        }
        assert_int_equal(whole, i < 2 ? 50 : 0);
    }
}

static void erasing_leaves_the_rest(void **state)
{
    struct test_random random = test_random_start();
    struct apd_augment_recipe recipe = recipe_of("none");
    uint8_t src[BYTES];

    (void)state;
    recipe.erase_probability = 1;
    for (uint64_t sample = 0; sample < 100; sample++) {
        struct apd_draw_place place = {recipe.seed, 0, sample};
        struct apd_box box = apd_erase_box(&place, W, H);

        fill(&random, src);
        recipe.erase_noise = (int)(sample & 1);
        augment(&recipe, 0, sample, src);
        for (int i = 0; i < BYTES; i++) {
            int x = i / C % W - box.left, y = i / C / W - box.top;

            if (x < 0 || x >= box.w || y < 0 || y >= box.h)
                assert_int_equal(image.px[i], src[i]);
            else if (!recipe.erase_noise)
                assert_int_equal(image.px[i], 0);
        }
    }
}

static int free_images(void **state)
{
    (void)state;
    apd_image_fini(&image);
    apd_image_fini(&spare);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_name_is_refused),
        cmocka_unit_test(images_depend_on_seed_epoch_and_sample_only),
        cmocka_unit_test(crop_flip_is_the_one_of_packed_planes),
        cmocka_unit_test(only_resized_crops_cut),
        cmocka_unit_test(erasing_leaves_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, free_images);
}
