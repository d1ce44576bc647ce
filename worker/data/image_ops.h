/* The operations of RandAugment and AutoAugment by number, with the meaning that torchvision gives
 * to their magnitudes (transforms/autoaugment.py). */
#ifndef APD_WORKER_DATA_IMAGE_OPS_H
#define APD_WORKER_DATA_IMAGE_OPS_H

#include "base/err.h"
#include "worker/data/image.h"

enum apd_op {
    /* RandAugment draws one of these: the order is part of the method. */
    APD_OP_IDENTITY,
    APD_OP_SHEAR_X,
    APD_OP_SHEAR_Y,
    APD_OP_TRANSLATE_X,
    APD_OP_TRANSLATE_Y,
    APD_OP_ROTATE,
    APD_OP_BRIGHTNESS,
    APD_OP_COLOR,
    APD_OP_CONTRAST,
    APD_OP_SHARPNESS,
    APD_OP_POSTERIZE,
    APD_OP_SOLARIZE,
    APD_OP_AUTOCONTRAST,
    APD_OP_EQUALIZE,
    APD_OP_INVERT, /* only AutoAugment's */
    APD_OPS,
};

/* magnitude: tangent of a shear; pixels of a translation to the right or down, towards 0 to whole
 * ones; degrees of a rotation, counter-clockwise; 1 + magnitude is the factor of brightness,
 * colour, contrast and sharpness; bits kept; threshold; nothing for the others. spare: as in
 * area_ops.h. */
APD_MUST_USE enum apd_code apd_op_apply(enum apd_op op, double magnitude, struct apd_image *image,
                                        struct apd_image *spare, struct apd_err *err);

#endif
