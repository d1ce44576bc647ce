/* WebP by libwebp, which decodes a part into memory of ours; its own memory is one row of blocks
 * for lossy images, the whole image (four bytes a pixel) for lossless ones. */
#include "worker/data/codec.h"

#include <webp/decode.h>

/* Decoded around the part, so that its chroma is interpolated as in the whole image. Even, as
 * libwebp wants it. */
#define MARGIN_PX 2

static enum apd_code failed(const struct apd_codec_job *job, VP8StatusCode status,
                            struct apd_err *err)
{
    static const char *const texts[] = {
        [VP8_STATUS_INVALID_PARAM] = "invalid parameter",
        [VP8_STATUS_BITSTREAM_ERROR] = "damaged data",
        [VP8_STATUS_UNSUPPORTED_FEATURE] = "unsupported feature",
        [VP8_STATUS_SUSPENDED] = "ends inside the image",
        [VP8_STATUS_NOT_ENOUGH_DATA] = "ends inside the image",
    };

    /* "Abort" is a failed setup of the output: of valid views, only for want of memory. */
    if (status == VP8_STATUS_OUT_OF_MEMORY || status == VP8_STATUS_USER_ABORT)
        return apd_fail(err, APD_NOMEM, "WebP: no memory for an image of %d x %d", job->info.w,
                        job->info.h);
    return apd_fail(err, APD_DATA, "WebP: %s, in %zu bytes", texts[status], job->size);
}

/* The part with its margin, beginning at even places. */
static struct apd_rect widened(const struct apd_codec_job *job)
{
    const struct apd_rect *part = &job->part;
    int x = part->x - MARGIN_PX, y = part->y - MARGIN_PX;
    int right = part->x + part->w + MARGIN_PX, bottom = part->y + part->h + MARGIN_PX;

    x = x < 0 ? 0 : x & ~1;
    y = y < 0 ? 0 : y & ~1;
    right = right > job->info.w ? job->info.w : right;
    bottom = bottom > job->info.h ? job->info.h : bottom;
    return (struct apd_rect){x, y, right - x, bottom - y};
}

enum apd_code apd_codec_webp(struct apd_codec_job *job, struct apd_err *err)
{
    struct apd_rect read = widened(job);
    size_t row_bytes = 4 * (size_t)read.w, bytes = row_bytes * (size_t)read.h;
    WebPDecoderConfig config;
    VP8StatusCode status;

    if (!WebPInitDecoderConfig(&config))
        return apd_fail(err, APD_BUG, "WebP: libwebp is another one than its header");
    APD_TRY(apd_codec_reserve(job, bytes + 4 * (size_t)job->row_px, err));
    config.options.use_cropping = 1;
    config.options.crop_left = read.x;
    config.options.crop_top = read.y;
    config.options.crop_width = read.w;
    config.options.crop_height = read.h;
    config.output.colorspace = MODE_RGBA;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = job->scratch->data;
    config.output.u.RGBA.stride = (int)row_bytes;
    config.output.u.RGBA.size = bytes;
    status = WebPDecode(job->bytes, job->size, &config);
    WebPFreeDecBuffer(&config.output);
    if (status != VP8_STATUS_OK)
        return failed(job, status, err);
    for (int y = job->part.y; y < job->part.y + job->part.h; y++)
        apd_resizer_row(job->resizer, job->scratch->data + (size_t)(y - read.y) * row_bytes +
                                          4 * (size_t)(job->part.x - read.x));
    return APD_OK;
}
