#include "worker/data/image_ops.h"

#include "worker/data/area_ops.h"
#include "worker/data/color_ops.h"
#include "worker/data/point_ops.h"

/* Shears are about the corner, not the middle, as in torchvision. */
static enum apd_code move(enum apd_op op, double magnitude, struct apd_image *image,
                          struct apd_image *spare, struct apd_err *err)
{
    double m[6] = {1, 0, 0, 0, 1, 0};

    if (op == APD_OP_SHEAR_X)
        m[1] = magnitude;
    else if (op == APD_OP_SHEAR_Y)
        m[3] = magnitude;
    else if (op == APD_OP_TRANSLATE_X)
        m[2] = -(int)magnitude;
    else
        m[5] = -(int)magnitude;
    return apd_op_affine(image, m, spare, err);
}

enum apd_code apd_op_apply(enum apd_op op, double magnitude, struct apd_image *image,
                           struct apd_image *spare, struct apd_err *err)
{
    float factor = (float)(1 + magnitude);

    switch (op) {
    case APD_OP_SHEAR_X:
    case APD_OP_SHEAR_Y:
    case APD_OP_TRANSLATE_X:
    case APD_OP_TRANSLATE_Y:
        return move(op, magnitude, image, spare, err);
    case APD_OP_ROTATE:
        return apd_op_rotate(image, magnitude, spare, err);
    case APD_OP_SHARPNESS:
        return apd_op_sharpness(image, factor, spare, err);
    case APD_OP_BRIGHTNESS:
        apd_op_brightness(image, factor);
        break;
    case APD_OP_COLOR:
        apd_op_saturation(image, factor);
        break;
    case APD_OP_CONTRAST:
        apd_op_contrast(image, factor);
        break;
    case APD_OP_POSTERIZE:
        apd_op_posterize(image, (int)magnitude);
        break;
    case APD_OP_SOLARIZE:
        apd_op_solarize(image, magnitude);
        break;
    case APD_OP_AUTOCONTRAST:
        apd_op_autocontrast(image);
        break;
    case APD_OP_EQUALIZE:
        apd_op_equalize(image);
        break;
    case APD_OP_INVERT:
        apd_op_invert(image);
        break;
    case APD_OP_IDENTITY:
    case APD_OPS:
        break;
    }
    return APD_OK;
}
