#include "worker/model/params.h"

#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Tensors start at multiples of 64 bytes, for wide loads; the gaps stay zero. */
static size_t take(size_t *used, size_t n)
{
    size_t at = *used;

    *used += (n + 15) & ~(size_t)15;
    return at;
}

static void lay_out(struct apd_params *params)
{
    const struct apd_arch *arch = params->arch;
    struct apd_backend *be = params->be;
    int sets = params->has_aux ? APD_BN_SETS : 1;
    size_t used = 0, stats = 0, begin;

    for (int i = 0; i < arch->layer_count; i++)
        params->layer[i].conv = take(&used, be->ops->conv_weight_elems(params->conv[i]));
    params->fc_weight = take(&used, (size_t)arch->classes * (size_t)arch->features.c);
    params->fc_bias = take(&used, (size_t)arch->classes);
    params->set[APD_SET_SHARED] = (struct apd_range){0, used};
    for (int set = 0; set < sets; set++) {
        begin = used;
        for (int i = 0; i < arch->layer_count; i++) {
            struct apd_layer_params *layer = &params->layer[i];
            size_t c = be->ops->channel_elems(be, arch->layer[i].out.c);

            layer->gamma[set] = take(&used, c);
            layer->beta[set] = take(&used, c);
            layer->running_mean[set] = take(&stats, c);
            layer->running_var[set] = take(&stats, c);
        }
        params->set[APD_SET_MAIN + set] = (struct apd_range){begin, used - begin};
    }
    params->count = used;
    params->stats_count = stats;
}

enum apd_code apd_params_create(struct apd_backend *be, const struct apd_arch *arch, int has_aux,
                                struct apd_params **out, struct apd_err *err)
{
    struct apd_params *params = calloc(1, sizeof *params);
    enum apd_code rc = APD_OK;

    if (params == NULL)
        return apd_fail(err, APD_NOMEM, "parameter table");
    params->be = be;
    params->arch = arch;
    params->has_aux = has_aux;
    for (int i = 0; i < arch->layer_count; i++)
        APD_GO(be->ops->conv_create(be, &arch->layer[i].shape, &params->conv[i], err));
    lay_out(params);
    APD_GO(be->ops->alloc(be, params->count * be->elem_bytes, &params->weights, err));
    APD_GO(be->ops->alloc(be, params->count * be->elem_bytes, &params->momentum, err));
    APD_GO(be->ops->alloc(be, params->stats_count * be->elem_bytes, &params->stats, err));
    *out = params;
    params = NULL;
done:
    apd_params_destroy(&params);
    return rc;
}

void apd_params_destroy(struct apd_params **params)
{
    struct apd_params *dead = *params;

    if (dead == NULL)
        return;
    for (int i = 0; i < dead->arch->layer_count; i++)
        if (dead->conv[i] != NULL)
            dead->be->ops->conv_destroy(dead->be, &dead->conv[i]);
    if (dead->weights != NULL)
        dead->be->ops->free(dead->be, dead->weights);
    if (dead->momentum != NULL)
        dead->be->ops->free(dead->be, dead->momentum);
    if (dead->stats != NULL)
        dead->be->ops->free(dead->be, dead->stats);
    if (dead->ema_weights != NULL)
        dead->be->ops->free(dead->be, dead->ema_weights);
    if (dead->ema_stats != NULL)
        dead->be->ops->free(dead->be, dead->ema_stats);
    free(dead);
    *params = NULL;
}

enum apd_code apd_params_changed(struct apd_params *params, struct apd_err *err)
{
    return params->be->ops->weights_changed(params->be, params->weights, params->count, err);
}

enum apd_code apd_params_add_ema(struct apd_params *params, struct apd_err *err)
{
    struct apd_backend *be = params->be;

    APD_TRY(be->ops->alloc(be, params->count * be->elem_bytes, &params->ema_weights, err));
    return be->ops->alloc(be, params->stats_count * be->elem_bytes, &params->ema_stats, err);
}

enum apd_code apd_params_start_ema(struct apd_params *params, struct apd_err *err)
{
    return apd_params_average(params, 0, err);
}

enum apd_code apd_params_average(struct apd_params *params, double decay, struct apd_err *err)
{
    struct apd_backend *be = params->be;

    if (params->ema_weights == NULL)
        return APD_OK;
    APD_TRY(be->ops->average(be, params->count, decay, params->weights, params->ema_weights, err));
    return be->ops->average(be, params->stats_count, decay, params->stats, params->ema_stats, err);
}

static void swap(void **a, void **b)
{
    void *held = *a;

    *a = *b;
    *b = held;
}

enum apd_code apd_params_swap_ema(struct apd_params *params, struct apd_err *err)
{
    if (params->ema_weights == NULL)
        return APD_OK;
    swap(&params->weights, &params->ema_weights);
    swap(&params->stats, &params->ema_stats);
    return apd_params_changed(params, err);
}

static size_t place_of(const struct apd_params *params, const struct apd_tensor_info *info)
{
    const struct apd_layer_params *layer = &params->layer[info->layer];
    int set = (int)info->set - APD_SET_MAIN;

    switch (info->part) {
    case APD_PART_CONV:
        return layer->conv;
    case APD_PART_GAMMA:
        return layer->gamma[set];
    case APD_PART_BETA:
        return layer->beta[set];
    case APD_PART_MEAN:
        return layer->running_mean[set];
    case APD_PART_VAR:
        return layer->running_var[set];
    case APD_PART_FC_WEIGHT:
        return params->fc_weight;
    default:
        return params->fc_bias;
    }
}

int apd_params_tensor(const struct apd_params *params, int i, struct apd_tensor_info *out)
{
    if (!apd_arch_tensor(params->arch, params->has_aux, i, out))
        return 0;
    out->at = place_of(params, out);
    return 1;
}

enum apd_code apd_params_export(const struct apd_params *params, const struct apd_tensor_info *info,
                                const void *flat, float *out, struct apd_err *err)
{
    const char *at = (const char *)flat + info->at * params->be->elem_bytes;

    if (info->part == APD_PART_CONV)
        return params->be->ops->conv_export(params->be, params->conv[info->layer], at, out, err);
    return params->be->ops->download_floats(params->be, out, at, info->elems, err);
}

enum apd_code apd_params_import(const struct apd_params *params, const struct apd_tensor_info *info,
                                const float *in, void *flat, struct apd_err *err)
{
    void *at = apd_at(params, flat, info->at);

    if (info->part == APD_PART_CONV)
        return params->be->ops->conv_import(params->be, params->conv[info->layer], in, at, err);
    return params->be->ops->upload_floats(params->be, at, in, info->elems, err);
}

/* FNV-1a of the name: the identity of a parameter's random stream. */
static uint64_t name_id(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;

    while (*name != '\0')
        h = (h ^ (unsigned char)*name++) * 0x100000001b3u;
    return h;
}

/* Box-Muller on pairs of one block: v[0], v[1] -> two normals; v[2], v[3] -> two more. */
static void fill_normal(uint64_t seed, uint64_t id, double sigma, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct apd_philox r = apd_rng(seed, APD_RNG_INIT, 0, id, (uint32_t)(i / 4));
        const uint32_t *v = r.v + (i % 4 / 2) * 2;
        double u = ((double)v[0] + 1) * 0x1p-32, angle = 2 * M_PI * (double)v[1] * 0x1p-32;
        double radius = sigma * sqrt(-2 * log(u));

        out[i] = (float)(i % 2 == 0 ? radius * cos(angle) : radius * sin(angle));
    }
}

static void fill_uniform(uint64_t seed, uint64_t id, double bound, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct apd_philox r = apd_rng(seed, APD_RNG_INIT, 0, id, (uint32_t)(i / 4));

        out[i] = (float)((2 * (double)apd_uniform(r.v[i % 4]) - 1) * bound);
    }
}

static void fill_constant(float value, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = value;
}

static void initial_values(const struct apd_params *params, const struct apd_tensor_info *info,
                           uint64_t seed, int zero_init, float *out)
{
    const struct apd_arch *arch = params->arch;
    int zero = zero_init && info->part == APD_PART_GAMMA && arch->layer[info->layer].zero_init;

    if (info->part == APD_PART_CONV) { /* fan-out of a convolution: out_c k k */
        double fan_out = (double)(info->shape[0] * info->shape[2] * info->shape[3]);

        fill_normal(seed, name_id(info->name), sqrt(2 / fan_out), out, info->elems);
        return;
    }
    if (info->set == APD_SET_SHARED) { /* fc */
        fill_uniform(seed, name_id(info->name), 1 / sqrt((double)arch->features.c), out,
                     info->elems);
        return;
    }
    fill_constant((info->part == APD_PART_GAMMA && !zero) || info->part == APD_PART_VAR ? 1 : 0,
                  out, info->elems);
}

enum apd_code apd_params_init(struct apd_params *params, uint64_t seed, int zero_init,
                              struct apd_err *err)
{
    struct apd_tensor_info info;
    enum apd_code rc = APD_OK;

    for (int i = 0; apd_params_tensor(params, i, &info); i++) {
        float *values = malloc(info.elems * sizeof *values);

        if (values == NULL)
            return apd_fail(err, APD_NOMEM, "%zu floats to initialise %s", info.elems, info.name);
        initial_values(params, &info, seed, zero_init, values);
        rc = apd_params_import(params, &info, values,
                               info.is_stat ? params->stats : params->weights, err);
        free(values);
        APD_TRY(rc);
    }
    return apd_params_changed(params, err);
}
