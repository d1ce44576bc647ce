/* Fog: a plasma fractal, made by the diamond-square algorithm on a torus. */
#include "worker/data/corrupt/task.h"

#include <math.h>

struct plasma {
    double *v; /* [side][side] */
    int side;  /* a power of two */
    double wibble;
    struct apd_words *words;
};

static double at(const struct plasma *plasma, int x, int y)
{
    int mask = plasma->side - 1;

    return plasma->v[(y & mask) * plasma->side + (x & mask)];
}

/* The point (x, y) from four points, `reach` away along the axes or, if diagonal, both. */
static void set(struct plasma *plasma, int x, int y, int reach, int diagonal)
{
    double sum = diagonal ? at(plasma, x - reach, y - reach) + at(plasma, x + reach, y - reach) +
                                at(plasma, x - reach, y + reach) + at(plasma, x + reach, y + reach)
                          : at(plasma, x, y - reach) + at(plasma, x, y + reach) +
                                at(plasma, x - reach, y) + at(plasma, x + reach, y);

    plasma->v[y * plasma->side + x] =
        sum / 4 +
        plasma->wibble * apd_words_between(plasma->words, -plasma->wibble, plasma->wibble);
}

/* All points (left + i step, top + j step). */
static void set_grid(struct plasma *plasma, int left, int top, int step, int diagonal)
{
    for (int y = top; y < plasma->side; y += step)
        for (int x = left; x < plasma->side; x += step)
            set(plasma, x, y, step / 2, diagonal);
}

static void normalise(double *v, size_t n)
{
    double least = v[0], most = v[0];

    for (size_t i = 1; i < n; i++) {
        least = fmin(least, v[i]);
        most = fmax(most, v[i]);
    }
    for (size_t i = 0; i < n; i++)
        v[i] = most > least ? (v[i] - least) / (most - least) : 0;
}

static enum apd_code make_plasma(struct apd_field *field, int side, double decay,
                                 struct apd_words *words, struct apd_err *err)
{
    struct plasma plasma = {.side = side, .wibble = 100, .words = words};

    APD_TRY(apd_field_reserve(field, side, side, 1, err));
    plasma.v = field->v;
    plasma.v[0] = 0;
    for (int step = side; step >= 2; step /= 2) {
        set_grid(&plasma, step / 2, step / 2, step, 1);
        set_grid(&plasma, step / 2, 0, step, 0);
        set_grid(&plasma, 0, step / 2, step, 0);
        plasma.wibble /= decay;
    }
    normalise(field->v, apd_field_count(field));
    return APD_OK;
}

struct fog {
    double thick, decay;
};

enum apd_code apd_corrupt_fog(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const struct fog table[2][APD_SEVERITIES] = {
        {{1.5, 2}, {2, 2}, {2.5, 1.7}, {2.5, 1.5}, {3, 1.4}},
        {{.2, 3}, {.5, 3}, {.75, 2.5}, {1, 2}, {1.5, 1.75}}};
    const struct fog *c = &table[task->small][task->level];
    struct apd_field *x = task->x;
    double most = 0;
    int side = 2;

    while (side < x->w || side < x->h)
        side *= 2;
    APD_TRY(make_plasma(task->layer, side, c->decay, &task->words, err));
    for (size_t i = 0; i < apd_field_count(x); i++)
        most = fmax(most, x->v[i]);
    for (int i = 0; i < x->w * x->h * x->c; i++) {
        int column = i / x->c % x->w, row = i / x->c / x->w;
        double fog = c->thick * task->layer->v[row * side + column];

        x->v[i] = (x->v[i] + fog) * most / (most + c->thick);
    }
    return APD_OK;
}
