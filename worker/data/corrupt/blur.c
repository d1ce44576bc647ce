/* The five blurs. */
#include "worker/data/corrupt/filter.h"
#include "worker/data/corrupt/task.h"
#include "worker/data/corrupt/warp.h"

#include <math.h>
#include <string.h>

enum apd_code apd_corrupt_gaussian_blur(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const double sigma[2][APD_SEVERITIES] = {{1, 2, 3, 4, 6}, {.4, .6, .7, .8, 1}};

    return apd_filter_gaussian(task->x, sigma[task->small][task->level], 4, APD_BORDER_NEAREST,
                               task->spare, err);
}

/* OpenCV's GaussianBlur with a kernel of `taps` pixels. */
static enum apd_code smooth(struct apd_field *field, int taps, double sigma,
                            struct apd_field *spare, struct apd_err *err)
{
    double weight[25], line[5], sum = 0;
    struct apd_field kernel = {.w = taps, .h = taps, .c = 1, .v = weight};

    for (int i = 0; i < taps; i++)
        sum += line[i] = exp(-0.5 * (i - taps / 2) * (i - taps / 2) / (sigma * sigma));
    for (int i = 0; i < taps * taps; i++)
        weight[i] = line[i / taps] * line[i % taps] / (sum * sum);
    return apd_filter_kernel(field, &kernel, spare, err);
}

/* A disk whose rim is smoothed, in a square of 17 px or as large as it needs. */
static enum apd_code disk(double radius, double rim, struct apd_field *out, struct apd_field *spare,
                          struct apd_err *err)
{
    int reach = radius <= 8 ? 8 : (int)radius, side = 2 * reach + 1, inside = 0;

    APD_TRY(apd_field_reserve(out, side, side, 1, err));
    for (int i = 0; i < side * side; i++) {
        int x = i % side - reach, y = i / side - reach;

        out->v[i] = x * x + y * y <= radius * radius;
        inside += out->v[i] != 0;
    }
    for (int i = 0; i < side * side; i++)
        out->v[i] /= inside;
    return smooth(out, radius <= 8 ? 3 : 5, rim, spare, err);
}

struct defocus {
    double radius, rim;
};

enum apd_code apd_corrupt_defocus_blur(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const struct defocus table[2][APD_SEVERITIES] = {
        {{3, .1}, {4, .5}, {6, .5}, {8, .5}, {10, .5}},
        {{.3, .4}, {.4, .5}, {.5, .6}, {1, .2}, {1.5, .1}}};
    const struct defocus *c = &table[task->small][task->level];

    APD_TRY(disk(c->radius, c->rim, task->layer, task->spare, err));
    return apd_filter_kernel(task->x, task->layer, task->spare, err);
}

/* Each pixel but those near the border takes the colour of a neighbour. The public code writes an
 * exchange, which NumPy's views make a copy; its data are made that way, and so are these. */
static void shuffle(struct apd_field *x, int reach, struct apd_words *words)
{
    size_t c = (size_t)x->c;

    for (int row = x->h - reach; row > reach; row--)
        for (int column = x->w - reach; column > reach; column--) {
            int dx = (int)apd_below(apd_words_next(words), 2 * (uint32_t)reach) - reach;
            int dy = (int)apd_below(apd_words_next(words), 2 * (uint32_t)reach) - reach;
            double *to = x->v + ((size_t)row * (size_t)x->w + (size_t)column) * c;

            memmove(to, to + (dy * x->w + dx) * x->c, c * sizeof *to);
        }
}

struct glass {
    double sigma;
    int reach, rounds;
};

enum apd_code apd_corrupt_glass_blur(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const struct glass table[2][APD_SEVERITIES] = {
        {{.7, 1, 2}, {.9, 2, 1}, {1, 2, 3}, {1.1, 3, 2}, {1.5, 4, 2}},
        {{.05, 1, 1}, {.25, 1, 1}, {.4, 1, 1}, {.25, 1, 2}, {.4, 1, 2}}};
    const struct glass *c = &table[task->small][task->level];

    APD_TRY(apd_filter_gaussian(task->x, c->sigma, 4, APD_BORDER_NEAREST, task->spare, err));
    apd_field_quantise(task->x);
    for (int round = 0; round < c->rounds; round++)
        shuffle(task->x, c->reach, &task->words);
    return apd_filter_gaussian(task->x, c->sigma, 4, APD_BORDER_NEAREST, task->spare, err);
}

struct motion {
    double radius, sigma;
};

enum apd_code apd_corrupt_motion_blur(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const struct motion table[2][APD_SEVERITIES] = {
        {{10, 3}, {15, 5}, {15, 8}, {15, 12}, {20, 15}},
        {{6, 1}, {6, 1.5}, {6, 2}, {8, 2}, {9, 2.5}}};
    const struct motion *c = &table[task->small][task->level];
    double degrees = apd_words_between(&task->words, -45, 45);

    return apd_filter_motion(task->x, c->radius, c->sigma, degrees, task->spare, err);
}

struct zoom {
    double step;
    int zooms;
};

/* The mean of the image and its zooms, of which the first, by 1, is the image once more. */
enum apd_code apd_corrupt_zoom_blur(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const struct zoom table[2][APD_SEVERITIES] = {
        {{.01, 12}, {.01, 16}, {.02, 11}, {.02, 13}, {.03, 11}},
        {{.01, 7}, {.01, 12}, {.01, 16}, {.01, 21}, {.01, 26}}};
    const struct zoom *c = &table[task->small][task->level];
    struct apd_field *x = task->x, *zoomed = task->layer, *sum = task->other;
    size_t n = apd_field_count(x);

    APD_TRY(apd_field_reserve(sum, x->w, x->h, x->c, err));
    memcpy(sum->v, x->v, n * sizeof *x->v);
    for (int k = 0; k < c->zooms; k++) {
        /* NumPy's arange adds up steps of this size; size and place of a zoom hang on the bit. */
        APD_TRY(apd_warp_zoom(x, 1 + k * (1 + c->step - 1), zoomed, err));
        for (size_t i = 0; i < n; i++)
            sum->v[i] += zoomed->v[i];
    }
    for (size_t i = 0; i < n; i++)
        x->v[i] = sum->v[i] / (c->zooms + 1);
    return APD_OK;
}
