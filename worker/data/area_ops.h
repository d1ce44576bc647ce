/* Operations whose pixels come from other places of the image: affine maps to the nearest pixel,
 * black outside, and sharpness. Results are Pillow 9.4's to the bit, its choice of fixed-point
 * arithmetic included.
 *
 * `spare` is a second image of the caller's, one a thread: it takes the result, then the two change
 * buffers. The only failure is APD_NOMEM, when it has to grow; the image is then what it was. */
#ifndef APD_WORKER_DATA_AREA_OPS_H
#define APD_WORKER_DATA_AREA_OPS_H

#include "base/err.h"
#include "worker/data/image.h"

/* The pixel (x, y) comes from (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5]); coordinates of a
 * pixel's middle are its indices + 1/2. Those of the source must stay below 32768 in size. */
APD_MUST_USE enum apd_code apd_op_affine(struct apd_image *image, const double m[6],
                                         struct apd_image *spare, struct apd_err *err);

/* Counter-clockwise about the middle. */
APD_MUST_USE enum apd_code apd_op_rotate(struct apd_image *image, double degrees,
                                         struct apd_image *spare, struct apd_err *err);

/* Away from the image smoothed by (1 1 1, 1 5 1, 1 1 1) / 13; the border stays as it is. */
APD_MUST_USE enum apd_code apd_op_sharpness(struct apd_image *image, float factor,
                                            struct apd_image *spare, struct apd_err *err);

#endif
