/* Resizing beside the textbook form of Pillow's: whole image in memory, two loops. Every set of
 * inner loops that the machine has, bit for bit. */
#include "base/isa.h"
#include "tests/support/random.h"
#include "worker/data/resize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    enum apd_isa isa;
    const struct apd_resize_lanes *lanes;
} sets[] = {
    {"baseline", APD_ISA_BASELINE, &apd_resize_baseline},
    {"avx2", APD_ISA_AVX2, &apd_resize_avx2},
    {"avx512", APD_ISA_AVX512, &apd_resize_avx512},
};

enum { SETS = sizeof sets / sizeof *sets };

static uint8_t clipped(int64_t sum)
{
    int64_t value = (sum + APD_RESIZE_ONE / 2) >> APD_RESIZE_BITS;

    return value > 255 ? 255 : (uint8_t)value;
}

/* One direction of the textbook: `lines` of `size` pixels, `step` apart, to axis->out pixels. */
static void resize_lines(const struct apd_axis *axis, const uint8_t *src, int lines,
                         size_t src_line, size_t src_step, uint8_t *dst, size_t dst_line,
                         size_t dst_step)
{
    double scale = (double)axis->size / axis->out, support = fmax(scale, 1);

    for (int o = 0; o < axis->out; o++) {
        double centre = (o + 0.5) * scale, sum = 0;
        int first = (int)fmax(centre - support + 0.5, 0);
        int end = (int)fmin(centre + support + 0.5, axis->size);

        for (int i = first; i < end; i++)
            sum += fmax(1 - fabs((i - centre + 0.5) * (1 / support)), 0);
        for (int line = 0; line < lines; line++)
            for (int c = 0; c < 4; c++) {
                int64_t total = 0;

                for (int i = first; i < end; i++) {
                    double w = fmax(1 - fabs((i - centre + 0.5) * (1 / support)), 0) / sum;

                    total += (int64_t)(0.5 + w * APD_RESIZE_ONE) *
                             src[(size_t)line * src_line + (size_t)i * src_step + (size_t)c];
                }
                dst[(size_t)line * dst_line + (size_t)o * dst_step + (size_t)c] = clipped(total);
            }
    }
}

/* [y.out][x.out][4]; the caller frees. */
static uint8_t *textbook(const struct apd_axis *x, const struct apd_axis *y, const uint8_t *src)
{
    size_t src_row = 4 * (size_t)x->size, row = 4 * (size_t)x->out;
    uint8_t *half = malloc(row * (size_t)y->size), *out = malloc(row * (size_t)y->out);

    assert_true(half != NULL && out != NULL);
    resize_lines(x, src, y->size, src_row, 4, half, row, 4);
    resize_lines(y, half, x->out, 4, row, out, 4, row);
    free(half);
    return out;
}

/* Feeds the rows asked for, each from memory that ends where the promise ends. */
static void feed(struct apd_resizer *resizer, const struct apd_resize_source *source,
                 const uint8_t *src, int w, int h)
{
    uint8_t *row = malloc(4 * (size_t)source->row_px);

    assert_non_null(row);
    assert_true(source->x >= 0 && source->x + source->w <= w && source->w <= source->row_px);
    assert_true(source->y >= 0 && source->y + source->h <= h);
    for (int y = source->y; y < source->y + source->h; y++) {
        memset(row, 0xa5, 4 * (size_t)source->row_px); /* must not matter */
        memcpy(row, src + 4 * ((size_t)y * (size_t)w + (size_t)source->x), 4 * (size_t)source->w);
        apd_resizer_row(resizer, row);
    }
    free(row);
}

static void compare(const char *name, const struct apd_axis *x, const struct apd_axis *y, int flip,
                    enum apd_layout layout, const uint8_t *expected, const uint8_t *found)
{
    size_t plane = (size_t)x->count * (size_t)y->count;

    for (int j = 0; j < y->count; j++)
        for (int i = 0; i < x->count; i++)
            for (int c = 0; c < 3; c++) {
                int from = x->first + (flip ? x->count - 1 - i : i);
                size_t at = (size_t)j * (size_t)x->count + (size_t)i;
                int want = expected[4 * ((size_t)(y->first + j) * (size_t)x->out + (size_t)from) +
                                    (size_t)c];
                int have = found[layout == APD_LAYOUT_PLANAR ? (size_t)c * plane + at
                                                             : 3 * at + (size_t)c];

                if (want != have)
                    fail_msg("%s: pixel (%d, %d) channel %d is %d, expected %d; x: %d to %d, y: %d "
                             "to %d",
                             name, i, j, c, have, want, x->size, x->out, y->size, y->out);
            }
}

static void check(struct apd_resizer *const *resizers, const struct apd_axis *x,
                  const struct apd_axis *y, int flip, enum apd_layout layout,
                  struct test_random *random)
{
    size_t source_bytes = 4 * (size_t)x->size * (size_t)y->size;
    size_t out_bytes = 3 * (size_t)x->count * (size_t)y->count;
    uint8_t *src = malloc(source_bytes), *out = malloc(out_bytes), *expected;
    struct apd_resize_source source;
    struct apd_err err;

    assert_true(src != NULL && out != NULL);
    for (size_t i = 0; i < source_bytes; i++)
        src[i] = (uint8_t)(test_below(random, 3) == 0 ? 255 : test_next(random));
    expected = textbook(x, y, src);
    for (int i = 0; i < SETS; i++) {
        if (resizers[i] == NULL)
            continue;
        assert_int_equal(apd_resizer_start(resizers[i], x, y, flip, layout, out, &source, &err),
                         APD_OK);
        feed(resizers[i], &source, src, x->size, y->size);
        compare(sets[i].name, x, y, flip, layout, expected, out);
    }
    free(src);
    free(out);
    free(expected);
}

static void create_all(struct apd_resizer **resizers)
{
    struct apd_err err;

    for (int i = 0; i < SETS; i++) {
        resizers[i] = NULL;
        if (apd_isa_supported(sets[i].isa))
            assert_int_equal(apd_resizer_create(sets[i].lanes, &resizers[i], &err), APD_OK);
    }
}

static void destroy_all(struct apd_resizer **resizers)
{
    for (int i = 0; i < SETS; i++) {
        apd_resizer_destroy(&resizers[i]);
        assert_null(resizers[i]);
    }
}

static struct apd_axis random_axis(struct test_random *random, int whole)
{
    static const int sizes[] = {1, 2, 3, 16, 17, 70, 200};
    int size = sizes[test_below(random, 7)], out = sizes[test_below(random, 7)];
    int first = whole ? 0 : (int)test_below(random, (uint64_t)out);
    struct apd_axis axis = {.size = size, .out = out, .first = first};

    axis.count = whole ? out : 1 + (int)test_below(random, (uint64_t)(out - first));
    return axis;
}

static void every_set_of_loops_gives_the_bits_of_the_textbook(void **state)
{
    struct test_random random = test_random_start();
    struct apd_resizer *resizers[SETS];

    (void)state;
    create_all(resizers);
    for (int i = 0; i < 200; i++) {
        struct apd_axis x = random_axis(&random, i % 2), y = random_axis(&random, i % 2);

        check(resizers, &x, &y, i / 2 % 2, i % 3 == 0 ? APD_LAYOUT_INTERLEAVED : APD_LAYOUT_PLANAR,
              &random);
    }
    destroy_all(resizers);
}

static void white_stays_white_over_very_many_taps(void **state)
{
    struct apd_axis x = {.size = 60000, .out = 1, .count = 1};
    struct apd_axis y = {.size = 1, .out = 1, .count = 1};
    struct apd_resizer *resizers[SETS];
    struct apd_resize_source source;
    uint8_t *row = malloc(4 * 80000), out[3];
    struct apd_err err;

    (void)state;
    assert_non_null(row);
    memset(row, 255, 4 * 80000);
    create_all(resizers);
    for (int i = 0; i < SETS; i++) {
        if (resizers[i] == NULL)
            continue;
        assert_int_equal(
            apd_resizer_start(resizers[i], &x, &y, 0, APD_LAYOUT_PLANAR, out, &source, &err),
            APD_OK);
        assert_true(source.row_px <= 80000);
        apd_resizer_row(resizers[i], row);
        assert_true(out[0] == 255 && out[1] == 255 && out[2] == 255);
        apd_resizer_row(resizers[i], row); /* one too many does nothing */
    }
    destroy_all(resizers);
    free(row);
}

static void window_reads_only_what_it_needs(void **state)
{
    struct apd_axis x = {.size = 1000, .out = 500, .first = 100, .count = 50};
    struct apd_axis y = {.size = 1000, .out = 1000, .first = 7, .count = 3};
    struct apd_resizer *resizer;
    struct apd_resize_source source;
    uint8_t out[3 * 50 * 3];
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_resizer_create(NULL, &resizer, &err), APD_OK);
    assert_int_equal(
        apd_resizer_start(resizer, &x, &y, 1, APD_LAYOUT_INTERLEAVED, out, &source, &err), APD_OK);
    assert_in_range(source.x, 198, 200);
    assert_in_range(source.x + source.w, 300, 302);
    assert_int_equal(source.y, 7);
    assert_int_equal(source.h, 3);
    apd_resizer_destroy(&resizer);
    apd_resizer_destroy(&resizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_set_of_loops_gives_the_bits_of_the_textbook),
        cmocka_unit_test(white_stays_white_over_very_many_taps),
        cmocka_unit_test(window_reads_only_what_it_needs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
