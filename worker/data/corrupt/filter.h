/* Filters of a field, in place: separable Gaussian, any small kernel, motion blur. `spare` is
 * scratch. The only failure is APD_NOMEM. */
#ifndef APD_WORKER_DATA_CORRUPT_FILTER_H
#define APD_WORKER_DATA_CORRUPT_FILTER_H

#include "base/err.h"
#include "worker/data/corrupt/field.h"

/* What lies outside of a row "abcd". */
enum apd_border {
    APD_BORDER_NEAREST,   /* aaa|abcd|ddd */
    APD_BORDER_SYMMETRIC, /* cba|abcd|dcb, SciPy's "reflect" */
    APD_BORDER_MIRROR,    /* dcb|abcd|cba, OpenCV's BORDER_REFLECT_101 */
};

/* The place inside of [0, n) that stands for i; n > 0. */
int apd_border_at(long long i, int n, enum apd_border border);

/* scipy.ndimage.gaussian_filter over rows and columns: the kernel ends at truncate * sigma, rounded
 * to whole pixels, at most 512. */
APD_MUST_USE enum apd_code apd_filter_gaussian(struct apd_field *field, double sigma,
                                               double truncate, enum apd_border border,
                                               struct apd_field *spare, struct apd_err *err);

/* Correlation with a kernel of one channel and odd sides, border MIRROR: OpenCV's filter2D. */
APD_MUST_USE enum apd_code apd_filter_kernel(struct apd_field *field,
                                             const struct apd_field *kernel,
                                             struct apd_field *spare, struct apd_err *err);

/* ImageMagick's MotionBlurImage: half a Gaussian of 2 ceil(radius) + 1 pixels that starts at the
 * pixel and runs along `degrees`, border NEAREST. What comes out are bytes / 255, made as
 * ImageMagick 6 makes them: rounded to 16 bits, then truncated to 8. */
APD_MUST_USE enum apd_code apd_filter_motion(struct apd_field *field, double radius, double sigma,
                                             double degrees, struct apd_field *spare,
                                             struct apd_err *err);

#endif
