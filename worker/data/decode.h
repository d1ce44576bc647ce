/* JPEG, PNG and WebP files to RGB pixels: what Pillow's Image.open(f).convert("RGB"), crop and
 * bilinear resize give, without decoding or holding more of the image than the result needs
 * (docs/images.md). EXIF orientation, colour profiles and gamma are ignored, as there.
 *
 * A decoder belongs to one thread at a time and keeps its buffers from image to image. What comes
 * out depends on the bytes and the view only. */
#ifndef APD_WORKER_DATA_DECODE_H
#define APD_WORKER_DATA_DECODE_H

#include "base/err.h"
#include "worker/data/image.h"
#include "worker/data/probe.h"

#include <stddef.h>
#include <stdint.h>

struct apd_rect {
    int x, y, w, h;
};

/* What is wanted of an image: `box` of it is resized to w x h; of that, `window` is kept, and
 * mirrored left to right if `flip`. = {0} is the whole image as it is.
 *
 * The box is cut out first: pixels outside of it have no influence, as in torchvision's
 * RandomResizedCrop. The window is cut out last: its pixels are those of the whole resized box. */
struct apd_view {
    struct apd_rect box;    /* in the image; w = 0: all of it */
    int w, h;               /* w = 0: the box is not resized */
    struct apd_rect window; /* in w x h; w = 0: all of it */
    int flip;
};

/* Largest image that is decoded unless said otherwise, and the longest side of any, in pixels. */
#define APD_DECODE_MAX_PX   (UINT64_C(64) << 20)
#define APD_DECODE_MAX_SIDE 65535

struct apd_decoder;

/* Images of more than max_px pixels are refused by their header, before memory is taken for them;
 * 0: APD_DECODE_MAX_PX. */
APD_MUST_USE enum apd_code apd_decoder_create(uint64_t max_px, struct apd_decoder **out,
                                              struct apd_err *err);
/* NULL ok; nulls. */
void apd_decoder_destroy(struct apd_decoder **decoder);

/* The evaluation's view of a w x h image, as torchvision's Resize(side), CenterCrop(crop): the
 * shorter side becomes `side` pixels, the longer one keeps the ratio, rounded down; of that the
 * middle crop x crop. 1 <= crop <= side. */
struct apd_view apd_view_centre(int w, int h, int side, int crop);

/* Pixels in *width x *height of the result for an image of w x h. */
void apd_view_size(const struct apd_view *view, int w, int h, int *width, int *height);

/* Decodes what `view` wants of the file `bytes` into *out, RGB. APD_DATA: the file is damaged in
 * the part that was read, too large, or of a kind that is not decoded; the message says what was
 * found, and where if the library knows. APD_BUG: a view outside of the image. On failure the
 * pixels of *out are undefined. */
APD_MUST_USE enum apd_code apd_decode(struct apd_decoder *decoder, const uint8_t *bytes,
                                      size_t size, const struct apd_view *view,
                                      struct apd_image *out, struct apd_err *err);

/* The same into three planes: out_planes is [3][h][w] of the view's size, which must be fixed by
 * the view (w > 0). */
APD_MUST_USE enum apd_code apd_decode_planar(struct apd_decoder *decoder, const uint8_t *bytes,
                                             size_t size, const struct apd_view *view,
                                             uint8_t *out_planes, struct apd_err *err);

#endif
