/* Elastic transform: a random affine map of the whole, then a smooth random shift of every pixel.
 */
#include "worker/data/corrupt/filter.h"
#include "worker/data/corrupt/task.h"
#include "worker/data/corrupt/warp.h"

#include <math.h>

struct point {
    double x, y;
};

/* (x, y) -> (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5]) */
struct affine {
    double m[6];
};

/* The map that takes from[i] to to[i]; the identity if `from` is nearly on a line. */
static struct affine affine_between(const struct point from[3], const struct point to[3])
{
    double ax = from[1].x - from[0].x, ay = from[1].y - from[0].y;
    double bx = from[2].x - from[0].x, by = from[2].y - from[0].y;
    double ux = to[1].x - to[0].x, uy = to[1].y - to[0].y;
    double vx = to[2].x - to[0].x, vy = to[2].y - to[0].y;
    double det = ax * by - bx * ay;
    struct affine map = {{1, 0, 0, 0, 1, 0}};

    if (fabs(det) < 1)
        return map;
    map.m[0] = (ux * by - vx * ay) / det;
    map.m[1] = (vx * ax - ux * bx) / det;
    map.m[3] = (uy * by - vy * ay) / det;
    map.m[4] = (vy * ax - uy * bx) / det;
    map.m[2] = to[0].x - map.m[0] * from[0].x - map.m[1] * from[0].y;
    map.m[5] = to[0].y - map.m[3] * from[0].x - map.m[4] * from[0].y;
    return map;
}

/* Three corners of a square in the middle go up to `reach` away. */
static struct affine random_affine(int w, int h, double reach, struct apd_words *words)
{
    double side = (w < h ? w : h) / 3, x = w / 2, y = h / 2;
    const struct point corner[3] = {
        {x + side, y + side}, {x + side, y - side}, {x - side, y - side}};
    struct point moved[3];

    for (int i = 0; i < 3; i++) {
        moved[i].x = corner[i].x + apd_words_between(words, -reach, reach);
        moved[i].y = corner[i].y + apd_words_between(words, -reach, reach);
    }
    return affine_between(moved, corner);
}

static void warp_affine(const struct apd_field *src, const struct affine *map,
                        struct apd_field *dst)
{
    const double *m = map->m;
    double *to = dst->v;

    for (int y = 0; y < dst->h; y++)
        for (int x = 0; x < dst->w; x++, to += dst->c)
            apd_warp_sample(src, m[0] * x + m[1] * y + m[2], m[3] * x + m[4] * y + m[5],
                            APD_BORDER_MIRROR, to);
}

/* `strength` times noise from [-1, 1), smoothed. */
static enum apd_code random_shift(struct apd_field *shift, int w, int h, double strength,
                                  double sigma, struct apd_words *words, struct apd_field *spare,
                                  struct apd_err *err)
{
    APD_TRY(apd_field_reserve(shift, w, h, 1, err));
    for (size_t i = 0; i < apd_field_count(shift); i++)
        shift->v[i] = apd_words_between(words, -1, 1);
    APD_TRY(apd_filter_gaussian(shift, sigma, 3, APD_BORDER_SYMMETRIC, spare, err));
    for (size_t i = 0; i < apd_field_count(shift); i++)
        shift->v[i] *= strength;
    return APD_OK;
}

struct elastic {
    double strength, sigma, reach;
};

enum apd_code apd_corrupt_elastic_transform(struct apd_corrupt_task *task, struct apd_err *err)
{
    /* In parts of 244 (a slip of the pen for 224 in the public code) and of 32 px. */
    static const struct elastic table[2][APD_SEVERITIES] = {
        {{2, .7, .1}, {2, .08, .2}, {.05, .01, .02}, {.07, .01, .02}, {.12, .01, .02}},
        {{0, 0, .08}, {.05, .2, .07}, {.08, .06, .06}, {.1, .04, .05}, {.1, .03, .03}}};
    const struct elastic *c = &table[task->small][task->level];
    struct apd_field *x = task->x, *moved = task->spare, *dx = task->layer, *dy = task->other;
    double px = task->small ? 32 : 244, *to = x->v;
    struct affine map = random_affine(x->w, x->h, px * c->reach, &task->words);

    APD_TRY(
        random_shift(dx, x->w, x->h, px * c->strength, px * c->sigma, &task->words, moved, err));
    APD_TRY(
        random_shift(dy, x->w, x->h, px * c->strength, px * c->sigma, &task->words, moved, err));
    APD_TRY(apd_field_reserve(moved, x->w, x->h, x->c, err));
    warp_affine(x, &map, moved);
    for (int row = 0, i = 0; row < x->h; row++)
        for (int column = 0; column < x->w; column++, i++, to += x->c)
            apd_warp_sample(moved, column + dx->v[i], row + dy->v[i], APD_BORDER_SYMMETRIC, to);
    return APD_OK;
}
