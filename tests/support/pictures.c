#include "tests/support/pictures.h"

#include "tests/support/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <spng.h>
#include <webp/encode.h>

static void *must(void *memory)
{
    if (memory == NULL)
        abort();
    return memory;
}

uint8_t *picture_pattern(int w, int h)
{
    struct test_random random = {.state = 7};
    uint8_t *px = must(malloc((size_t)w * (size_t)h * 3)), *at = px;

    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++) {
                double wave = sin((x + 3 * c) / 7.0 + y / 11.0) * sin(x * (c + 1) / 50.0 - y / 5.0);
                int edge = (x / 13 + y / 17 + c) % 3 == 0 ? 40 : 0;

                *at++ = (uint8_t)(108 + 80 * wave + edge + (double)test_below(&random, 40) - 20);
            }
    return px;
}

/* ---- JPEG ---- */

static void describe(struct jpeg_compress_struct *jpeg, const struct picture_jpeg *kind)
{
    int channels = kind->channels != 0 ? kind->channels : 3;

    jpeg->image_width = (JDIMENSION)kind->w;
    jpeg->image_height = (JDIMENSION)kind->h;
    jpeg->input_components = channels;
    jpeg->in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(jpeg);
    jpeg_set_quality(jpeg, kind->quality != 0 ? kind->quality : 90, TRUE);
    if (kind->rgb)
        jpeg_set_colorspace(jpeg, JCS_RGB);
    if (kind->ycck)
        jpeg_set_colorspace(jpeg, JCS_YCCK);
    for (int i = 0; i < jpeg->num_components; i++)
        jpeg->comp_info[i].h_samp_factor = jpeg->comp_info[i].v_samp_factor = 1;
    for (int i = 0; i < jpeg->num_components; i += 3) { /* luma, and black */
        jpeg->comp_info[i].h_samp_factor = kind->h_samp != 0 ? kind->h_samp : 1;
        jpeg->comp_info[i].v_samp_factor = kind->v_samp != 0 ? kind->v_samp : 1;
    }
    if (kind->progressive)
        jpeg_simple_progression(jpeg);
    jpeg->arith_code = kind->arithmetic ? TRUE : FALSE;
    jpeg->restart_interval = (unsigned)kind->restart_interval;
}

uint8_t *picture_make_jpeg(const struct picture_jpeg *kind, size_t *out_size)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    uint8_t *pattern = picture_pattern(kind->w, kind->h), *row = must(malloc((size_t)kind->w * 4));
    unsigned char *out = NULL;
    unsigned long size = 0;

    jpeg.err = jpeg_std_error(&errors); /* exits on errors */
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &out, &size);
    describe(&jpeg, kind);
    jpeg_start_compress(&jpeg, TRUE);
    for (int y = 0; y < kind->h; y++) {
        for (int x = 0; x < kind->w; x++)
            for (int c = 0; c < jpeg.input_components; c++)
                row[x * jpeg.input_components + c] =
                    pattern[((size_t)y * (size_t)kind->w + (size_t)x) * 3 + (size_t)(c % 3)];
        (void)jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    free(pattern);
    free(row);
    *out_size = size;
    return out;
}

/* ---- PNG ---- */

static void check(int status)
{
    if (status != 0) {
        fprintf(stderr, "libspng: %s\n", spng_strerror(status));
        abort();
    }
}

uint8_t *picture_make_png(const struct picture_png *kind, size_t *out_size)
{
    static const int channels[] = {1, 0, 3, 1, 2, 0, 4};
    size_t row_bits = (size_t)kind->w * (size_t)(channels[kind->colour_type] * kind->bits);
    size_t size = (row_bits + 7) / 8 * (size_t)kind->h;
    uint8_t *px = must(malloc(size)), *pattern = picture_pattern(kind->w * 2, kind->h * 2);
    struct spng_plte palette = {.n_entries = 1u << (kind->bits <= 8 ? kind->bits : 8)};
    struct spng_ihdr header = {.width = (uint32_t)kind->w,
                               .height = (uint32_t)kind->h,
                               .bit_depth = (uint8_t)kind->bits,
                               .color_type = (uint8_t)kind->colour_type,
                               .interlace_method = (uint8_t)(kind->interlaced != 0)};
    spng_ctx *png = must(spng_ctx_new(SPNG_CTX_ENCODER));
    uint8_t *out;
    int status;

    for (size_t i = 0; i < size; i++)
        px[i] = pattern[i % ((size_t)kind->w * (size_t)kind->h * 12)];
    for (uint32_t i = 0; i < palette.n_entries; i++)
        palette.entries[i] = (struct spng_plte_entry){
            .red = (uint8_t)(i * 7), .green = (uint8_t)(255 - i), .blue = (uint8_t)(i * 31)};
    check(spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1));
    check(spng_set_ihdr(png, &header));
    if (kind->colour_type == SPNG_COLOR_TYPE_INDEXED)
        check(spng_set_plte(png, &palette));
    check(spng_encode_image(png, px, size, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE));
    out = must(spng_get_png_buffer(png, out_size, &status));
    check(status);
    spng_ctx_free(png);
    free(px);
    free(pattern);
    return out;
}

/* ---- WebP ---- */

uint8_t *picture_make_webp(int w, int h, int lossless, int alpha, size_t *out_size)
{
    uint8_t *pattern = picture_pattern(w, h), *px = must(malloc((size_t)w * (size_t)h * 4));
    uint8_t *out = NULL;

    for (size_t i = 0; i < (size_t)w * (size_t)h; i++) {
        memcpy(px + 4 * i, pattern + 3 * i, 3);
        px[4 * i + 3] = alpha ? (uint8_t)(128 + pattern[3 * i] / 2) : 255;
    }
    *out_size = lossless ? WebPEncodeLosslessRGBA(px, w, h, 4 * w, &out)
                         : WebPEncodeRGBA(px, w, h, 4 * w, 80, &out);
    if (*out_size == 0)
        abort();
    free(px);
    free(pattern);
    return out; /* WebPFree is free */
}
