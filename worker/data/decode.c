#include "worker/data/decode.h"

#include "worker/data/codec.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* Scratch beyond this is given back after the image that needed it. */
#define SCRATCH_KEPT ((size_t)16 << 20)

struct apd_decoder {
    uint64_t max_px;
    struct apd_resizer *resizer;
    struct apd_codec_scratch scratch;
};

enum apd_code apd_decoder_create(uint64_t max_px, struct apd_decoder **out, struct apd_err *err)
{
    struct apd_decoder *decoder = calloc(1, sizeof *decoder);
    enum apd_code rc;

    if (decoder == NULL)
        return apd_fail(err, APD_NOMEM, "an image decoder");
    decoder->max_px = max_px != 0 ? max_px : APD_DECODE_MAX_PX;
    APD_GO(apd_resizer_create(NULL, &decoder->resizer, err));
    *out = decoder;
    decoder = NULL;
done:
    apd_decoder_destroy(&decoder);
    return rc;
}

static void drop_scratch(struct apd_codec_scratch *scratch)
{
    free(scratch->data);
    *scratch = (struct apd_codec_scratch){0};
}

void apd_decoder_destroy(struct apd_decoder **decoder)
{
    struct apd_decoder *dead = *decoder;

    if (dead == NULL)
        return;
    apd_resizer_destroy(&dead->resizer);
    drop_scratch(&dead->scratch);
    free(dead);
    *decoder = NULL;
}

enum apd_code apd_codec_reserve(struct apd_codec_job *job, size_t bytes, struct apd_err *err)
{
    struct apd_codec_scratch *scratch = job->scratch;

    if (bytes <= scratch->bytes)
        return APD_OK;
    drop_scratch(scratch);
    scratch->data = malloc(bytes);
    if (scratch->data == NULL)
        return apd_fail(err, APD_NOMEM, "%s: %zu bytes for an image of %d x %d",
                        apd_codec_name(job->info.codec), bytes, job->info.w, job->info.h);
    scratch->bytes = bytes;
    return APD_OK;
}

/* ---- views ---- */

struct apd_view apd_view_centre(int w, int h, int side, int crop)
{
    int shorter = w < h ? w : h;
    struct apd_view view = {
        .w = (int)((int64_t)side * w / shorter),
        .h = (int)((int64_t)side * h / shorter),
    };

    assert(crop >= 1 && crop <= side);
    /* Halves go to the even neighbour, as Python's round does. */
    view.window = (struct apd_rect){
        .x = (int)lrint((view.w - crop) / 2.0),
        .y = (int)lrint((view.h - crop) / 2.0),
        .w = crop,
        .h = crop,
    };
    return view;
}

/* With every default filled in. */
static struct apd_view resolved(const struct apd_view *view, int w, int h)
{
    struct apd_view full = *view;

    if (full.box.w == 0)
        full.box = (struct apd_rect){.w = w, .h = h};
    if (full.w == 0) {
        full.w = full.box.w;
        full.h = full.box.h;
    }
    if (full.window.w == 0)
        full.window = (struct apd_rect){.w = full.w, .h = full.h};
    return full;
}

void apd_view_size(const struct apd_view *view, int w, int h, int *width, int *height)
{
    struct apd_view full = resolved(view, w, h);

    *width = full.window.w;
    *height = full.window.h;
}

static int is_inside(const struct apd_rect *rect, int w, int h)
{
    return rect->x >= 0 && rect->y >= 0 && rect->w >= 1 && rect->h >= 1 && rect->x <= w - rect->w &&
           rect->y <= h - rect->h;
}

/* ---- decoding ---- */

static enum apd_code inspect(const struct apd_decoder *decoder, const uint8_t *bytes, size_t size,
                             const struct apd_view *view, struct apd_image_info *out_info,
                             struct apd_view *out_view, struct apd_err *err)
{
    struct apd_image_info info;
    struct apd_view full = {0};

    APD_TRY(apd_image_probe(bytes, size, &info, err));
    if ((uint64_t)info.w * (uint64_t)info.h > decoder->max_px || info.w > APD_DECODE_MAX_SIDE ||
        info.h > APD_DECODE_MAX_SIDE)
        return apd_fail(err, APD_DATA,
                        "%s: the header declares %d x %d pixels, expected at most %" PRIu64
                        " in all and %d a side",
                        apd_codec_name(info.codec), info.w, info.h, decoder->max_px,
                        APD_DECODE_MAX_SIDE);
    full = resolved(view, info.w, info.h);
    if (!is_inside(&full.box, info.w, info.h) || !is_inside(&full.window, full.w, full.h))
        return apd_fail(err, APD_BUG,
                        "%d x %d at (%d, %d) of %d x %d at (%d, %d) is not inside of an image of "
                        "%d x %d",
                        full.window.w, full.window.h, full.window.x, full.window.y, full.box.w,
                        full.box.h, full.box.x, full.box.y, info.w, info.h);
    *out_info = info;
    *out_view = full;
    return APD_OK;
}

static enum apd_code decode(struct apd_decoder *decoder, struct apd_codec_job *job,
                            const struct apd_view *view, enum apd_layout layout, uint8_t *out,
                            struct apd_err *err)
{
    static enum apd_code (*const codecs[])(struct apd_codec_job *, struct apd_err *) = {
        [APD_CODEC_JPEG] = apd_codec_jpeg,
        [APD_CODEC_PNG] = apd_codec_png,
        [APD_CODEC_WEBP] = apd_codec_webp,
    };
    const struct apd_rect *box = &view->box, *window = &view->window;
    struct apd_resize_source source;
    struct apd_axis x = {box->w, view->w, window->x, window->w};
    struct apd_axis y = {box->h, view->h, window->y, window->h};
    enum apd_code rc;

    APD_TRY(apd_resizer_start(decoder->resizer, &x, &y, view->flip, layout, out, &source, err));
    job->part = (struct apd_rect){box->x + source.x, box->y + source.y, source.w, source.h};
    job->row_px = source.row_px;
    job->resizer = decoder->resizer;
    job->scratch = &decoder->scratch;
    rc = codecs[job->info.codec](job, err);
    if (decoder->scratch.bytes > SCRATCH_KEPT)
        drop_scratch(&decoder->scratch);
    return rc;
}

enum apd_code apd_decode(struct apd_decoder *decoder, const uint8_t *bytes, size_t size,
                         const struct apd_view *view, struct apd_image *out, struct apd_err *err)
{
    struct apd_codec_job job = {.bytes = bytes, .size = size};
    struct apd_view full = {0};

    APD_TRY(inspect(decoder, bytes, size, view, &job.info, &full, err));
    APD_TRY(apd_image_reserve(out, full.window.w, full.window.h, 3, err));
    return decode(decoder, &job, &full, APD_LAYOUT_INTERLEAVED, out->px, err);
}

enum apd_code apd_decode_planar(struct apd_decoder *decoder, const uint8_t *bytes, size_t size,
                                const struct apd_view *view, uint8_t *out_planes,
                                struct apd_err *err)
{
    struct apd_codec_job job = {.bytes = bytes, .size = size};
    struct apd_view full = {0};

    assert(view->w > 0);
    APD_TRY(inspect(decoder, bytes, size, view, &job.info, &full, err));
    return decode(decoder, &job, &full, APD_LAYOUT_PLANAR, out_planes, err);
}
