/* JPEG by libjpeg-turbo: only the rows and columns of the part. Never scaled by its transform,
 * which would clip colours after averaging them, not before (docs/images.md).
 *
 * libjpeg reports errors by a call that must not return, so each image is decoded below one setjmp;
 * all state that outlives the jump is in struct reader. Every image has a libjpeg object of its
 * own: a kept one would lend an image without tables those of the image before. */
#include "worker/data/codec.h"

#include <setjmp.h>
#include <stdio.h>

#include <jpeglib.h>

#include <jerror.h> /* depends on jpeglib.h */

/* Decoded around the part, so that its chroma is interpolated as in the whole image: one chroma
 * pixel. */
#define MARGIN_PX 2
/* Scans of an image; each costs a pass over all of it, however few bytes it has. */
#define MAX_SCANS 200

struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    struct apd_codec_job *job;
    struct apd_err *err;
};

/* ---- what libjpeg calls ---- */

static struct reader *reader_of(j_common_ptr jpeg)
{
    return jpeg->client_data;
}

static size_t offset_of(const struct reader *reader)
{
    return reader->job->size - reader->source.bytes_in_buffer;
}

static void on_error(j_common_ptr jpeg)
{
    struct reader *reader = reader_of(jpeg);
    enum apd_code code = jpeg->err->msg_code == JERR_OUT_OF_MEMORY ? APD_NOMEM : APD_DATA;
    char text[JMSG_LENGTH_MAX];

    jpeg->err->format_message(jpeg, text);
    (void)apd_fail(reader->err, code, "JPEG: %s, after %zu of %zu bytes", text, offset_of(reader),
                   reader->job->size);
    longjmp(reader->escape, 1);
}

/* Pixels are made up behind these. */
static int is_damage(int code)
{
    return code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE || code == JWRN_ARITH_BAD_CODE ||
           code == JWRN_MUST_RESYNC;
}

static void on_message(j_common_ptr jpeg, int level)
{
    if (level < 0 && is_damage(jpeg->err->msg_code))
        on_error(jpeg);
}

static void on_progress(j_common_ptr jpeg)
{
    struct reader *reader = reader_of(jpeg);

    if (reader->jpeg.input_scan_number <= MAX_SCANS)
        return;
    (void)apd_fail(reader->err, APD_DATA, "JPEG: more than %d scans at offset %zu", MAX_SCANS,
                   offset_of(reader));
    longjmp(reader->escape, 1);
}

static void on_start_or_end(j_decompress_ptr jpeg)
{
    (void)jpeg;
}

/* All bytes were there from the start. */
static boolean on_empty(j_decompress_ptr jpeg)
{
    struct reader *reader = jpeg->client_data;

    (void)apd_fail(reader->err, APD_DATA, "JPEG: ends at offset %zu, inside the image",
                   reader->job->size);
    longjmp(reader->escape, 1);
}

static void on_skip(j_decompress_ptr jpeg, long bytes)
{
    if (bytes <= 0)
        return;
    if ((size_t)bytes > jpeg->src->bytes_in_buffer)
        (void)on_empty(jpeg);
    jpeg->src->next_input_byte += bytes;
    jpeg->src->bytes_in_buffer -= (size_t)bytes;
}

static void prepare(struct reader *reader)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;

    jpeg->err = jpeg_std_error(&reader->errors);
    reader->errors.error_exit = on_error;
    reader->errors.emit_message = on_message;
    reader->progress.progress_monitor = on_progress;
    reader->source = (struct jpeg_source_mgr){
        .next_input_byte = reader->job->bytes,
        .bytes_in_buffer = reader->job->size,
        .init_source = on_start_or_end,
        .fill_input_buffer = on_empty,
        .skip_input_data = on_skip,
        .resync_to_restart = jpeg_resync_to_restart,
        .term_source = on_start_or_end,
    };
    jpeg->client_data = reader;
}

/* ---- decoding ---- */

static enum apd_code start(struct reader *reader)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    const struct apd_image_info *info = &reader->job->info;

    jpeg_create_decompress(jpeg);
    jpeg->src = &reader->source;
    jpeg->progress = &reader->progress;
    (void)jpeg_read_header(jpeg, TRUE);
    if ((int)jpeg->image_width != info->w || (int)jpeg->image_height != info->h)
        return apd_fail(reader->err, APD_DATA, "JPEG: frame headers of %d x %d and %u x %u pixels",
                        info->w, info->h, jpeg->image_width, jpeg->image_height);
    jpeg->out_color_space = jpeg->num_components == 4 ? JCS_CMYK : JCS_EXT_RGBX;
    (void)jpeg_start_decompress(jpeg);
    return APD_OK;
}

/* [*begin, *begin + *size) with a margin, inside of [0, whole). */
static void widen(int at, int size, JDIMENSION whole, JDIMENSION *begin, JDIMENSION *out_size)
{
    JDIMENSION end = (JDIMENSION)(at + size) + MARGIN_PX;

    *begin = at < MARGIN_PX ? 0 : (JDIMENSION)at - MARGIN_PX;
    *out_size = (end > whole ? whole : end) - *begin;
}

static uint8_t product(int a, int b)
{
    int t = a * b + 128;

    return (uint8_t)((t + (t >> 8)) >> 8);
}

/* To R G B x in place. CMYK is stored inverted: Pillow takes that for granted, too. */
static void rgb_from_cmyk(uint8_t *row, size_t w)
{
    for (size_t i = 0; i < w; i++, row += 4)
        for (int c = 0; c < 3; c++)
            row[c] = (uint8_t)(row[3] - product(255 - row[c], row[3]));
}

static enum apd_code read_part(struct reader *reader)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    struct apd_codec_job *job = reader->job;
    const struct apd_rect *part = &job->part;
    JDIMENSION x, w, y, h;
    JSAMPROW rows[MAX_SAMP_FACTOR];
    size_t row_px, lead;

    widen(part->x, part->w, jpeg->output_width, &x, &w);
    widen(part->y, part->h, jpeg->output_height, &y, &h);
    if (w < jpeg->output_width)
        jpeg_crop_scanline(jpeg, &x, &w);
    lead = (size_t)part->x - x;
    row_px = w > lead + (size_t)job->row_px ? w : lead + (size_t)job->row_px;
    APD_TRY(apd_codec_reserve(job, 4 * row_px * MAX_SAMP_FACTOR, reader->err));
    for (size_t i = 0; i < MAX_SAMP_FACTOR; i++)
        rows[i] = job->scratch->data + 4 * row_px * i;
    if (y > 0)
        (void)jpeg_skip_scanlines(jpeg, y);
    while (jpeg->output_scanline < y + h) {
        JDIMENSION at = jpeg->output_scanline, left = y + h - at;
        JDIMENSION n =
            jpeg_read_scanlines(jpeg, rows, left < MAX_SAMP_FACTOR ? left : MAX_SAMP_FACTOR);

        for (JDIMENSION i = 0; i < n; i++) {
            if (at + i < (JDIMENSION)part->y)
                continue;
            if (jpeg->out_color_space == JCS_CMYK)
                rgb_from_cmyk(rows[i], w);
            apd_resizer_row(job->resizer, rows[i] + 4 * lead);
        }
    }
    if (jpeg->output_scanline == jpeg->output_height)
        (void)jpeg_finish_decompress(jpeg);
    return APD_OK;
}

static enum apd_code read_guarded(struct reader *reader)
{
    if (setjmp(reader->escape) != 0)
        return reader->err->code;
    APD_TRY(start(reader));
    return read_part(reader);
}

enum apd_code apd_codec_jpeg(struct apd_codec_job *job, struct apd_err *err)
{
    struct reader reader = {.job = job, .err = err};
    enum apd_code rc;

    prepare(&reader);
    rc = read_guarded(&reader);
    jpeg_destroy_decompress(&reader.jpeg);
    return rc;
}
