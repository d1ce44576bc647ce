/* What options must be to each other, and what follows from several of them: a lane's split, the
 * same-budget rule. Types and ranges were checked on loading. */
#include "proto/config.h"

#include <math.h>
#include <string.h>

void apd_config_lane_split(const struct apd_config *config, uint32_t *out_clean, uint32_t *out_aux)
{
    int64_t slice = config->train.batch / config->train.lanes;
    int64_t parts = config->train.clean_parts + config->train.aux_parts;
    int64_t aux = 0;

    if (config->train.mode == APD_MODE_FAST_ADVPROP)
        aux = slice * config->train.aux_parts / parts;
    *out_clean = (uint32_t)(slice - aux);
    *out_aux = (uint32_t)(config->train.mode == APD_MODE_ADVPROP ? slice : aux);
}

void apd_config_budget(const struct apd_config *config, double *out_epochs, double *out_milestones)
{
    /* cost = all / parts, kept as a fraction: 105 epochs at 6/5 must be exactly 87.5. */
    double parts = (double)(config->train.clean_parts + config->train.aux_parts), all = parts;
    int same = config->train.budget == APD_BUDGET_SAME;

    if (config->train.mode == APD_MODE_FAST_ADVPROP)
        all += (double)(config->train.aux_parts * config->attack.steps);
    if (config->train.mode == APD_MODE_ADVPROP)
        all *= (double)(config->attack.steps + 2);
    *out_epochs = same ? rint(config->train.epochs * parts / all) : config->train.epochs;
    for (int64_t i = 0; i < config->schedule.milestone_count; i++) {
        double written = config->schedule.milestones[i];

        out_milestones[i] = same ? rint(written * parts / all) : written;
    }
}

uint64_t apd_config_steps(const struct apd_config *config, uint64_t samples, uint64_t *out_full)
{
    double epochs, milestones[APD_MILESTONES];
    uint64_t full, limit = (uint64_t)config->train.max_steps;

    apd_config_budget(config, &epochs, milestones);
    full = (uint64_t)ceil(epochs * ((double)samples / (double)config->train.batch));
    if (out_full != NULL)
        *out_full = full;
    return limit > 0 && limit < full ? limit : full;
}

static enum apd_code check_batch(const struct apd_config *config, int64_t workers,
                                 struct apd_err *err)
{
    long long batch = config->train.batch, lanes = config->train.lanes;

    if (lanes > batch)
        return apd_fail(err, APD_CONFIG,
                        "train.lanes %lld is more than train.batch %lld: every lane needs images",
                        lanes, batch);
    if (batch % lanes != 0)
        return apd_fail(
            err, APD_CONFIG,
            "train.batch %lld does not divide into train.lanes %lld: lanes are equal slices "
            "of the batch",
            batch, lanes);
    if (workers > lanes)
        return apd_fail(
            err, APD_CONFIG,
            "%lld workers for train.lanes %lld: a worker owns whole lanes, so there can be "
            "at most as many workers as lanes",
            (long long)workers, lanes);
    return APD_OK;
}

static enum apd_code check_split(const struct apd_config *config, struct apd_err *err)
{
    long long slice = config->train.batch / config->train.lanes;
    long long parts = config->train.clean_parts + config->train.aux_parts;
    uint32_t clean, aux;

    if (config->train.mode == APD_MODE_FAST_ADVPROP && slice % parts != 0)
        return apd_fail(
            err, APD_CONFIG,
            "a lane's slice of %lld images (train.batch / train.lanes) does not divide into "
            "train.clean_parts + train.aux_parts = %lld",
            slice, parts);
    apd_config_lane_split(config, &clean, &aux);
    if (clean < 2)
        return apd_fail(
            err, APD_CONFIG,
            "a lane trains %u clean image a step: batch norm needs at least 2, so raise "
            "train.batch or lower train.lanes",
            clean);
    if (config->train.mode != APD_MODE_VANILLA && aux < 2)
        return apd_fail(
            err, APD_CONFIG,
            "a lane trains %u auxiliary image a step: batch norm needs at least 2, so raise "
            "train.batch or train.aux_parts, or lower train.lanes",
            aux);
    return APD_OK;
}

static enum apd_code check_loss(const struct apd_config *config, struct apd_err *err)
{
    if (config->train.label_smoothing >= 1)
        return apd_fail(
            err, APD_CONFIG,
            "train.label_smoothing %g leaves nothing for the true class: it must be below 1",
            config->train.label_smoothing);
    if (config->train.weight_clean == 0)
        return apd_fail(
            err, APD_CONFIG,
            "train.weight_clean is 0: gradients of the main batch norm are divided by it");
    return APD_OK;
}

/* Of the modes with an attack. */
static enum apd_code check_attack(const struct apd_config *config, struct apd_err *err)
{
    int reuse = (int)config->attack.reuse_gradients;

    if (reuse && config->attack.goal == APD_GOAL_TARGETED)
        return apd_fail(
            err, APD_CONFIG,
            "attack.reuse_gradients is on and attack.goal targeted: the weights would be trained "
            "to give the random labels that the attack aims at");
    if (reuse && config->train.weight_noise == 0)
        return apd_fail(
            err, APD_CONFIG,
            "train.weight_noise is 0 and attack.reuse_gradients on: the image gradient that makes "
            "the attack would be 0, too; turn attack.reuse_gradients off");
    if (!reuse && config->train.weight_adv == 0)
        return apd_fail(
            err, APD_CONFIG,
            "train.weight_adv is 0 and attack.reuse_gradients off: nothing would be trained "
            "through the auxiliary batch norm");
    return APD_OK;
}

static enum apd_code check_mix(const struct apd_config *config, struct apd_err *err)
{
    const char *key = config->mix.noise ? "mix.noise" : "mix.adv";

    if (!config->mix.noise && !config->mix.adv)
        return APD_OK;
    if (config->mix.kind == APD_MIX_NONE)
        return apd_fail(err, APD_CONFIG, "%s is on, but mix.kind none mixes nothing", key);
    if (config->train.mode == APD_MODE_VANILLA)
        return apd_fail(err, APD_CONFIG, "%s is on, but mode vanilla attacks no images", key);
    return APD_OK;
}

static enum apd_code check_schedule(const struct apd_config *config, struct apd_err *err)
{
    double epochs, milestones[APD_MILESTONES] = {0};

    if (config->train.epochs == 0)
        return apd_fail(err, APD_CONFIG, "train.epochs is 0: there is nothing to train");
    apd_config_budget(config, &epochs, milestones);
    if (epochs == 0)
        return apd_fail(err, APD_CONFIG,
                        "train.epochs %g at the same budget rounds to 0: there is nothing to train",
                        config->train.epochs);
    for (int64_t i = 1; i < config->schedule.milestone_count; i++)
        if (config->schedule.milestones[i] <= config->schedule.milestones[i - 1])
            return apd_fail(err, APD_CONFIG, "schedule.milestones: %g after %g is not ascending",
                            config->schedule.milestones[i], config->schedule.milestones[i - 1]);
    if (config->schedule.warmup_epochs > epochs)
        return apd_fail(err, APD_CONFIG,
                        "schedule.warmup_epochs %g is longer than the %g epochs of the run",
                        config->schedule.warmup_epochs, epochs);
    return APD_OK;
}

enum apd_code apd_config_check(const struct apd_config *config, int64_t workers,
                               struct apd_err *err)
{
    if (config->data.path[0] == '\0')
        return apd_fail(err, APD_CONFIG,
                        "data.path is not set: it names the folder of the data set");
    APD_TRY(check_batch(config, workers, err));
    APD_TRY(check_split(config, err));
    APD_TRY(check_loss(config, err));
    if (config->train.mode != APD_MODE_VANILLA)
        APD_TRY(check_attack(config, err));
    APD_TRY(check_mix(config, err));
    if (config->optim.ema_decay >= 1)
        return apd_fail(err, APD_CONFIG,
                        "optim.ema_decay 1 never leaves the initial weights: it must be below 1");
    return check_schedule(config, err);
}
