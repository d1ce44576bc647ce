#include "worker/mix.h"

#include "base/rng.h"

#include <math.h>

enum { BLOCKS = 4096 }; /* of a pass in its stream */

static struct apd_philox draw(const struct apd_mix_place *place, uint32_t n)
{
    return apd_rng(place->seed, APD_RNG_MIX, place->lane, place->step, place->pass * BLOCKS + n);
}

static double log_uniform(uint32_t word)
{
    return log(((double)word + 0.5) * 0x1p-32);
}

/* Beta(alpha, alpha) by Joehnk's rejection, in logarithms: for a small alpha both powers underflow.
 */
static double draw_share(double alpha, const struct apd_mix_place *place)
{
    for (uint32_t n = 1; n < BLOCKS; n++) {
        struct apd_philox v = draw(place, n);
        double a = log_uniform(v.v[0]) / alpha, b = log_uniform(v.v[1]) / alpha;

        if (exp(a) + exp(b) <= 1)
            return 1 / (1 + exp(b - a));
    }
    return 0.5;
}

/* The part of [center - size / 2, center + size / 2) inside of [0, size of the image). */
static void cut(int center, int size, int image, int *out_from, int *out_to)
{
    int half = size / 2;

    *out_from = center > half ? center - half : 0;
    *out_to = center + half < image ? center + half : image;
}

static void draw_box(const struct apd_philox *v, struct apd_shape shape, struct apd_mix *mix)
{
    double side = sqrt(mix->share);

    cut((int)apd_below(v->v[2], (uint32_t)shape.h), (int)(shape.h * side), shape.h, &mix->top,
        &mix->bottom);
    cut((int)apd_below(v->v[3], (uint32_t)shape.w), (int)(shape.w * side), shape.w, &mix->left,
        &mix->right);
    mix->is_box = 1;
    mix->share =
        (double)(mix->bottom - mix->top) * (mix->right - mix->left) / ((double)shape.h * shape.w);
}

void apd_mix_draw(enum apd_mix_kind kind, double alpha, const struct apd_mix_place *place, int n,
                  struct apd_shape shape, int32_t *partner, struct apd_mix *out)
{
    struct apd_philox first = draw(place, 0);
    uint64_t key = (uint64_t)first.v[1] << 32 | first.v[0];

    for (int i = 0; i < n; i++)
        partner[i] = (int32_t)apd_permute(key, (uint64_t)n, (uint64_t)i);
    *out = (struct apd_mix){.partner = partner, .share = draw_share(alpha, place)};
    if (kind == APD_MIX_CUTMIX)
        draw_box(&first, shape, out);
}

void apd_mix_invert(const int32_t *partner, int n, int32_t *inverse)
{
    for (int32_t i = 0; i < n; i++)
        inverse[partner[i]] = i;
}
