/* The four noises. */
#include "worker/data/corrupt/task.h"

#include <math.h>

enum apd_code apd_corrupt_gaussian_noise(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const double sigma[2][APD_SEVERITIES] = {{.08, .12, .18, .26, .38},
                                                    {.04, .06, .08, .09, .10}};
    struct apd_field *x = task->x, *noise = task->layer;

    APD_TRY(apd_field_normal(noise, x->w, x->h, x->c, 0, sigma[task->small][task->level],
                             &task->words, err));
    for (size_t i = 0; i < apd_field_count(x); i++)
        x->v[i] += noise->v[i];
    return APD_OK;
}

enum apd_code apd_corrupt_speckle_noise(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const double sigma[2][APD_SEVERITIES] = {{.15, .2, .35, .45, .6},
                                                    {.06, .1, .12, .16, .2}};
    struct apd_field *x = task->x, *noise = task->layer;

    APD_TRY(apd_field_normal(noise, x->w, x->h, x->c, 0, sigma[task->small][task->level],
                             &task->words, err));
    for (size_t i = 0; i < apd_field_count(x); i++)
        x->v[i] += x->v[i] * noise->v[i];
    return APD_OK;
}

/* By inversion: the smallest k whose distribution function is above u. Exact but for the 2^-32 of
 * u; exp(-rate) is far from underflow for the rates of up to 500 here. */
static int poisson(double rate, uint32_t word)
{
    double u = ((double)word + 0.5) * 0x1p-32, p = exp(-rate), sum = p;
    int k = 0;

    while (sum <= u) {
        p *= rate / ++k;
        sum += p;
    }
    return k;
}

enum apd_code apd_corrupt_shot_noise(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const double photons[2][APD_SEVERITIES] = {{60, 25, 12, 5, 3}, {500, 250, 100, 75, 50}};
    double most = photons[task->small][task->level];
    struct apd_field *x = task->x;

    (void)err;
    for (size_t i = 0; i < apd_field_count(x); i++)
        x->v[i] = poisson(x->v[i] * most, apd_words_next(&task->words)) / most;
    return APD_OK;
}

enum apd_code apd_corrupt_impulse_noise(struct apd_corrupt_task *task, struct apd_err *err)
{
    static const double amount[2][APD_SEVERITIES] = {{.03, .06, .09, .17, .27},
                                                     {.01, .02, .03, .05, .07}};
    struct apd_field *x = task->x;

    (void)err;
    for (size_t i = 0; i < apd_field_count(x); i++) {
        uint32_t word = apd_words_next(&task->words);

        /* apd_uniform takes the upper 24 bits, so that bit 0 is independent of it. */
        if ((double)apd_uniform(word) < amount[task->small][task->level])
            x->v[i] = word & 1;
    }
    return APD_OK;
}
