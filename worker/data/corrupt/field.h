/* Images as real numbers: what corruptions compute on. */
#ifndef APD_WORKER_DATA_CORRUPT_FIELD_H
#define APD_WORKER_DATA_CORRUPT_FIELD_H

#include "base/err.h"
#include "worker/data/corrupt/words.h"
#include "worker/data/image.h"

#include <stddef.h>

/* Kept and grown from image to image; `= {0}` is a valid empty one. */
struct apd_field {
    int w, h, c;
    double *v;       /* [h][w][c] */
    size_t capacity; /* numbers allocated */
};

/* Room for w x h x c numbers; contents are undefined. On failure the field is what it was. */
APD_MUST_USE enum apd_code apd_field_reserve(struct apd_field *field, int w, int h, int c,
                                             struct apd_err *err);
void apd_field_fini(struct apd_field *field);

static inline size_t apd_field_count(const struct apd_field *field)
{
    return (size_t)field->w * (size_t)field->h * (size_t)field->c;
}

/* [0, 1] to a byte: cut to the range, times 255, truncated as the public code does. What is within
 * 2^-20 below a whole number counts as that number: truncation would make a level of difference of
 * rounding. */
static inline uint8_t apd_field_byte(double v)
{
    v = v > 0 ? v : 0;
    v = v < 1 ? v : 1;
    return (uint8_t)(255 * v + 0x1p-20);
}

/* Bytes / 255. */
APD_MUST_USE enum apd_code apd_field_load(const struct apd_image *image, struct apd_field *out,
                                          struct apd_err *err);
/* apd_field_byte of each number, into an image of the same shape. */
void apd_field_store(const struct apd_field *field, struct apd_image *image);
/* Every number becomes apd_field_byte / 255. */
void apd_field_quantise(struct apd_field *field);

/* Fills a field with normals, two by two; of an odd count the last one is lost. */
APD_MUST_USE enum apd_code apd_field_normal(struct apd_field *field, int w, int h, int c,
                                            double mean, double sigma, struct apd_words *words,
                                            struct apd_err *err);

/* 0.299 R + 0.587 G + 0.114 B; of grey the number itself. */
static inline double apd_field_luma(const double *px, int c)
{
    return c == 1 ? px[0] : 0.299 * px[0] + 0.587 * px[1] + 0.114 * px[2];
}

#endif
