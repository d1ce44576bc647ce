#include "worker/data/image.h"

#include <stdlib.h>

enum { SLACK = 64 }; /* SIMD loads may read this far behind the last pixel */

enum apd_code apd_image_reserve(struct apd_image *image, int w, int h, int c, struct apd_err *err)
{
    size_t bytes = (size_t)w * (size_t)h * (size_t)c + SLACK;

    if (bytes > image->capacity) {
        uint8_t *grown = realloc(image->px, bytes);

        if (grown == NULL)
            return apd_fail(err, APD_NOMEM, "an image of %d x %d x %d bytes", w, h, c);
        image->px = grown;
        image->capacity = bytes;
    }
    image->w = w;
    image->h = h;
    image->c = c;
    return APD_OK;
}

void apd_image_interleave(const uint8_t *planes, struct apd_image *image)
{
    size_t pixels = (size_t)image->w * (size_t)image->h, c = (size_t)image->c;

    for (size_t i = 0; i < pixels * c; i++)
        image->px[i] = planes[i % c * pixels + i / c];
}

void apd_image_fini(struct apd_image *image)
{
    free(image->px);
    *image = (struct apd_image){0};
}
