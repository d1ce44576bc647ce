#include "worker/data/policy.h"

#include "worker/data/color_ops.h"
#include "worker/data/image_ops.h"
#include "worker/data/point_ops.h"

enum { AUTOAUGMENT_BINS = 10, POLICIES = 25 };

/* Point k of n evenly spaced ones, in float from the nearer end: torch.linspace without vectors. */
static float spaced(float from, float to, int k, int n)
{
    float step = (to - from) / (float)(n - 1);

    return k < n / 2 ? from + step * (float)k : to - step * (float)(n - 1 - k);
}

/* Magnitude k of n of an operation, for an image of w x h. */
static double magnitude_of(enum apd_op op, int k, int n, int w, int h)
{
    switch (op) {
    case APD_OP_SHEAR_X:
    case APD_OP_SHEAR_Y:
        return (double)spaced(0, 0.3f, k, n);
    case APD_OP_TRANSLATE_X:
        return (double)spaced(0, (float)(150.0 / 331.0 * w), k, n);
    case APD_OP_TRANSLATE_Y:
        return (double)spaced(0, (float)(150.0 / 331.0 * h), k, n);
    case APD_OP_ROTATE:
        return (double)spaced(0, 30, k, n);
    case APD_OP_BRIGHTNESS:
    case APD_OP_COLOR:
    case APD_OP_CONTRAST:
    case APD_OP_SHARPNESS:
        return (double)spaced(0, 0.9f, k, n);
    case APD_OP_POSTERIZE:
        return 8 - (8 * k + n - 1) / (2 * (n - 1)); /* 8 - 4 k / (n - 1), rounded; never a half */
    case APD_OP_SOLARIZE:
        return (double)spaced(255, 0, k, n);
    default:
        return 0;
    }
}

static enum apd_code apply(enum apd_op op, int k, int n, int negative, struct apd_image *image,
                           struct apd_image *spare, struct apd_err *err)
{
    int is_signed = op >= APD_OP_SHEAR_X && op <= APD_OP_SHARPNESS;
    double magnitude = magnitude_of(op, k, n, image->w, image->h);

    return apd_op_apply(op, is_signed && negative ? -magnitude : magnitude, image, spare, err);
}

enum apd_code apd_randaugment(int ops, int magnitude, const struct apd_draw_place *place,
                              struct apd_image *image, struct apd_image *spare, struct apd_err *err)
{
    for (int i = 0; i < ops; i++) {
        struct apd_philox v = apd_draw(place, APD_DRAW_POLICY + (uint32_t)i);
        enum apd_op op = (enum apd_op)apd_below(v.v[0], APD_OP_INVERT);

        APD_TRY(apply(op, magnitude, APD_RANDAUGMENT_BINS, v.v[1] & 1, image, spare, err));
    }
    return APD_OK;
}

/* The policy found on ImageNet (Cubuk et al., "AutoAugment", CVPR 2019, table 9): one of these
 * pairs an image, each operation with its probability in tenths and its magnitude of
 * AUTOAUGMENT_BINS. */
static const struct sub_policy {
    struct {
        enum apd_op op;
        int tenths, magnitude;
    } item[2];
} sub_policies[POLICIES] = {
    {{{APD_OP_POSTERIZE, 4, 8}, {APD_OP_ROTATE, 6, 9}}},
    {{{APD_OP_SOLARIZE, 6, 5}, {APD_OP_AUTOCONTRAST, 6, 0}}},
    {{{APD_OP_EQUALIZE, 8, 0}, {APD_OP_EQUALIZE, 6, 0}}},
    {{{APD_OP_POSTERIZE, 6, 7}, {APD_OP_POSTERIZE, 6, 6}}},
    {{{APD_OP_EQUALIZE, 4, 0}, {APD_OP_SOLARIZE, 2, 4}}},
    {{{APD_OP_EQUALIZE, 4, 0}, {APD_OP_ROTATE, 8, 8}}},
    {{{APD_OP_SOLARIZE, 6, 3}, {APD_OP_EQUALIZE, 6, 0}}},
    {{{APD_OP_POSTERIZE, 8, 5}, {APD_OP_EQUALIZE, 10, 0}}},
    {{{APD_OP_ROTATE, 2, 3}, {APD_OP_SOLARIZE, 6, 8}}},
    {{{APD_OP_EQUALIZE, 6, 0}, {APD_OP_POSTERIZE, 4, 6}}},
    {{{APD_OP_ROTATE, 8, 8}, {APD_OP_COLOR, 4, 0}}},
    {{{APD_OP_ROTATE, 4, 9}, {APD_OP_EQUALIZE, 6, 0}}},
    {{{APD_OP_EQUALIZE, 0, 0}, {APD_OP_EQUALIZE, 8, 0}}},
    {{{APD_OP_INVERT, 6, 0}, {APD_OP_EQUALIZE, 10, 0}}},
    {{{APD_OP_COLOR, 6, 4}, {APD_OP_CONTRAST, 10, 8}}},
    {{{APD_OP_ROTATE, 8, 8}, {APD_OP_COLOR, 10, 2}}},
    {{{APD_OP_COLOR, 8, 8}, {APD_OP_SOLARIZE, 8, 7}}},
    {{{APD_OP_SHARPNESS, 4, 7}, {APD_OP_INVERT, 6, 0}}},
    {{{APD_OP_SHEAR_X, 6, 5}, {APD_OP_EQUALIZE, 10, 0}}},
    {{{APD_OP_COLOR, 4, 0}, {APD_OP_EQUALIZE, 6, 0}}},
    {{{APD_OP_EQUALIZE, 4, 0}, {APD_OP_SOLARIZE, 2, 4}}},
    {{{APD_OP_SOLARIZE, 6, 5}, {APD_OP_AUTOCONTRAST, 6, 0}}},
    {{{APD_OP_INVERT, 6, 0}, {APD_OP_EQUALIZE, 10, 0}}},
    {{{APD_OP_COLOR, 6, 4}, {APD_OP_CONTRAST, 10, 8}}},
    {{{APD_OP_EQUALIZE, 8, 0}, {APD_OP_EQUALIZE, 6, 0}}},
};

enum apd_code apd_autoaugment(const struct apd_draw_place *place, struct apd_image *image,
                              struct apd_image *spare, struct apd_err *err)
{
    struct apd_philox v = apd_draw(place, APD_DRAW_POLICY);
    const struct sub_policy *policy = &sub_policies[apd_below(v.v[0], POLICIES)];

    for (int i = 0; i < 2; i++)
        if (apd_draw_between(v.v[1 + i], 0, 10) < policy->item[i].tenths)
            APD_TRY(apply(policy->item[i].op, policy->item[i].magnitude, AUTOAUGMENT_BINS,
                          v.v[3] >> i & 1, image, spare, err));
    return APD_OK;
}

/* ---- colour jitter */

enum { PARTS = 4 };

static void jitter_part(int part, double bound, uint32_t word, struct apd_image *image)
{
    float factor = (float)apd_draw_between(word, bound < 1 ? 1 - bound : 0, 1 + bound);

    if (bound == 0)
        return;
    if (part == 0)
        apd_op_brightness(image, factor);
    else if (part == 1)
        apd_op_contrast(image, factor);
    else if (part == 2)
        apd_op_saturation(image, factor);
    else
        apd_op_hue(image, apd_draw_between(word, -bound, bound));
}

void apd_jitter_apply(const struct apd_jitter *jitter, const struct apd_draw_place *place,
                      struct apd_image *image)
{
    double bounds[PARTS] = {jitter->brightness, jitter->contrast, jitter->saturation, jitter->hue};
    struct apd_philox v = apd_draw(place, APD_DRAW_JITTER);
    struct apd_philox shuffle = apd_draw(place, APD_DRAW_ORDER);
    int order[PARTS] = {0, 1, 2, 3};

    for (uint32_t n = PARTS; n > 0; n--) {
        uint32_t at = apd_below(shuffle.v[n - 1], n);
        int part = order[at];

        order[at] = order[n - 1];
        jitter_part(part, bounds[part], v.v[part], image);
    }
}
