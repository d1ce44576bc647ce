#include "worker/data/probe.h"

#include <string.h>
#include <webp/decode.h>

/* JPEG markers, ITU T.81 table B.1. */
enum {
    SOF0 = 0xc0,  /* baseline */
    SOF1 = 0xc1,  /* extended sequential */
    SOF2 = 0xc2,  /* progressive */
    DHT = 0xc4,   /* the gaps among the SOFs are other markers */
    JPG = 0xc8,   /* reserved */
    SOF9 = 0xc9,  /* sequential, arithmetic coding */
    SOF10 = 0xca, /* progressive, arithmetic coding */
    DAC = 0xcc,
    SOF15 = 0xcf,
    RST0 = 0xd0,
    RST7 = 0xd7,
    SOI = 0xd8,
    EOI = 0xd9,
    SOS = 0xda,
    APP14 = 0xee,
    TEM = 0x01,
};

static const uint8_t png_magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

static unsigned big16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static uint32_t big32(const uint8_t *at)
{
    return (uint32_t)big16(at) << 16 | big16(at + 2);
}

/* ---- JPEG ---- */

struct segment {
    int marker;
    size_t at;           /* of its length field */
    const uint8_t *body; /* behind the length */
    size_t size;         /* of the body */
};

static int is_frame(int marker)
{
    return marker >= SOF0 && marker <= SOF15 && marker != DHT && marker != JPG && marker != DAC;
}

static int is_bare(int marker)
{
    return (marker >= RST0 && marker <= RST7) || marker == SOI || marker == TEM;
}

/* The next segment with a length from *at on; what is between segments is passed over, as
 * libjpeg does. */
static enum apd_code next_segment(const uint8_t *bytes, size_t size, size_t *at,
                                  struct segment *out, struct apd_err *err)
{
    size_t i = *at, length;

    for (;;) {
        while (i < size && bytes[i] != 0xff)
            i++;
        while (i < size && bytes[i] == 0xff)
            i++;
        if (i >= size)
            return apd_fail(err, APD_DATA, "JPEG: ends at offset %zu, before its frame header",
                            size);
        out->marker = bytes[i++];
        if (out->marker != 0 && !is_bare(out->marker))
            break;
    }
    if (out->marker == EOI || out->marker == SOS)
        return apd_fail(err, APD_DATA,
                        "JPEG: marker 0x%02x at offset %zu, expected a frame header before",
                        out->marker, i - 1);
    length = size - i >= 2 ? big16(bytes + i) : 0;
    if (length < 2 || length > size - i)
        return apd_fail(err, APD_DATA,
                        "JPEG: segment 0x%02x at offset %zu of %zu bytes, found %zu to the end",
                        out->marker, i - 1, length, size - i);
    out->at = i;
    out->body = bytes + i + 2;
    out->size = length - 2;
    *at = i + length;
    return APD_OK;
}

/* precision, height, width, number of components. */
static enum apd_code read_frame(const struct segment *frame, int adobe_transform,
                                struct apd_image_info *out, struct apd_err *err)
{
    const uint8_t *body = frame->body;

    if (frame->marker != SOF0 && frame->marker != SOF1 && frame->marker != SOF2 &&
        frame->marker != SOF9 && frame->marker != SOF10)
        return apd_fail(err, APD_DATA,
                        "JPEG: frame type 0x%02x at offset %zu (lossless or hierarchical) is not "
                        "decoded",
                        frame->marker, frame->at - 1);
    if (frame->size < 6)
        return apd_fail(err, APD_DATA, "JPEG: frame header at offset %zu has %zu bytes, expected 6",
                        frame->at, frame->size);
    if (body[0] != 8)
        return apd_fail(err, APD_DATA, "JPEG: %d bits a channel at offset %zu, expected 8", body[0],
                        frame->at + 2);
    if (body[5] != 1 && body[5] != 3 && body[5] != 4)
        return apd_fail(err, APD_DATA, "JPEG: %d channels at offset %zu, expected 1, 3 or 4",
                        body[5], frame->at + 7);
    out->bits = body[0];
    out->h = (int)big16(body + 1);
    out->w = (int)big16(body + 3);
    out->progressive = frame->marker == SOF2 || frame->marker == SOF10;
    out->colour = body[5] == 1          ? APD_COLOUR_GREY
                  : body[5] == 3        ? APD_COLOUR_RGB
                  : adobe_transform > 0 ? APD_COLOUR_YCCK
                                        : APD_COLOUR_CMYK;
    if (out->w == 0 || out->h == 0)
        return apd_fail(err, APD_DATA, "JPEG: %d x %d pixels at offset %zu", out->w, out->h,
                        frame->at + 3);
    return APD_OK;
}

static enum apd_code probe_jpeg(const uint8_t *bytes, size_t size, struct apd_image_info *out,
                                struct apd_err *err)
{
    int adobe_transform = 0;
    struct segment segment = {0};
    size_t at = 2;

    for (;;) {
        APD_TRY(next_segment(bytes, size, &at, &segment, err));
        if (is_frame(segment.marker))
            return read_frame(&segment, adobe_transform, out, err);
        if (segment.marker == APP14 && segment.size >= 12 && memcmp(segment.body, "Adobe", 5) == 0)
            adobe_transform = segment.body[11];
    }
}

/* ---- PNG ---- */

/* The first chunk: length 13, "IHDR", width, height, bits, colour type, three methods. */
static enum apd_code probe_png(const uint8_t *bytes, size_t size, struct apd_image_info *out,
                               struct apd_err *err)
{
    static const enum apd_colour colours[] = {
        [0] = APD_COLOUR_GREY,       [2] = APD_COLOUR_RGB,       [3] = APD_COLOUR_PALETTE,
        [4] = APD_COLOUR_GREY_ALPHA, [6] = APD_COLOUR_RGB_ALPHA,
    };
    uint32_t w, h;
    int type;

    if (size < 29 || big32(bytes + 8) != 13 || memcmp(bytes + 12, "IHDR", 4) != 0)
        return apd_fail(err, APD_DATA,
                        "PNG: no header chunk (IHDR, 13 bytes) at offset 8 of %zu bytes", size);
    w = big32(bytes + 16);
    h = big32(bytes + 20);
    type = bytes[25];
    if (w == 0 || h == 0 || w > INT32_MAX || h > INT32_MAX)
        return apd_fail(err, APD_DATA, "PNG: %u x %u pixels at offset 16", w, h);
    if (type > 6 || type == 1 || type == 5)
        return apd_fail(err, APD_DATA, "PNG: colour type %d at offset 25, expected 0, 2, 3, 4 or 6",
                        type);
    out->w = (int)w;
    out->h = (int)h;
    out->bits = bytes[24];
    out->colour = colours[type];
    out->progressive = bytes[28] != 0;
    return APD_OK;
}

/* ---- WebP ---- */

static enum apd_code probe_webp(const uint8_t *bytes, size_t size, struct apd_image_info *out,
                                struct apd_err *err)
{
    WebPBitstreamFeatures features;
    VP8StatusCode status = WebPGetFeatures(bytes, size, &features);

    if (status == VP8_STATUS_NOT_ENOUGH_DATA)
        return apd_fail(err, APD_DATA, "WebP: ends at offset %zu, inside its header", size);
    if (status != VP8_STATUS_OK)
        return apd_fail(err, APD_DATA, "WebP: damaged header (libwebp status %d)", (int)status);
    if (features.has_animation)
        return apd_fail(err, APD_DATA, "WebP: an animation, expected a single image");
    out->w = features.width;
    out->h = features.height;
    out->bits = 8;
    out->colour = features.has_alpha ? APD_COLOUR_RGB_ALPHA : APD_COLOUR_RGB;
    out->progressive = 0;
    return APD_OK;
}

enum apd_code apd_image_probe(const uint8_t *bytes, size_t size, struct apd_image_info *out,
                              struct apd_err *err)
{
    static enum apd_code (*const probes[])(const uint8_t *, size_t, struct apd_image_info *,
                                           struct apd_err *) = {
        [APD_CODEC_JPEG] = probe_jpeg,
        [APD_CODEC_PNG] = probe_png,
        [APD_CODEC_WEBP] = probe_webp,
    };
    struct apd_image_info info = {0};

    if (size >= 3 && bytes[0] == 0xff && bytes[1] == SOI && bytes[2] == 0xff)
        info.codec = APD_CODEC_JPEG;
    else if (size >= sizeof png_magic && memcmp(bytes, png_magic, sizeof png_magic) == 0)
        info.codec = APD_CODEC_PNG;
    else if (size >= 12 && memcmp(bytes, "RIFF", 4) == 0 && memcmp(bytes + 8, "WEBP", 4) == 0)
        info.codec = APD_CODEC_WEBP;
    else
        return apd_fail(err, APD_DATA,
                        "neither JPEG, PNG nor WebP: %zu bytes, the first ones are 0x%08x", size,
                        size >= 4 ? big32(bytes) : 0);
    APD_TRY(probes[info.codec](bytes, size, &info, err));
    *out = info;
    return APD_OK;
}

const char *apd_codec_name(enum apd_codec codec)
{
    static const char *const names[] = {
        [APD_CODEC_JPEG] = "JPEG", [APD_CODEC_PNG] = "PNG", [APD_CODEC_WEBP] = "WebP"};

    return names[codec];
}

const char *apd_colour_name(enum apd_colour colour)
{
    static const char *const names[] = {
        [APD_COLOUR_GREY] = "grey",       [APD_COLOUR_GREY_ALPHA] = "grey and alpha",
        [APD_COLOUR_RGB] = "colour",      [APD_COLOUR_RGB_ALPHA] = "colour and alpha",
        [APD_COLOUR_PALETTE] = "palette", [APD_COLOUR_CMYK] = "CMYK",
        [APD_COLOUR_YCCK] = "YCCK",
    };

    return names[colour];
}
