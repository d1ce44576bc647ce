/* Decoding of whole images, parts and damaged files. That pixels are the field's is
 * compare_pillow.py's subject. */
#include "tests/support/pictures.h"
#include "tests/support/random.h"
#include "worker/data/decode.h"
#include "worker/data/resize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <zlib.h>

enum { W = 61, H = 45, KINDS = 18 };

struct file {
    uint8_t *bytes;
    size_t size;
};

static struct apd_decoder *decoder;
static struct apd_image image;

static const char *const names[KINDS] = {
    "JPEG grey",        "JPEG 4:4:4",      "JPEG 4:2:0",    "JPEG 4:4:0",    "JPEG 4:1:1",
    "JPEG progressive", "JPEG arithmetic", "JPEG restarts", "JPEG CMYK",     "JPEG YCCK",
    "PNG grey 1",       "PNG grey 16",     "PNG colour",    "PNG colour 16", "PNG palette",
    "PNG interlaced",   "WebP lossy",      "WebP lossless",
};

static struct file make_file(int kind, int w, int h)
{
    const struct picture_jpeg jpegs[] = {
        {.channels = 1},
        {0},
        {.h_samp = 2, .v_samp = 2},
        {.v_samp = 2},
        {.h_samp = 4},
        {.h_samp = 2, .v_samp = 2, .progressive = 1},
        {.h_samp = 2, .v_samp = 2, .arithmetic = 1},
        {.h_samp = 2, .v_samp = 2, .restart_interval = 2},
        {.channels = 4},
        {.channels = 4, .ycck = 1},
    };
    const struct picture_png pngs[] = {
        {w, h, 0, 1, 0},  {w, h, 0, 16, 0}, {w, h, 2, 8, 0},
        {w, h, 2, 16, 0}, {w, h, 3, 4, 0},  {w, h, 6, 8, 1},
    };
    struct file file;

    if (kind < 10) {
        struct picture_jpeg jpeg = jpegs[kind];

        jpeg.w = w;
        jpeg.h = h;
        file.bytes = picture_make_jpeg(&jpeg, &file.size);
    } else if (kind < 16) {
        file.bytes = picture_make_png(&pngs[kind - 10], &file.size);
    } else {
        file.bytes = picture_make_webp(w, h, kind == 17, 1, &file.size);
    }
    return file;
}

/* A copy that ends where memory ends, so that a sanitizer sees what reads on. */
static struct file cut(const struct file *file, size_t size)
{
    struct file copy = {malloc(size > 0 ? size : 1), size};

    assert_non_null(copy.bytes);
    memcpy(copy.bytes, file->bytes, size);
    return copy;
}

static enum apd_code decode(const struct file *file, const struct apd_view *view,
                            struct apd_err *err)
{
    memset(err, 0, sizeof *err);
    return apd_decode(decoder, file->bytes, file->size, view, &image, err);
}

static void must_decode(const char *name, const struct file *file, const struct apd_view *view)
{
    struct apd_err err;

    if (decode(file, view, &err) != APD_OK)
        fail_msg("%s: %s", name, err.msg);
}

static void assert_refused(const struct file *file, enum apd_code code, const char *text)
{
    const struct apd_view whole = {0};
    struct apd_err err;
    enum apd_code rc = decode(file, &whole, &err);

    if (rc != code || strstr(err.msg, text) == NULL)
        fail_msg("%s \"%s\", expected %s and \"%s\"", apd_code_name(rc), err.msg,
                 apd_code_name(code), text);
}

static void part_is_what_the_whole_has_there(void **state)
{
    const struct apd_view whole = {0};
    struct test_random random = test_random_start();

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct file file = make_file(kind, W, H);
        uint8_t *all;

        must_decode(names[kind], &file, &whole);
        assert_int_equal(image.w, W);
        assert_int_equal(image.h, H);
        assert_int_equal(image.c, 3);
        all = malloc((size_t)W * H * 3);
        assert_non_null(all);
        memcpy(all, image.px, (size_t)W * H * 3);
        for (int i = 0; i < 60; i++) {
            int w = 1 + (int)test_below(&random, W), h = 1 + (int)test_below(&random, H);
            struct apd_view part = {.box = {(int)test_below(&random, (uint64_t)(W - w + 1)),
                                            (int)test_below(&random, (uint64_t)(H - h + 1)), w, h}};

            must_decode(names[kind], &file, &part);
            for (int y = 0; y < h; y++)
                assert_memory_equal(image.px + (size_t)(y * w) * 3,
                                    all + (size_t)((part.box.y + y) * W + part.box.x) * 3,
                                    (size_t)w * 3);
        }
        free(all);
        free(file.bytes);
    }
}

static void planes_hold_the_same_pixels(void **state)
{
    const struct apd_view view = {
        .box = {3, 2, 40, 30}, .w = 33, .h = 50, .window = {1, 4, 30, 40}, .flip = 1};
    static uint8_t planes[3 * 30 * 40];
    struct apd_err err;

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct file file = make_file(kind, W, H);

        must_decode(names[kind], &file, &view);
        assert_int_equal(image.w, 30);
        assert_int_equal(image.h, 40);
        assert_int_equal(apd_decode_planar(decoder, file.bytes, file.size, &view, planes, &err),
                         APD_OK);
        for (int i = 0; i < 30 * 40; i++)
            for (int c = 0; c < 3; c++)
                assert_int_equal(planes[c * 30 * 40 + i], image.px[3 * i + c]);
        free(file.bytes);
    }
}

static void header_tells_format_size_and_colour(void **state)
{
    static const struct {
        enum apd_codec codec;
        enum apd_colour colour;
        int bits, progressive;
    } expected[KINDS] = {
        {APD_CODEC_JPEG, APD_COLOUR_GREY, 8, 0},      {APD_CODEC_JPEG, APD_COLOUR_RGB, 8, 0},
        {APD_CODEC_JPEG, APD_COLOUR_RGB, 8, 0},       {APD_CODEC_JPEG, APD_COLOUR_RGB, 8, 0},
        {APD_CODEC_JPEG, APD_COLOUR_RGB, 8, 0},       {APD_CODEC_JPEG, APD_COLOUR_RGB, 8, 1},
        {APD_CODEC_JPEG, APD_COLOUR_RGB, 8, 0},       {APD_CODEC_JPEG, APD_COLOUR_RGB, 8, 0},
        {APD_CODEC_JPEG, APD_COLOUR_CMYK, 8, 0},      {APD_CODEC_JPEG, APD_COLOUR_YCCK, 8, 0},
        {APD_CODEC_PNG, APD_COLOUR_GREY, 1, 0},       {APD_CODEC_PNG, APD_COLOUR_GREY, 16, 0},
        {APD_CODEC_PNG, APD_COLOUR_RGB, 8, 0},        {APD_CODEC_PNG, APD_COLOUR_RGB, 16, 0},
        {APD_CODEC_PNG, APD_COLOUR_PALETTE, 4, 0},    {APD_CODEC_PNG, APD_COLOUR_RGB_ALPHA, 8, 1},
        {APD_CODEC_WEBP, APD_COLOUR_RGB_ALPHA, 8, 0}, {APD_CODEC_WEBP, APD_COLOUR_RGB_ALPHA, 8, 0},
    };
    struct apd_image_info info;
    struct apd_err err;

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct file file = make_file(kind, W, H);

        assert_int_equal(apd_image_probe(file.bytes, file.size, &info, &err), APD_OK);
        assert_int_equal(info.codec, expected[kind].codec);
        assert_int_equal(info.colour, expected[kind].colour);
        assert_int_equal(info.bits, expected[kind].bits);
        assert_int_equal(info.progressive, expected[kind].progressive);
        assert_int_equal(info.w, W);
        assert_int_equal(info.h, H);
        free(file.bytes);
    }
}

/* ---- damage ---- */

/* Where an image may end and still give all of its pixels: a PNG or WebP only behind its data. */
static void file_cut_anywhere_is_refused(void **state)
{
    const struct apd_view whole = {0};
    struct apd_err err;

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct file file = make_file(kind, 19, 14);
        size_t spare = kind < 10 ? 0 : kind < 16 ? 12 + 4 + 4 : 1; /* PNG: IEND, CRC, Adler */

        for (size_t size = 0; size < file.size; size++) {
            struct file part = cut(&file, size);
            enum apd_code rc = decode(&part, &whole, &err);

            if (rc != APD_DATA && !(rc == APD_OK && size + spare >= file.size))
                fail_msg("%s cut to %zu of %zu bytes: %s %s", names[kind], size, file.size,
                         apd_code_name(rc), err.msg);
            assert_true(rc == APD_OK || err.msg[0] != '\0');
            free(part.bytes);
        }
        free(file.bytes);
    }
}

static struct file inserted(const struct file *file, size_t at, size_t count)
{
    struct file longer = {calloc(1, file->size + count), file->size + count};

    assert_non_null(longer.bytes);
    memcpy(longer.bytes, file->bytes, at);
    memcpy(longer.bytes + at + count, file->bytes + at, file->size - at);
    return longer;
}

static void bytes_left_over_are_fine(void **state)
{
    const struct apd_view whole = {0};

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct file file = make_file(kind, 19, 14), longer = inserted(&file, file.size, 100);

        must_decode(names[kind], &longer, &whole);
        free(longer.bytes);
        if (kind < 10) { /* between the last segment and the end marker */
            longer = inserted(&file, file.size - 2, 100);
            must_decode(names[kind], &longer, &whole);
            free(longer.bytes);
        }
        free(file.bytes);
    }
}

/* The last scan again and again, each a pass over the whole image. */
static void jpeg_of_very_many_scans_is_refused(void **state)
{
    enum { TIMES = 250 };
    struct file file = make_file(5, 19, 14), many;
    size_t scan = file.size - 2, length;

    (void)state;
    while (file.bytes[scan] != 0xff || file.bytes[scan + 1] != 0xda)
        scan--;
    length = file.size - 2 - scan;
    many = inserted(&file, scan, TIMES * length);
    for (size_t i = 0; i < TIMES; i++)
        memcpy(many.bytes + scan + i * length, file.bytes + scan, length);
    assert_refused(&many, APD_DATA, "more than 200 scans");
    free(many.bytes);
    free(file.bytes);
}

/* What a view does not need is not read. */
static void damage_below_the_part_is_not_seen(void **state)
{
    const struct apd_view whole = {0}, top = {.box = {0, 0, 61, 3}};
    struct file file = make_file(2, 61, 90), half;
    struct apd_err err;

    (void)state;
    half = cut(&file, file.size / 2);
    assert_int_equal(decode(&half, &whole, &err), APD_DATA);
    assert_non_null(strstr(err.msg, "inside the image"));
    must_decode("top", &half, &top);
    free(half.bytes);
    free(file.bytes);
}

static void flipped_bits_are_refused_or_give_an_image(void **state)
{
    const struct apd_view view = {.w = 20, .h = 20};
    struct apd_err err;

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct file file = make_file(kind, 19, 14);

        for (size_t bit = 0; bit < 8 * file.size; bit += 3) {
            struct file damaged = cut(&file, file.size);
            enum apd_code rc;

            damaged.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            rc = decode(&damaged, &view, &err);
            if (rc != APD_OK && rc != APD_DATA)
                fail_msg("%s bit %zu: %s %s", names[kind], bit, apd_code_name(rc), err.msg);
            free(damaged.bytes);
        }
        free(file.bytes);
    }
}

static void put32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* With a CRC that fits. */
static void resize_png(struct file *file, uint32_t w, uint32_t h)
{
    put32(file->bytes + 16, w);
    put32(file->bytes + 20, h);
    put32(file->bytes + 29, (uint32_t)crc32(0, file->bytes + 12, 17));
}

static size_t peak_kb(void)
{
    struct rusage usage;

    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return (size_t)usage.ru_maxrss;
}

static void huge_headers_take_no_memory(void **state)
{
    struct file png = make_file(12, 8, 8), jpeg = make_file(1, 8, 8), webp = make_file(16, 8, 8);
    size_t before_kb = peak_kb();

    (void)state;
    resize_png(&png, 20000, 20000);
    assert_refused(&png, APD_DATA, "20000 x 20000");
    resize_png(&png, INT32_MAX, INT32_MAX);
    assert_refused(&png, APD_DATA, "2147483647 x 2147483647");
    resize_png(&png, 0x80000000u, 1);
    assert_refused(&png, APD_DATA, "2147483648 x 1");
    resize_png(&png, 65536, 1);
    assert_refused(&png, APD_DATA, "65535 a side");
    resize_png(&png, 0, 4);
    assert_refused(&png, APD_DATA, "0 x 4");
    for (size_t i = 2; i + 9 < jpeg.size; i++)
        if (jpeg.bytes[i] == 0xff && jpeg.bytes[i + 1] == 0xc0)
            put32(jpeg.bytes + i + 5, 0xffffffff);
    assert_refused(&jpeg, APD_DATA, "65535 x 65535");
    put32(webp.bytes + 24, 0xffffffff); /* canvas of the VP8X chunk */
    put32(webp.bytes + 26, 0xffffffff);
    assert_refused(&webp, APD_DATA, "WebP");
    assert_in_range(peak_kb() - before_kb, 0, 4096);
    free(png.bytes);
    free(jpeg.bytes);
    free(webp.bytes);
}

static void limit_is_the_decoders(void **state)
{
    const struct apd_view whole = {0};
    struct apd_decoder *strict;
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_decoder_create((uint64_t)W * H - 1, &strict, &err), APD_OK);
    for (int kind = 0; kind < KINDS; kind++) {
        struct file file = make_file(kind, W, H);

        assert_int_equal(apd_decode(strict, file.bytes, file.size, &whole, &image, &err), APD_DATA);
        assert_non_null(strstr(err.msg, "61 x 45 pixels, expected at most 2744"));
        free(file.bytes);
    }
    apd_decoder_destroy(&strict);
    assert_null(strict);
}

/* Few bytes that declare many pixels: the rows are streamed, and memory stays that of a few. */
static void png_bomb_takes_rows_not_images(void **state)
{
    const struct apd_view small = {.w = 16, .h = 16};
    enum { SIDE = 8000 };
    size_t row = SIDE * 3 + 1, size = 0, room = 1 << 20, before_kb;
    uint8_t *zeros = calloc(1, row), *data = malloc(room);
    struct file png = make_file(12, 8, 8), bomb;
    z_stream z = {0};

    (void)state;
    assert_true(zeros != NULL && data != NULL);
    assert_int_equal(deflateInit(&z, 9), Z_OK);
    z.next_out = data;
    z.avail_out = (unsigned)room;
    for (int y = 0; y < SIDE; y++) {
        z.next_in = zeros;
        z.avail_in = (unsigned)row;
        assert_int_equal(deflate(&z, y == SIDE - 1 ? Z_FINISH : Z_NO_FLUSH),
                         y == SIDE - 1 ? Z_STREAM_END : Z_OK);
    }
    size = z.total_out;
    assert_int_equal(deflateEnd(&z), Z_OK);
    resize_png(&png, SIDE, SIDE);
    bomb.size = 33 + 12 + size;
    bomb.bytes = malloc(bomb.size);
    assert_non_null(bomb.bytes);
    memcpy(bomb.bytes, png.bytes, 33);
    put32(bomb.bytes + 33, (uint32_t)size);
    memcpy(bomb.bytes + 37, "IDAT", 4);
    memcpy(bomb.bytes + 41, data, size);
    put32(bomb.bytes + 41 + size, (uint32_t)crc32(0, bomb.bytes + 37, (unsigned)size + 4));
    before_kb = peak_kb();
    must_decode("bomb", &bomb, &small);
    for (int i = 0; i < 16 * 16 * 3; i++)
        assert_int_equal(image.px[i], 0);
    assert_in_range(peak_kb() - before_kb, 0, 8192); /* the image has 192 MB */
    free(zeros);
    free(data);
    free(png.bytes);
    free(bomb.bytes);
}

static void unknown_files_are_told_by_magic(void **state)
{
    uint8_t gif[] = "GIF89a and more", none[1] = {0};
    struct file file = {gif, sizeof gif}, empty = {none, 0};
    const struct apd_view outside = {.box = {0, 0, W + 1, H}};
    struct apd_err err;

    (void)state;
    assert_refused(&file, APD_DATA, "neither JPEG, PNG nor WebP");
    assert_refused(&empty, APD_DATA, "neither JPEG, PNG nor WebP");
    file = make_file(1, W, H);
    assert_int_equal(decode(&file, &outside, &err), APD_BUG);
    free(file.bytes);
}

/* A kept libjpeg object would lend the second image the tables of the first. */
static void image_without_tables_is_refused_after_a_sound_one(void **state)
{
    const struct apd_view whole = {0};
    struct file file = make_file(1, 19, 14);
    struct apd_err err;

    (void)state;
    must_decode("sound", &file, &whole);
    for (size_t i = 2; i + 1 < file.size; i++)
        if (file.bytes[i] == 0xff && file.bytes[i + 1] == 0xdb)
            file.bytes[i + 1] = 0xfe; /* quantisation table becomes a comment */
    assert_int_equal(decode(&file, &whole, &err), APD_DATA);
    assert_non_null(strstr(err.msg, "antization table"));
    free(file.bytes);
}

static void centre_is_torchvisions(void **state)
{
    struct apd_view view = apd_view_centre(500, 375, 256, 224);

    (void)state;
    assert_int_equal(view.w, 341); /* 341.33 */
    assert_int_equal(view.h, 256);
    assert_int_equal(view.window.x, 58); /* 58.5: to even */
    assert_int_equal(view.window.y, 16);
    view = apd_view_centre(375, 1001, 256, 224);
    assert_int_equal(view.w, 256);
    assert_int_equal(view.h, 683);        /* 683.3 */
    assert_int_equal(view.window.y, 230); /* 229.5: to even */
    assert_int_equal(view.window.h, 224);
}

static int set_up(void **state)
{
    struct apd_err err;

    (void)state;
    return apd_decoder_create(0, &decoder, &err) == APD_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    apd_image_fini(&image);
    apd_decoder_destroy(&decoder);
    apd_decoder_destroy(&decoder);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(huge_headers_take_no_memory),
        cmocka_unit_test(png_bomb_takes_rows_not_images),
        cmocka_unit_test(part_is_what_the_whole_has_there),
        cmocka_unit_test(planes_hold_the_same_pixels),
        cmocka_unit_test(header_tells_format_size_and_colour),
        cmocka_unit_test(file_cut_anywhere_is_refused),
        cmocka_unit_test(bytes_left_over_are_fine),
        cmocka_unit_test(jpeg_of_very_many_scans_is_refused),
        cmocka_unit_test(damage_below_the_part_is_not_seen),
        cmocka_unit_test(flipped_bits_are_refused_or_give_an_image),
        cmocka_unit_test(limit_is_the_decoders),
        cmocka_unit_test(unknown_files_are_told_by_magic),
        cmocka_unit_test(image_without_tables_is_refused_after_a_sound_one),
        cmocka_unit_test(centre_is_torchvisions),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
