/* Snow and brightness. */
#include "worker/data/corrupt/filter.h"
#include "worker/data/corrupt/task.h"
#include "worker/data/corrupt/warp.h"

#include <math.h>

/* White as snow, by a share of 1 - clear, and then the flakes and the flakes turned by half a
 * circle. */
static void cover(struct apd_field *x, const struct apd_field *flakes, double clear)
{
    size_t n = apd_field_count(flakes);

    for (size_t i = 0; i < n; i++) {
        double *px = x->v + i * (size_t)x->c, white = 1.5 * apd_field_luma(px, x->c) + 0.5;

        for (int k = 0; k < x->c; k++)
            px[k] = clear * px[k] + (1 - clear) * fmax(px[k], white) + flakes->v[i] +
                    flakes->v[n - 1 - i];
    }
}

struct snow {
    double mean, sigma, zoom, least, radius, blur, clear;
};

enum apd_code apd_corrupt_snow(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const struct snow table[2][APD_SEVERITIES] = {{{.1, .3, 3, .5, 10, 4, .8},
                                                          {.2, .3, 2, .5, 12, 4, .7},
                                                          {.55, .3, 4, .9, 12, 8, .7},
                                                          {.55, .3, 4.5, .85, 12, 8, .65},
                                                          {.55, .3, 2.5, .85, 12, 12, .55}},
                                                         {{.1, .2, 1, .6, 8, 3, .95},
                                                          {.1, .2, 1, .5, 10, 4, .9},
                                                          {.15, .3, 1.75, .55, 10, 4, .9},
                                                          {.25, .3, 2.25, .6, 12, 6, .85},
                                                          {.3, .3, 1.25, .65, 14, 12, .8}}};
    const struct snow *c = &table[task->small][task->level];
    struct apd_field *x = task->x, *flakes = task->other;
    double degrees;

    APD_TRY(apd_field_normal(task->layer, x->w, x->h, 1, c->mean, c->sigma, &task->words, err));
    degrees = apd_words_between(&task->words, -135, -45);
    APD_TRY(apd_warp_zoom(task->layer, c->zoom, flakes, err));
    for (size_t i = 0; i < apd_field_count(flakes); i++)
        if (flakes->v[i] < c->least)
            flakes->v[i] = 0;
    apd_field_quantise(flakes);
    APD_TRY(apd_filter_motion(flakes, c->radius, c->blur, degrees, task->spare, err));
    cover(x, flakes, c->clear);
    return APD_OK;
}

/* More of HSV's value. Hue and saturation stay, so that all channels grow by the same factor. */
enum apd_code apd_corrupt_brightness(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const double more[2][APD_SEVERITIES] = {{.1, .2, .3, .4, .5}, {.05, .1, .15, .2, .3}};
    struct apd_field *x = task->x;
    size_t c = (size_t)x->c;

    (void)err;
    for (size_t i = 0; i < apd_field_count(x); i += c) {
        double *px = x->v + i, value = c == 1 ? px[0] : fmax(fmax(px[0], px[1]), px[2]);
        double wanted = fmin(value + more[task->small][task->level], 1);

        for (size_t k = 0; k < c; k++)
            px[k] = value > 0 ? px[k] * (wanted / value) : wanted;
    }
    return APD_OK;
}
