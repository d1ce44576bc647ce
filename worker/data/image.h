/* A decoded image in memory: u8 channels interleaved, rows packed without gaps. The buffer is kept
 * and grows, so that one struct serves a thread for all of its images. */
#ifndef APD_WORKER_DATA_IMAGE_H
#define APD_WORKER_DATA_IMAGE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct apd_image {
    int w, h, c;     /* c: 1 grey or 3 RGB */
    uint8_t *px;     /* [h][w][c] */
    size_t capacity; /* bytes allocated */
};

/* Makes room for w x h x c bytes and sets the sizes; contents are undefined. `= {0}` is a valid
 * empty image. On failure (APD_NOMEM) the image is what it was. */
APD_MUST_USE enum apd_code apd_image_reserve(struct apd_image *image, int w, int h, int c,
                                             struct apd_err *err);
/* Planes [c][h][w] into the rows of an image of that shape. */
void apd_image_interleave(const uint8_t *planes, struct apd_image *image);
void apd_image_fini(struct apd_image *image);

#endif
