/* What an image file is, from its first bytes: format by magic, never by name; size and colour from
 * the header. Nothing is decoded and nothing allocated. Pure. */
#ifndef APD_WORKER_DATA_PROBE_H
#define APD_WORKER_DATA_PROBE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum apd_codec { APD_CODEC_JPEG, APD_CODEC_PNG, APD_CODEC_WEBP };

enum apd_colour {
    APD_COLOUR_GREY,
    APD_COLOUR_GREY_ALPHA,
    APD_COLOUR_RGB, /* JPEG: YCbCr, or RGB; decoding tells them apart */
    APD_COLOUR_RGB_ALPHA,
    APD_COLOUR_PALETTE,
    APD_COLOUR_CMYK,
    APD_COLOUR_YCCK,
};

struct apd_image_info {
    enum apd_codec codec;
    int w, h;
    enum apd_colour colour;
    int bits;        /* of a channel, or of a palette's index */
    int progressive; /* comes in several scans (JPEG), interlaced (PNG) */
};

/* `bytes`: the whole file. APD_DATA: no image of a known format, or a header that is damaged or of
 * a kind that is not decoded; the message names what was found where. */
APD_MUST_USE enum apd_code apd_image_probe(const uint8_t *bytes, size_t size,
                                           struct apd_image_info *out, struct apd_err *err);

const char *apd_codec_name(enum apd_codec codec);    /* "JPEG" */
const char *apd_colour_name(enum apd_colour colour); /* "grey and alpha" */

#endif
