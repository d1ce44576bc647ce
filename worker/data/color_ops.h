/* Operations on the colour of each pixel, in place; grey images stay as they are. Results are
 * Pillow 9.4's (hue: as torchvision 0.14 uses it) to the bit. */
#ifndef APD_WORKER_DATA_COLOR_OPS_H
#define APD_WORKER_DATA_COLOR_OPS_H

#include "worker/data/image.h"

/* Away from the pixel's grey value: 0 grey, 1 as it is. */
void apd_op_saturation(struct apd_image *image, float factor);
/* Turns the hue by `turn` of the circle, -0.5 to 0.5, in Pillow's HSV of a byte each. */
void apd_op_hue(struct apd_image *image, double turn);

#endif
