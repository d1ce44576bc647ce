/* Mixing of a lane's images inside of the step, and the way of its gradient back. */
#include "worker/step_private.h"

static void draw(struct apd_step *step, int lane, int pass, int n, struct apd_mix *out)
{
    const struct apd_mix_place place = {.seed = (uint64_t)step->config.seed,
                                        .step = step->number,
                                        .lane = (uint32_t)(step->lane_first + lane),
                                        .pass = (uint32_t)pass};

    apd_mix_draw((enum apd_mix_kind)step->config.mix.kind, step->config.mix.alpha, &place, n,
                 step->params->arch->image, step->partner, out);
}

enum apd_code apd_step_mix(struct apd_step *step, int lane, int pass, int n, const void *src,
                           void *dst, struct apd_step_labels at, struct apd_err *err)
{
    struct apd_mix mix;

    draw(step, lane, pass, n, &mix);
    for (int i = 0; i < n; i++) {
        at.label2[i] = at.label[mix.partner[i]];
        at.keep[i] = (float)(1 - mix.share);
    }
    return step->be->ops->mix_images(step->be, n, step->params->arch->image, src, &mix, dst, err);
}

enum apd_code apd_step_unmix(struct apd_step *step, int lane, int pass, int n, const void *d_mixed,
                             void *d_images, struct apd_err *err)
{
    struct apd_mix mix;

    draw(step, lane, pass, n, &mix);
    apd_mix_invert(step->partner, n, step->inverse);
    mix.partner = step->inverse;
    return step->be->ops->mix_images(step->be, n, step->params->arch->image, d_mixed, &mix,
                                     d_images, err);
}
