/* Frost. The public code lays one of five photographs of frost over the image. We do not have
 * them: ours is a texture made of ridges of value noise, in the colours of ice. */
#include "worker/data/corrupt/task.h"

#include <math.h>

enum {
    OCTAVES = 4,
    COARSE =
        4, /* cells along the longer side in the first octave; each next one has twice as many */
    FINEST = COARSE << (OCTAVES - 1),
};

static double mix(double a, double b, double share)
{
    return a + (b - a) * share;
}

/* Adds an octave of ridges: where smooth noise is near 1/2. `lattice` takes its random values. */
static void add_ridges(struct apd_field *frost, int cells, double strength, struct apd_words *words)
{
    double lattice[(FINEST + 1) * (FINEST + 1)];
    double scale = (double)cells / (frost->w > frost->h ? frost->w : frost->h);
    int points = cells + 1;

    for (int i = 0; i < points * points; i++)
        lattice[i] = apd_words_between(words, 0, 1);
    for (int y = 0; y < frost->h; y++)
        for (int x = 0; x < frost->w; x++) {
            int column = (int)(x * scale), row = (int)(y * scale);
            const double *at = lattice + row * points + column;
            double fx = x * scale - column, fy = y * scale - row, noise;

            fx = fx * fx * (3 - 2 * fx);
            fy = fy * fy * (3 - 2 * fy);
            noise = mix(mix(at[0], at[1], fx), mix(at[points], at[points + 1], fx), fy);
            frost->v[y * frost->w + x] += strength * (1 - fabs(2 * noise - 1));
        }
}

struct frost {
    double image, frost;
};

enum apd_code apd_corrupt_frost(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const struct frost table[2][APD_SEVERITIES] = {
        {{1, .4}, {.8, .6}, {.7, .7}, {.65, .7}, {.6, .75}},
        {{1, .2}, {1, .3}, {.9, .4}, {.85, .4}, {.75, .45}}};
    const struct frost *c = &table[task->small][task->level];
    static const double ice[3] = {.8, .9, 1};
    struct apd_field *x = task->x, *frost = task->layer;
    size_t channels = (size_t)x->c;

    APD_TRY(apd_field_reserve(frost, x->w, x->h, 1, err));
    for (size_t i = 0; i < apd_field_count(frost); i++)
        frost->v[i] = 0;
    for (int octave = 0; octave < OCTAVES; octave++)
        add_ridges(frost, COARSE << octave, 8.0 / 15 / (1 << octave), &task->words);
    for (size_t i = 0; i < apd_field_count(x); i++) {
        double color = channels == 1 ? apd_field_luma(ice, 3) : ice[i % channels];
        double ridge = frost->v[i / channels];

        x->v[i] = c->image * x->v[i] + c->frost * color * ridge * ridge;
    }
    return APD_OK;
}
