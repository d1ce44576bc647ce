/* Corruptions: what holds for all of them. Each pixel is compared with another implementation in
 * tests/e2e/test_corrupt.py. */
#include "tests/support/random.h"
#include "worker/data/corrupt/corrupt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

void *__real_realloc(void *p, size_t bytes);
void *__wrap_realloc(void *p, size_t bytes);

static int reallocs_left = -1; /* until memory ends; < 0: never */
static struct apd_corrupt_scratch scratch;
static struct apd_image original, image, again;
static struct apd_err err;

void *__wrap_realloc(void *p, size_t bytes)
{
    if (reallocs_left == 0)
        return NULL;
    reallocs_left -= reallocs_left > 0;
    return __real_realloc(p, bytes);
}

static size_t bytes_of(const struct apd_image *of)
{
    return (size_t)of->w * (size_t)of->h * (size_t)of->c;
}

/* Smooth shapes with edges and some noise. */
static void make_original(int w, int h, int c)
{
    struct test_random random = {42};

    assert_int_equal(apd_image_reserve(&original, w, h, c, &err), APD_OK);
    for (int i = 0; i < w * h * c; i++) {
        double x = (double)(i / c % w) / w, y = (double)(i / c / w) / h;
        double v = 110 + 50 * sin(5 * x + i % c) * cos(4 * y) + (x > 0.6 && y > 0.3 ? 60 : 0);

        original.px[i] = (uint8_t)(v + (double)test_below(&random, 8));
    }
}

static void corrupt(int corruption, int severity, uint64_t seed, uint64_t sample,
                    struct apd_image *out)
{
    assert_int_equal(apd_image_reserve(out, original.w, original.h, original.c, &err), APD_OK);
    memcpy(out->px, original.px, bytes_of(&original));
    assert_int_equal(apd_corrupt(corruption, severity, seed, sample, &scratch, out, &err), APD_OK);
    assert_int_equal(out->w, original.w);
    assert_int_equal(out->h, original.h);
    assert_int_equal(out->c, original.c);
}

static double mean_squared_change(int corruption, int severity)
{
    enum { SAMPLES = 20 };
    double sum = 0;

    for (uint64_t sample = 0; sample < SAMPLES; sample++) {
        corrupt(corruption, severity, 1, sample, &image);
        for (size_t i = 0; i < bytes_of(&image); i++) {
            double change = (double)image.px[i] - original.px[i];

            sum += change * change;
        }
    }
    return sum / (double)(SAMPLES * bytes_of(&image));
}

static int is_random(int corruption)
{
    static const char *const fixed[] = {"defocus_blur",  "zoom_blur", "brightness",
                                        "contrast",      "pixelate",  "jpeg_compression",
                                        "gaussian_blur", "saturate"};

    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (strcmp(apd_corruptions[corruption].name, fixed[i]) == 0)
            return 0;
    return 1;
}

static void same_arguments_give_the_same_bytes(void **state)
{
    (void)state;
    make_original(37, 29, 3);
    for (int k = 0; k < APD_CORRUPTIONS; k++)
        for (int severity = 1; severity <= APD_SEVERITIES; severity++) {
            corrupt(k, severity, 7, 12, &image);
            apd_corrupt_scratch_fini(&scratch);
            corrupt((k + 5) % APD_CORRUPTIONS, severity, 8, 1, &again); /* leaves other scratch */
            corrupt(k, severity, 7, 12, &again);
            assert_memory_equal(image.px, again.px, bytes_of(&image));
        }
}

static void seed_and_sample_matter_where_there_is_chance(void **state)
{
    (void)state;
    make_original(64, 64, 3);
    for (int k = 0; k < APD_CORRUPTIONS; k++) {
        corrupt(k, 3, 7, 12, &image);
        corrupt(k, 3, 8, 12, &again);
        assert_int_equal(memcmp(image.px, again.px, bytes_of(&image)) != 0, is_random(k));
        corrupt(k, 3, 7, 13, &again);
        assert_int_equal(memcmp(image.px, again.px, bytes_of(&image)) != 0, is_random(k));
    }
}

/* More severe is further away, but where constants do not grow in every sense: a larger shift that
 * is smoothed more, fewer but heavier flakes, water and then mud, other pixels that are averaged,
 * less colour and then more. */
static int grows(int corruption, int from, int small)
{
    static const char *const never[] = {"glass_blur",        "frost",    "fog",
                                        "elastic_transform", "pixelate", "saturate"};
    const char *name = apd_corruptions[corruption].name;

    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (strcmp(name, never[i]) == 0)
            return 0;
    if (strcmp(name, "spatter") == 0)
        return !small && from < 3;
    if (strcmp(name, "snow") == 0)
        return from != 2 && from != 3;
    return 1;
}

static void expect_growth(int small)
{
    for (int k = 0; k < APD_CORRUPTIONS; k++) {
        double last = mean_squared_change(k, 1);

        for (int severity = 2; severity <= APD_SEVERITIES; severity++) {
            double now = mean_squared_change(k, severity);

            if (grows(k, severity - 1, small) && now <= last)
                fail_msg("%s: %g at severity %d, %g before", apd_corruptions[k].name, now, severity,
                         last);
            last = now;
        }
    }
}

static void severity_moves_away(void **state)
{
    (void)state;
    make_original(32, 32, 3);
    expect_growth(1);
    make_original(96, 96, 3);
    expect_growth(0);
}

static void odd_and_tiny_sizes_work(void **state)
{
    static const int sizes[][2] = {{1, 1},  {1, 9},  {9, 1},   {2, 2},  {3, 5},
                                   {65, 1}, {1, 65}, {65, 67}, {17, 3}, {2, 70}};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int c = 1; c <= 3; c += 2) {
            make_original(sizes[i][0], sizes[i][1], c);
            for (int k = 0; k < APD_CORRUPTIONS; k++)
                for (int severity = 1; severity <= APD_SEVERITIES; severity++)
                    corrupt(k, severity, 1, i, &image);
        }
}

/* Noise added to the ends of the range has to be cut, not to wrap around: what is far from an end
 * cannot come out near the other one. */
static void black_and_white_are_cut_not_wrapped(void **state)
{
    static const char *const names[] = {"gaussian_noise", "speckle_noise", "brightness",
                                        "contrast"};

    (void)state;
    make_original(28, 28, 1);
    for (int white = 0; white < 2; white++) {
        memset(original.px, white * 255, bytes_of(&original));
        for (int k = 0; k < APD_CORRUPTIONS; k++)
            for (size_t n = 0; n < sizeof names / sizeof *names; n++)
                if (strcmp(apd_corruptions[k].name, names[n]) == 0) {
                    corrupt(k, 5, 1, 1, &image);
                    for (size_t i = 0; i < bytes_of(&image); i++)
                        assert_in_range(image.px[i], white ? 40 : 0, white ? 255 : 155);
                }
    }
}

static void flat_images_stay_flat_under_blur(void **state)
{
    (void)state;
    make_original(70, 50, 3);
    for (int v = 0; v < 256; v += 5) {
        memset(original.px, v, bytes_of(&original));
        for (int k = 0; k < APD_CORRUPTIONS; k++)
            if (strcmp(apd_corruptions[k].group, "blur") == 0 ||
                strcmp(apd_corruptions[k].name, "pixelate") == 0 ||
                strcmp(apd_corruptions[k].name, "contrast") == 0 ||
                strcmp(apd_corruptions[k].name, "elastic_transform") == 0) {
                corrupt(k, 1, 1, 1, &image);
                if (memcmp(image.px, original.px, bytes_of(&image)) != 0)
                    fail_msg("%s: %d became %d", apd_corruptions[k].name, v, image.px[0]);
            }
    }
}

static void size_decides_the_constants(void **state)
{
    double small, large;

    (void)state;
    make_original(64, 64, 1);
    small = mean_squared_change(0, 5);
    make_original(65, 64, 1);
    large = mean_squared_change(0, 5);
    /* (255 * 0.10)^2 and about (255 * 0.38)^2, less what is cut off */
    assert_true(small > 500 && small < 700);
    assert_true(large > 4000);
}

/* Memory ends at the first, second, third ... growth of a buffer, until the corruption succeeds. */
static void every_lack_of_memory_is_told(void **state)
{
    (void)state;
    make_original(70, 31, 3);
    for (int k = 0; k < APD_CORRUPTIONS; k++) {
        enum apd_code rc = APD_NOMEM;

        for (int grown = 0; rc != APD_OK; grown++) {
            apd_corrupt_scratch_fini(&scratch);
            assert_int_equal(apd_image_reserve(&image, original.w, original.h, 3, &err), APD_OK);
            memcpy(image.px, original.px, bytes_of(&original));
            reallocs_left = grown;
            rc = apd_corrupt(k, 1, 1, 1, &scratch, &image, &err);
            reallocs_left = -1;
            assert_true(rc == APD_OK || rc == APD_NOMEM);
            assert_true(grown < 10);
        }
    }
}

static int fini(void **state)
{
    (void)state;
    apd_corrupt_scratch_fini(&scratch);
    apd_image_fini(&original);
    apd_image_fini(&image);
    apd_image_fini(&again);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_arguments_give_the_same_bytes),
        cmocka_unit_test(seed_and_sample_matter_where_there_is_chance),
        cmocka_unit_test(severity_moves_away),
        cmocka_unit_test(odd_and_tiny_sizes_work),
        cmocka_unit_test(black_and_white_are_cut_not_wrapped),
        cmocka_unit_test(flat_images_stay_flat_under_blur),
        cmocka_unit_test(size_decides_the_constants),
        cmocka_unit_test(every_lack_of_memory_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, fini);
}
