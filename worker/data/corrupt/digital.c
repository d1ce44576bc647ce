/* Contrast, pixelate and saturate. */
#include "worker/data/corrupt/task.h"

#include <math.h>

/* Towards the mean of each channel. */
enum apd_code apd_corrupt_contrast(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const double kept[2][APD_SEVERITIES] = {{.4, .3, .2, .1, .05}, {.75, .5, .4, .3, .15}};
    struct apd_field *x = task->x;
    size_t c = (size_t)x->c, n = apd_field_count(x);
    double mean[3] = {0};

    (void)err;
    for (size_t i = 0; i < n; i++)
        mean[i % c] += x->v[i];
    for (size_t k = 0; k < c; k++)
        mean[k] /= (double)(n / c);
    for (size_t i = 0; i < n; i++)
        x->v[i] = (x->v[i] - mean[i % c]) * kept[task->small][task->level] + mean[i % c];
    return APD_OK;
}

struct saturate {
    double factor, more;
};

/* Another saturation of HSV, with hue and value as they are; a grey pixel's hue is red. Grey images
 * have none. */
enum apd_code apd_corrupt_saturate(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const struct saturate table[2][APD_SEVERITIES] = {
        {{.3, 0}, {.1, 0}, {2, 0}, {5, .1}, {20, .2}},
        {{.3, 0}, {.1, 0}, {1.5, 0}, {2, .1}, {2.5, .2}}};
    const struct saturate *c = &table[task->small][task->level];
    struct apd_field *x = task->x;

    (void)err;
    for (size_t i = 0; x->c == 3 && i < apd_field_count(x); i += 3) {
        double *px = x->v + i, value = fmax(fmax(px[0], px[1]), px[2]);
        double least = fmin(fmin(px[0], px[1]), px[2]);
        double saturation = value > 0 ? (value - least) / value : 0;
        double wanted = fmin(saturation * c->factor + c->more, 1);

        for (int k = 0; k < 3; k++)
            px[k] = saturation > 0 ? value - (value - px[k]) * (wanted / saturation)
                                   : value * (k == 0 ? 1 : 1 - wanted);
    }
    return APD_OK;
}

enum { FIXED_BITS = 22 }; /* of Pillow's weights */

/* Pixel i of `out` pixels is the mean of the pixels from *first on, of n; returns how many:
 * Pillow's BOX filter. */
static int box(int i, int out, int n, int *first)
{
    double scale = (double)n / out, width = scale < 1 ? 1 : scale, middle = (i + 0.5) * scale;
    int begin = (int)(middle - width / 2 + 0.5), end = (int)(middle + width / 2 + 0.5);
    int count = 0;

    begin = begin < 0 ? 0 : begin;
    end = end > n ? n : end;
    for (int j = begin; j < end; j++) {
        double at = (j - middle + 0.5) / width;

        if (at > -0.5 && at <= 0.5 && count++ == 0)
            *first = j;
    }
    return count;
}

/* One direction: n pixels become `out`, `step` bytes apart; `lines` lines, `line` bytes apart. */
struct direction {
    int n, out, lines;
    size_t src_step, src_line, dst_step, dst_line;
};

static void resize(const struct direction *d, int c, const uint8_t *src, uint8_t *dst)
{
    for (int i = 0; i < d->out; i++) {
        int first = 0, count = box(i, d->out, d->n, &first);
        int weight = (int)(0.5 + (double)(1 << FIXED_BITS) / count);

        for (int line = 0; line < d->lines; line++)
            for (int k = 0; k < c; k++) {
                const uint8_t *from =
                    src + (size_t)line * d->src_line + (size_t)first * d->src_step + k;
                int sum = 1 << (FIXED_BITS - 1);

                for (int j = 0; j < count; j++)
                    sum += from[(size_t)j * d->src_step] * weight;
                sum >>= FIXED_BITS;
                dst[(size_t)line * d->dst_line + (size_t)i * d->dst_step + (size_t)k] =
                    (uint8_t)(sum > 255 ? 255 : sum);
            }
    }
}

/* `image` to w x h, rows first, by way of `spare`. */
static enum apd_code resize_image(struct apd_image *image, int w, int h, struct apd_image *spare,
                                  struct apd_err *err)
{
    int c = image->c, old_h = image->h;
    size_t px = (size_t)c, old_row = (size_t)image->w * px, row = (size_t)w * px;
    struct direction across = {image->w, w, old_h, px, old_row, px, row};
    struct direction down = {old_h, h, w, row, px, row, px};

    APD_TRY(apd_image_reserve(spare, w, old_h, c, err));
    resize(&across, c, image->px, spare->px);
    APD_TRY(apd_image_reserve(image, w, h, c, err));
    resize(&down, c, spare->px, image->px);
    return APD_OK;
}

static int shrunk(int side, double factor)
{
    return side * factor < 1 ? 1 : (int)(side * factor);
}

enum apd_code apd_corrupt_pixelate(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const double factor[2][APD_SEVERITIES] = {{.6, .5, .4, .3, .25},
                                                     {.95, .9, .85, .75, .65}};
    double f = factor[task->small][task->level];
    int w = task->image->w, h = task->image->h;

    APD_TRY(resize_image(task->image, shrunk(w, f), shrunk(h, f), task->spare_image, err));
    return resize_image(task->image, w, h, task->spare_image, err);
}
