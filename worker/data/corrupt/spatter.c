/* Spatter: drops of water that shine at their edges, or mud. The way of the water follows OpenCV's
 * functions: Canny, distanceTransform with a 5 x 5 mask, blur, equalizeHist, filter2D. */
#include "worker/data/corrupt/filter.h"
#include "worker/data/corrupt/task.h"

#include <math.h>
#include <stdlib.h>

struct spatter {
    double mean, sigma, smooth, least, strength;
    int mud;
};

/* ---------------------------------------------------------------- edges */

enum { WEAK = 1, STRONG = 2 };
enum { LOW = 50, HIGH = 150 };

static double byte_at(const struct apd_field *bytes, int x, int y)
{
    return bytes->v[apd_border_at(y, bytes->h, APD_BORDER_NEAREST) * bytes->w +
                    apd_border_at(x, bytes->w, APD_BORDER_NEAREST)];
}

/* Sobel: d/dx, d/dy and the sum of their sizes, [h][w][3]. */
static void gradients(const struct apd_field *bytes, struct apd_field *out)
{
    double *to = out->v;

    for (int y = 0; y < bytes->h; y++)
        for (int x = 0; x < bytes->w; x++, to += 3) {
            double dx = 0, dy = 0;

            for (int i = -1; i <= 1; i++) {
                double weight = 2 - abs(i);

                dx += weight * (byte_at(bytes, x + 1, y + i) - byte_at(bytes, x - 1, y + i));
                dy += weight * (byte_at(bytes, x + i, y + 1) - byte_at(bytes, x + i, y - 1));
            }
            to[0] = dx;
            to[1] = dy;
            to[2] = fabs(dx) + fabs(dy);
        }
}

static double size_at(const struct apd_field *gradient, int x, int y)
{
    return x < 0 || x >= gradient->w || y < 0 || y >= gradient->h
               ? 0
               : gradient->v[3 * (y * gradient->w + x) + 2];
}

/* Whether no neighbour across the edge has a greater gradient. Of equal ones in a row or column the
 * first counts, as in OpenCV. */
static int is_ridge(const struct apd_field *gradient, int x, int y)
{
    const double *at = gradient->v + 3 * (y * gradient->w + x);
    double dx = fabs(at[0]), dy = fabs(at[1]), size = at[2];
    double slope = 13573.0 / 32768; /* tan 22.5 degrees in OpenCV's fixed point */
    int lean = at[0] * at[1] < 0 ? -1 : 1;

    if (dy < dx * slope)
        return size > size_at(gradient, x - 1, y) && size >= size_at(gradient, x + 1, y);
    if (dy > dx * (slope + 2))
        return size > size_at(gradient, x, y - 1) && size >= size_at(gradient, x, y + 1);
    return size > size_at(gradient, x - lean, y - 1) && size > size_at(gradient, x + lean, y + 1);
}

static int touches_strong(const struct apd_field *edges, int x, int y)
{
    for (int j = y > 0 ? y - 1 : 0; j <= y + 1 && j < edges->h; j++)
        for (int i = x > 0 ? x - 1 : 0; i <= x + 1 && i < edges->w; i++)
            if (edges->v[j * edges->w + i] == STRONG)
                return 1;
    return 0;
}

/* Weak edges that hang together with strong ones become strong. To and fro, until nothing changes.
 */
static void follow_edges(struct apd_field *edges)
{
    int n = edges->w * edges->h, changed = 1;

    for (int turn = 0; changed; turn++) {
        changed = 0;
        for (int k = 0; k < n; k++) {
            int i = turn % 2 == 0 ? k : n - 1 - k;

            if (edges->v[i] == WEAK && touches_strong(edges, i % edges->w, i / edges->w)) {
                edges->v[i] = STRONG;
                changed = 1;
            }
        }
    }
}

/* Canny of bytes; STRONG is an edge. */
static enum apd_code find_edges(const struct apd_field *bytes, struct apd_field *gradient,
                                struct apd_field *edges, struct apd_err *err)
{
    APD_TRY(apd_field_reserve(gradient, bytes->w, bytes->h, 3, err));
    APD_TRY(apd_field_reserve(edges, bytes->w, bytes->h, 1, err));
    gradients(bytes, gradient);
    for (int i = 0; i < bytes->w * bytes->h; i++) {
        double size = gradient->v[3 * i + 2];

        edges->v[i] = 0;
        if (size > LOW && is_ridge(gradient, i % bytes->w, i / bytes->w))
            edges->v[i] = size > HIGH ? STRONG : WEAK;
    }
    follow_edges(edges);
    return APD_OK;
}

/* ---------------------------------------------------------------- distances */

static void shorten(struct apd_field *distance, int x, int y, int sign)
{
    /* Half of the mask; the other half is its mirror image. */
    static const struct {
        int x, y;
        double length;
    } step[8] = {{-1, -2, 2.1969}, {1, -2, 2.1969}, {-2, -1, 2.1969}, {-1, -1, 1.4},
                 {0, -1, 1},       {1, -1, 1.4},    {2, -1, 2.1969},  {-1, 0, 1}};
    double *at = &distance->v[y * distance->w + x];

    for (int k = 0; k < 8; k++) {
        int i = x + sign * step[k].x, j = y + sign * step[k].y;

        if (i >= 0 && i < distance->w && j >= 0 && j < distance->h)
            *at = fmin(*at, distance->v[j * distance->w + i] + step[k].length);
    }
}

/* From each pixel to the next edge, at most 20. */
static enum apd_code measure(const struct apd_field *edges, struct apd_field *distance,
                             struct apd_err *err)
{
    int w = edges->w, n = w * edges->h;

    APD_TRY(apd_field_reserve(distance, w, edges->h, 1, err));
    for (int i = 0; i < n; i++)
        distance->v[i] = edges->v[i] == STRONG ? 0 : 20;
    for (int i = 0; i < n; i++)
        shorten(distance, i % w, i / w, 1);
    for (int i = n - 1; i >= 0; i--)
        shorten(distance, i % w, i / w, -1);
    return APD_OK;
}

/* ---------------------------------------------------------------- water */

/* Whole numbers, as of bytes. */
static void equalise(struct apd_field *bytes)
{
    size_t n = apd_field_count(bytes), histogram[256] = {0}, sum = 0;
    double level[256] = {0}, scale;
    int darkest = 0;

    for (size_t i = 0; i < n; i++)
        histogram[(int)bytes->v[i]]++;
    while (histogram[darkest] == 0)
        darkest++;
    if (histogram[darkest] == n)
        return;
    scale = 255.0 / (double)(n - histogram[darkest]);
    for (int k = darkest + 1; k < 256; k++) {
        sum += histogram[k];
        level[k] = rint((double)sum * scale);
    }
    for (size_t i = 0; i < n; i++)
        bytes->v[i] = level[(int)bytes->v[i]];
}

/* Adds `add`, cuts to bytes, drops what is behind the point. */
static void to_bytes(struct apd_field *field, double add)
{
    for (size_t i = 0; i < apd_field_count(field); i++)
        field->v[i] = floor(fmin(fmax(field->v[i], 0), 255) + add);
}

/* How the light breaks, from the distances to the edges of the drops. */
static enum apd_code light(struct apd_field *distance, struct apd_field *spare, struct apd_err *err)
{
    static double ninth[9] = {1 / 9.0, 1 / 9.0, 1 / 9.0, 1 / 9.0, 1 / 9.0,
                              1 / 9.0, 1 / 9.0, 1 / 9.0, 1 / 9.0};
    static double slant[9] = {-2, -1, 0, -1, 1, 1, 0, 1, 2};
    static const struct apd_field blur = {3, 3, 1, ninth, 9}, relief = {3, 3, 1, slant, 9};

    APD_TRY(apd_filter_kernel(distance, &blur, spare, err));
    to_bytes(distance, 0x1p-20); /* of rounding errors, as in apd_field_byte */
    equalise(distance);
    APD_TRY(apd_filter_kernel(distance, &relief, spare, err));
    to_bytes(distance, 0);
    APD_TRY(apd_filter_kernel(distance, &blur, spare, err));
    to_bytes(distance, 0.5);
    return APD_OK;
}

static enum apd_code add_water(struct apd_corrupt_task *task, double strength, struct apd_err *err)
{
    static const double turquoise[3] = {175 / 255.0, 238 / 255.0, 238 / 255.0};
    struct apd_field *x = task->x, *drops = task->layer, *shine = task->other;
    size_t c = (size_t)x->c;
    double most = 0;

    for (size_t i = 0; i < apd_field_count(drops); i++)
        drops->v[i] = apd_field_byte(drops->v[i]);
    APD_TRY(find_edges(drops, task->other, task->spare, err));
    APD_TRY(measure(task->spare, shine, err));
    APD_TRY(light(shine, task->spare, err));
    for (size_t i = 0; i < apd_field_count(drops); i++) {
        shine->v[i] *= drops->v[i];
        most = fmax(most, shine->v[i]);
    }
    for (size_t i = 0; most > 0 && i < apd_field_count(x); i++) {
        double color = c == 1 ? apd_field_luma(turquoise, 3) : turquoise[i % c];

        x->v[i] += strength * shine->v[i / c] / most * color;
    }
    return APD_OK;
}

/* ---------------------------------------------------------------- mud */

static enum apd_code add_mud(struct apd_corrupt_task *task, double least, double sigma,
                             struct apd_err *err)
{
    static const double brown[3] = {63 / 255.0, 42 / 255.0, 20 / 255.0};
    struct apd_field *x = task->x, *mud = task->layer;
    size_t c = (size_t)x->c;

    for (size_t i = 0; i < apd_field_count(mud); i++)
        mud->v[i] = mud->v[i] > least;
    APD_TRY(apd_filter_gaussian(mud, sigma, 4, APD_BORDER_NEAREST, task->spare, err));
    for (size_t i = 0; i < apd_field_count(x); i++) {
        double color = c == 1 ? apd_field_luma(brown, 3) : brown[i % c];
        double share = mud->v[i / c] < 0.8 ? 0 : mud->v[i / c];

        x->v[i] = x->v[i] * (1 - share) + color * share;
    }
    return APD_OK;
}

enum apd_code apd_corrupt_spatter(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const struct spatter table[2][APD_SEVERITIES] = {{{.65, .3, 4, .69, .6, 0},
                                                             {.65, .3, 3, .68, .6, 0},
                                                             {.65, .3, 2, .68, .5, 0},
                                                             {.65, .3, 1, .65, 1.5, 1},
                                                             {.67, .4, 1, .65, 1.5, 1}},
                                                            {{.62, .1, .7, .7, .5, 0},
                                                             {.65, .1, .8, .7, .5, 0},
                                                             {.65, .3, 1, .69, .5, 0},
                                                             {.65, .1, .7, .69, .6, 1},
                                                             {.65, .1, .5, .68, .6, 1}}};
    const struct spatter *c = &table[task->small][task->level];
    struct apd_field *liquid = task->layer;

    APD_TRY(
        apd_field_normal(liquid, task->x->w, task->x->h, 1, c->mean, c->sigma, &task->words, err));
    APD_TRY(apd_filter_gaussian(liquid, c->smooth, 4, APD_BORDER_NEAREST, task->spare, err));
    for (size_t i = 0; i < apd_field_count(liquid); i++)
        if (liquid->v[i] < c->least)
            liquid->v[i] = 0;
    return c->mud ? add_mud(task, c->least, c->strength, err) : add_water(task, c->strength, err);
}
