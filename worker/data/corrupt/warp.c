#include "worker/data/corrupt/warp.h"

#include <math.h>

void apd_warp_sample(const struct apd_field *field, double x, double y, enum apd_border border,
                     double *out)
{
    double left = floor(x), top = floor(y), fx = x - left, fy = y - top;
    size_t c = (size_t)field->c, row = (size_t)field->w * c;
    size_t x0 = (size_t)apd_border_at((long long)left, field->w, border) * c,
           x1 = (size_t)apd_border_at((long long)left + 1, field->w, border) * c;
    const double *above = field->v + (size_t)apd_border_at((long long)top, field->h, border) * row,
                 *below =
                     field->v + (size_t)apd_border_at((long long)top + 1, field->h, border) * row;

    for (size_t k = 0; k < c; k++)
        out[k] = (1 - fy) * ((1 - fx) * above[x0 + k] + fx * above[x1 + k]) +
                 fy * ((1 - fx) * below[x0 + k] + fx * below[x1 + k]);
}

/* Pixel i of the result is at first + i * step of the source. */
struct axis {
    double first, step;
};

static struct axis zoom_axis(int n, double factor)
{
    int part = (int)ceil(n / factor), large = (int)rint(part * factor);
    double step = large > 1 ? (double)(part - 1) / (large - 1) : 1;

    return (struct axis){(n - part) / 2 + (large - n) / 2 * step, step};
}

enum apd_code apd_warp_zoom(const struct apd_field *field, double factor, struct apd_field *out,
                            struct apd_err *err)
{
    struct axis x_axis = zoom_axis(field->w, factor), y_axis = zoom_axis(field->h, factor);
    double *to;

    APD_TRY(apd_field_reserve(out, field->w, field->h, field->c, err));
    to = out->v;
    for (int y = 0; y < out->h; y++)
        for (int x = 0; x < out->w; x++, to += out->c)
            apd_warp_sample(field, x_axis.first + x * x_axis.step, y_axis.first + y * y_axis.step,
                            APD_BORDER_NEAREST, to);
    return APD_OK;
}
