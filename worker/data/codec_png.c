/* PNG by libspng: row by row down to the end of the part; an interlaced image as a whole. CRCs of
 * all chunks that are read are checked. */
#include "worker/data/codec.h"

#include <spng.h>
#include <stdlib.h>

/* One chunk besides pixels, and all of them together: profiles and texts, which are not used. */
#define MAX_CHUNK_BYTES  ((size_t)8 << 20)
#define MAX_CHUNKS_BYTES ((size_t)16 << 20)

/* zlib's lack of memory comes back as a damaged stream: what tells it apart is the allocator. */
static _Thread_local int memory_ended;

static void *noted(void *p)
{
    if (p == NULL)
        memory_ended = 1;
    return p;
}

static void *take(size_t bytes)
{
    return noted(malloc(bytes));
}

static void *take_more(void *old, size_t bytes)
{
    return noted(realloc(old, bytes));
}

static void *take_zeroed(size_t count, size_t bytes)
{
    return noted(calloc(count, bytes));
}

static enum apd_code failed(const struct apd_codec_job *job, int status, int row,
                            struct apd_err *err)
{
    if (status == SPNG_EMEM || memory_ended)
        return apd_fail(err, APD_NOMEM, "PNG: no memory for an image of %d x %d", job->info.w,
                        job->info.h);
    return apd_fail(err, APD_DATA, "PNG: %s, in row %d of %d", spng_strerror(status), row,
                    job->info.h);
}

/* 16-bit grey stays 16-bit, for the conversion below. */
static int format_of(const struct apd_image_info *info)
{
    return info->colour == APD_COLOUR_GREY && info->bits == 16 ? SPNG_FMT_PNG : SPNG_FMT_RGBA8;
}

/* Pillow's conversion of 16-bit grey ("I") to RGB: not scaled, cut off at 255. Other 16-bit images
 * are scaled, by it and by libspng. */
static void rgb_from_grey16(const uint8_t *grey, size_t w, uint8_t *rgb)
{
    const uint16_t *from = (const uint16_t *)(const void *)grey;

    for (size_t i = 0; i < w; i++)
        for (int c = 0; c < 3; c++)
            rgb[4 * i + c] = from[i] > 255 ? 255 : (uint8_t)from[i];
}

/* Hands over one decoded row; `spare` takes a converted one. */
static void use_row(const struct apd_codec_job *job, int row, uint8_t *pixels, uint8_t *spare)
{
    if (row < job->part.y)
        return;
    if (format_of(&job->info) == SPNG_FMT_PNG) {
        rgb_from_grey16(pixels, (size_t)job->info.w, spare);
        pixels = spare;
    }
    apd_resizer_row(job->resizer, pixels + 4 * (size_t)job->part.x);
}

static enum apd_code decode_rows(struct apd_codec_job *job, spng_ctx *png, size_t row_bytes,
                                 uint8_t *row, uint8_t *spare, struct apd_err *err)
{
    int status = spng_decode_image(png, NULL, 0, format_of(&job->info), SPNG_DECODE_PROGRESSIVE);

    for (int y = 0; y < job->part.y + job->part.h; y++) {
        if (status == SPNG_OK)
            status = spng_decode_row(png, row, row_bytes);
        if (status != SPNG_OK && status != SPNG_EOI)
            return failed(job, status, y, err);
        use_row(job, y, row, spare);
    }
    return APD_OK;
}

static enum apd_code decode_whole(struct apd_codec_job *job, spng_ctx *png, size_t row_bytes,
                                  uint8_t *image, uint8_t *spare, struct apd_err *err)
{
    size_t h = (size_t)job->info.h;
    int status = spng_decode_image(png, image, row_bytes * h, format_of(&job->info), 0);

    if (status != SPNG_OK)
        return failed(job, status, 0, err);
    for (int y = job->part.y; y < job->part.y + job->part.h; y++)
        use_row(job, y, image + (size_t)y * row_bytes, spare);
    return APD_OK;
}

static enum apd_code decode(struct apd_codec_job *job, spng_ctx *png, struct apd_err *err)
{
    size_t w = (size_t)job->info.w, rows = job->info.progressive ? (size_t)job->info.h : 1;
    size_t row_bytes = w * (format_of(&job->info) == SPNG_FMT_PNG ? 2 : 4);
    size_t slack = 4 * (size_t)job->row_px;
    uint8_t *spare, *pixels;
    int status = spng_set_image_limits(png, (uint32_t)job->info.w, (uint32_t)job->info.h);

    if (status == SPNG_OK)
        status = spng_set_chunk_limits(png, MAX_CHUNK_BYTES, MAX_CHUNKS_BYTES);
    if (status == SPNG_OK)
        status = spng_set_crc_action(png, SPNG_CRC_ERROR, SPNG_CRC_ERROR);
    if (status == SPNG_OK)
        status = spng_set_png_buffer(png, job->bytes, job->size);
    if (status != SPNG_OK)
        return failed(job, status, 0, err);
    APD_TRY(apd_codec_reserve(job, 4 * w + slack + row_bytes * rows + slack, err));
    spare = job->scratch->data;
    pixels = spare + 4 * w + slack;
    if (job->info.progressive)
        return decode_whole(job, png, row_bytes, pixels, spare, err);
    return decode_rows(job, png, row_bytes, pixels, spare, err);
}

enum apd_code apd_codec_png(struct apd_codec_job *job, struct apd_err *err)
{
    struct spng_alloc allocator = {take, take_more, take_zeroed, free};
    spng_ctx *png;
    enum apd_code rc;

    memory_ended = 0;
    png = spng_ctx_new2(&allocator, 0);
    if (png == NULL)
        return failed(job, SPNG_EMEM, 0, err);
    rc = decode(job, png, err);
    spng_ctx_free(png);
    return rc;
}
