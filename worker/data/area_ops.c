#include "worker/data/area_ops.h"

#include "worker/data/blend.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define PI 3.14159265358979323846

static void swap(struct apd_image *a, struct apd_image *b)
{
    struct apd_image t = *a;

    *a = *b;
    *b = t;
}

static int32_t fixed16(double v)
{
    return (int32_t)floor(v * 65536 + 0.5);
}

/* A way through the source in 16.16 fixed point. */
struct walk {
    int32_t x, y, step_x, step_y;
};

static inline void walk_row(const struct apd_image *src, struct walk at, size_t c, uint8_t *dst)
{
    size_t w = (size_t)src->w;

    for (size_t i = 0; i < w; i++, at.x += at.step_x, at.y += at.step_y, dst += c) {
        size_t x = (size_t)(at.x >> 16), y = (size_t)(at.y >> 16);

        if (x < w && y < (size_t)src->h)
            memcpy(dst, src->px + (y * w + x) * c, c);
        else
            memset(dst, 0, c);
    }
}

/* The same for steps of one pixel to the right. */
static void copy_row(const struct apd_image *src, struct walk at, size_t c, uint8_t *dst)
{
    int w = src->w, x = at.x >> 16, y = at.y >> 16;
    int first = x < 0 ? -x : 0, last = x > 0 ? w - x : w;

    memset(dst, 0, (size_t)w * c);
    if (first < last && y >= 0 && y < src->h)
        memcpy(dst + (size_t)first * c, src->px + ((size_t)y * (size_t)w + (size_t)(first + x)) * c,
               (size_t)(last - first) * c);
}

static void affine_row(const struct apd_image *src, struct walk at, uint8_t *dst)
{
    if (at.step_x == 1 << 16 && at.step_y == 0)
        copy_row(src, at, (size_t)src->c, dst);
    else if (src->c == 3)
        walk_row(src, at, 3, dst);
    else
        walk_row(src, at, 1, dst);
}

enum apd_code apd_op_affine(struct apd_image *image, const double m[6], struct apd_image *spare,
                            struct apd_err *err)
{
    struct walk at = {
        .x = fixed16(m[2] + m[0] * 0.5 + m[1] * 0.5),
        .y = fixed16(m[5] + m[3] * 0.5 + m[4] * 0.5),
        .step_x = fixed16(m[0]),
        .step_y = fixed16(m[3]),
    };
    int32_t down_x = fixed16(m[1]), down_y = fixed16(m[4]);
    size_t row_bytes = (size_t)image->w * (size_t)image->c;

    APD_TRY(apd_image_reserve(spare, image->w, image->h, image->c, err));
    for (int row = 0; row < image->h; row++, at.x += down_x, at.y += down_y)
        affine_row(image, at, spare->px + (size_t)row * row_bytes);
    swap(image, spare);
    return APD_OK;
}

enum apd_code apd_op_rotate(struct apd_image *image, double degrees, struct apd_image *spare,
                            struct apd_err *err)
{
    double angle = -(degrees - 360 * floor(degrees / 360)) * (PI / 180);
    /* To 15 digits, as Pillow does: right angles are exact. */
    double c = rint(cos(angle) * 1e15) / 1e15, s = rint(sin(angle) * 1e15) / 1e15;
    double mid_x = image->w / 2.0, mid_y = image->h / 2.0;
    double m[6] = {c, s, c * -mid_x + s * -mid_y + mid_x, -s, c, -s * -mid_x + c * -mid_y + mid_y};

    return apd_op_affine(image, m, spare, err);
}

/* All but the first and the last pixel of a row; `row` and `c`: bytes to the next row and pixel.
 * Integers give Pillow's floats: none of its sums is nearer than 1/26 to where it would round the
 * other way. */
static void sharpen_row(const uint8_t *src, ptrdiff_t row, ptrdiff_t c, float factor, uint8_t *dst)
{
    for (ptrdiff_t i = c; i < row - c; i++) {
        const uint8_t *at = src + i, *above = at - row, *below = at + row;
        uint16_t sum = (uint16_t)(5 * at[0] + at[-c] + at[c] + above[-c] + above[0] + above[c] +
                                  below[-c] + below[0] + below[c]);

        dst[i] = apd_blend((uint16_t)(sum + 6) / 13, at[0], factor);
    }
}

enum apd_code apd_op_sharpness(struct apd_image *image, float factor, struct apd_image *spare,
                               struct apd_err *err)
{
    size_t row = (size_t)image->w * (size_t)image->c;

    APD_TRY(apd_image_reserve(spare, image->w, image->h, image->c, err));
    memcpy(spare->px, image->px, row * (size_t)image->h);
    for (int y = 1; y < image->h - 1; y++)
        sharpen_row(image->px + (size_t)y * row, (ptrdiff_t)row, image->c, factor,
                    spare->px + (size_t)y * row);
    swap(image, spare);
    return APD_OK;
}
