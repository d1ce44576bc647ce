/* Operations that map each byte by a table, in place: Pillow's ImageOps, and brightness and
 * contrast of its ImageEnhance. Results are Pillow 9.4's to the bit. Images of 1 or 3 channels. */
#ifndef APD_WORKER_DATA_POINT_OPS_H
#define APD_WORKER_DATA_POINT_OPS_H

#include "worker/data/image.h"

void apd_op_brightness(struct apd_image *image, float factor);
/* Away from the mean grey value, rounded. */
void apd_op_contrast(struct apd_image *image, float factor);
/* Keeps the upper `bits`, 0 to 8, of each byte. */
void apd_op_posterize(struct apd_image *image, int bits);
/* Inverts bytes of at least `threshold`. */
void apd_op_solarize(struct apd_image *image, double threshold);
void apd_op_invert(struct apd_image *image);
/* Stretches each channel to 0 .. 255. */
void apd_op_autocontrast(struct apd_image *image);
/* Makes the histogram of each channel flat. */
void apd_op_equalize(struct apd_image *image);

#endif
