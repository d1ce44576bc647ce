/* What the passes of a step see: images and targets, from bytes, noise, shuffled images and mixing,
 * and the way of the image gradient back. */
#include "base/rng.h"
#include "worker/step_private.h"

#include <string.h>

static struct apd_step_labels labels_at(const struct apd_step *step, int i)
{
    return (struct apd_step_labels){step->host.label + i, step->host.label2 + i,
                                    step->host.keep + i, step->host.weight + i};
}

static void set_weights(struct apd_step_labels at, int n, double weight)
{
    for (int i = 0; i < n; i++)
        at.weight[i] = (float)weight;
}

/* The loss is multiplied by its factor through the weights of images. */
static double scaled(const struct apd_step *step, double weight)
{
    return weight * apd_loss_scale_of(step->loss_scale);
}

/* Images of bad samples, and those they were mixed into, weigh nothing. */
static void leave_out_bad(struct apd_step_labels at, int n, int mixed)
{
    for (int i = 0; i < n; i++) {
        if (at.label[i] >= 0 && (!mixed || at.label2[i] >= 0))
            continue;
        at.label[i] = at.label2[i] = 0;
        at.weight[i] = 0;
    }
}

/* The host's labels of n images as the targets of a pass. */
static enum apd_code upload_targets(struct apd_step *step, int n, int mixed,
                                    struct apd_targets *out, struct apd_err *err)
{
    const struct apd_backend_ops *ops = step->be->ops;
    size_t bytes = (size_t)n * sizeof(int32_t);

    leave_out_bad(step->host, n, mixed);
    *out = (struct apd_targets){.label = step->label,
                                .weight = step->weight,
                                .smoothing = step->config.train.label_smoothing};
    APD_TRY(ops->upload(step->be, step->label, step->host.label, bytes, err));
    APD_TRY(ops->upload_floats(step->be, step->weight, step->host.weight, (size_t)n, err));
    if (!mixed)
        return APD_OK;
    out->label2 = step->label2;
    out->keep = step->keep;
    APD_TRY(ops->upload(step->be, step->label2, step->host.label2, bytes, err));
    return ops->upload_floats(step->be, step->keep, step->host.keep, (size_t)n, err);
}

static void draw(struct apd_step *step, int lane, int pass, int n, struct apd_mix *out)
{
    const struct apd_mix_place place = {.seed = (uint64_t)step->config.seed,
                                        .step = step->number,
                                        .lane = (uint32_t)(step->lane_first + lane),
                                        .pass = (uint32_t)pass};

    apd_mix_draw((enum apd_mix_kind)step->config.mix.kind, step->config.mix.alpha, &place, n,
                 step->params->arch->image, step->partner, out);
}

/* Mixes the n images that a lane of this worker has in one pass (apd_mix_place) from src to dst;
 * at.label is read, the others are written, [n] each. */
static enum apd_code mix_images(struct apd_step *step, int lane, int pass, int n, const void *src,
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

/* Gradient of the mixed images -> of the images that were mixed. */
static enum apd_code unmix_images(struct apd_step *step, int lane, int pass, int n,
                                  const void *d_mixed, void *d_images, struct apd_err *err)
{
    struct apd_mix mix;

    draw(step, lane, pass, n, &mix);
    apd_mix_invert(step->partner, n, step->inverse);
    mix.partner = step->inverse;
    return step->be->ops->mix_images(step->be, n, step->params->arch->image, d_mixed, &mix,
                                     d_images, err);
}

/* ---------------------------------------------------------------- P1 */

/* Labels that noise passes are told: the true ones, or random ones to aim at. */
static void choose_attack_labels(struct apd_step *step, const struct apd_step_data *data,
                                 size_t row, size_t place)
{
    uint32_t classes = (uint32_t)step->params->arch->classes;

    for (size_t i = 0; i < (size_t)step->aux; i++) {
        int32_t label = step->aux_label[place + i];

        if (step->config.attack.goal == APD_GOAL_TARGETED && label >= 0) {
            struct apd_philox v = apd_rng((uint64_t)step->config.seed, APD_RNG_ATTACK_TARGET,
                                          data->epoch[row + i], data->sample[row + i], 0);

            label = (int32_t)(((uint32_t)label + apd_below(v.v[0], classes)) % classes);
        }
        step->attack_label[place + i] = label;
    }
}

enum apd_code apd_step_pack_aux(struct apd_step *step, const struct apd_step_data *data,
                                struct apd_err *err)
{
    struct apd_philox choice =
        apd_rng((uint64_t)step->config.seed, APD_RNG_NOISE_CHOICE, 0, step->number, 0);
    int noisy = (double)apd_uniform(choice.v[0]) < step->config.attack.noise_prob;
    size_t bytes = step->pixels * step->be->elem_bytes;

    for (int lane = 0; lane < step->lane_count; lane++) {
        size_t row = (size_t)lane * data->lane_batch + (size_t)step->aux_row;
        size_t place = (size_t)lane * (size_t)step->aux;
        struct apd_noise noise = {.sample = data->sample + row,
                                  .epoch = data->epoch + row,
                                  .seed = (uint64_t)step->config.seed,
                                  .purpose = APD_RNG_NOISE,
                                  .range = step->eps};

        APD_TRY(step->be->ops->input_pack(step->be, step->aux, step->pixels,
                                          step->staged + row * step->pixels, noisy ? &noise : NULL,
                                          (char *)step->x_aux + place * bytes,
                                          (char *)step->x_attack + place * bytes, err));
        memcpy(step->aux_label + place, data->labels + row, (size_t)step->aux * sizeof(int32_t));
        choose_attack_labels(step, data, row, place);
    }
    return APD_OK;
}

enum apd_code apd_step_noise_input(struct apd_step *step, int slice, int k, const void *at,
                                   struct apd_pass *pass, struct apd_targets *targets,
                                   struct apd_err *err)
{
    int first_lane = slice * step->slice_lanes, mixed = (int)step->config.mix.noise;
    size_t bytes = (size_t)step->aux * step->pixels * step->be->elem_bytes; /* of a lane */

    pass->images = mixed ? step->mixed : at;
    pass->d_images = mixed ? step->d_mixed : step->d_attack;
    memcpy(step->host.label, step->attack_label + first_lane * step->aux,
           (size_t)pass->n * sizeof(int32_t));
    set_weights(
        step->host, pass->n,
        scaled(step, step->config.attack.reuse_gradients ? step->config.train.weight_noise : 1));
    for (int i = 0; mixed && i < step->slice_lanes; i++)
        APD_TRY(mix_images(step, first_lane + i, APD_MIX_NOISE_0 + k, step->aux,
                           (const char *)at + (size_t)i * bytes,
                           (char *)step->mixed + (size_t)i * bytes, labels_at(step, i * step->aux),
                           err));
    return upload_targets(step, pass->n, mixed, targets, err);
}

enum apd_code apd_step_image_gradient(struct apd_step *step, int slice, int k, struct apd_err *err)
{
    size_t bytes = (size_t)step->aux * step->pixels * step->be->elem_bytes;

    for (int i = 0; step->config.mix.noise && i < step->slice_lanes; i++)
        APD_TRY(unmix_images(step, slice * step->slice_lanes + i, APD_MIX_NOISE_0 + k, step->aux,
                             (char *)step->d_mixed + (size_t)i * bytes,
                             (char *)step->d_attack + (size_t)i * bytes, err));
    return APD_OK;
}

/* ---------------------------------------------------------------- P2 */

/* A lane's clean images: normalised, mixed if asked for. */
static enum apd_code fill_clean(struct apd_step *step, int lane, const struct apd_step_data *data,
                                void *to, struct apd_step_labels at, struct apd_err *err)
{
    size_t row = (size_t)lane * data->lane_batch;
    int mixed = step->config.mix.kind != APD_MIX_NONE;

    memcpy(at.label, data->labels + row, (size_t)step->clean * sizeof *at.label);
    set_weights(at, step->clean, scaled(step, step->config.train.weight_clean));
    APD_TRY(step->be->ops->input_pack(step->be, step->clean, step->pixels,
                                      step->staged + row * step->pixels, NULL,
                                      mixed ? step->mixed : to, NULL, err));
    if (!mixed)
        return APD_OK;
    return mix_images(step, lane, APD_MIX_CLEAN, step->clean, step->mixed, to, at, err);
}

/* A lane's share of the shuffled attacked images, mixed if asked for. */
static enum apd_code fill_adv(struct apd_step *step, int lane, void *to, struct apd_step_labels at,
                              struct apd_err *err)
{
    int mixed = (int)step->config.mix.adv;

    memcpy(at.label, step->shuffled_label + lane * step->aux, (size_t)step->aux * sizeof *at.label);
    set_weights(at, step->aux, scaled(step, step->config.train.weight_adv));
    APD_TRY(apd_shuffle_take(step->shuffle, lane * step->aux, step->aux, mixed ? step->mixed : to,
                             err));
    if (mixed)
        return mix_images(step, lane, APD_MIX_ADV, step->aux, step->mixed, to, at, err);
    memcpy(at.label2, at.label, (size_t)step->aux * sizeof *at.label);
    for (int i = 0; i < step->aux; i++)
        at.keep[i] = 1;
    return APD_OK;
}

enum apd_code apd_step_fill_batch(struct apd_step *step, int slice,
                                  const struct apd_step_data *data, struct apd_targets *targets,
                                  struct apd_err *err)
{
    int per_lane = step->clean + step->aux;
    size_t bytes = step->pixels * step->be->elem_bytes;

    for (int i = 0; i < step->slice_lanes; i++) {
        int lane = slice * step->slice_lanes + i, clean = i * per_lane, adv = clean + step->clean;

        APD_TRY(fill_clean(step, lane, data, (char *)step->batch + (size_t)clean * bytes,
                           labels_at(step, clean), err));
        if (step->aux > 0)
            APD_TRY(fill_adv(step, lane, (char *)step->batch + (size_t)adv * bytes,
                             labels_at(step, adv), err));
    }
    return upload_targets(step, per_lane * step->slice_lanes, step->config.mix.kind != APD_MIX_NONE,
                          targets, err);
}
