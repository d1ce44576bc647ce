/* Fields read at places between pixels. */
#ifndef APD_WORKER_DATA_CORRUPT_WARP_H
#define APD_WORKER_DATA_CORRUPT_WARP_H

#include "base/err.h"
#include "worker/data/corrupt/field.h"
#include "worker/data/corrupt/filter.h"

/* Linear between the four pixels around (x, y), whose indices are whole; any finite place below
 * 2^62 in size. out: [c] */
void apd_warp_sample(const struct apd_field *field, double x, double y, enum apd_border border,
                     double *out);

/* The middle of `field`, `factor` >= 1 times as large, cut to the old size: clipped_zoom of the
 * public code with scipy.ndimage.zoom of order 1, each axis by itself. *out is another field. */
APD_MUST_USE enum apd_code apd_warp_zoom(const struct apd_field *field, double factor,
                                         struct apd_field *out, struct apd_err *err);

#endif
