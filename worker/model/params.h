/* Parameters of a network: flat device arrays of equal layout (weights, momentum, one gradient per
 * lane) and one of running statistics, the exponential average of weights and statistics if there
 * is one, and the table of what lies where.
 *
 *   weights: [ shared: convolutions, fc.weight, fc.bias | main: gamma, beta of main BN | aux ]
 *
 * so each parameter set of the method is one range. A plain network (vanilla mode) has no aux
 * range. Names and shapes are those of tensors.h. */
#ifndef APD_WORKER_MODEL_PARAMS_H
#define APD_WORKER_MODEL_PARAMS_H

#include "base/err.h"
#include "kernels/backend.h"
#include "worker/model/tensors.h"

#include <stdint.h>

struct apd_range {
    size_t first, count; /* elements */
};

/* Where one layer's vectors start (elements). Index [set]: enum apd_bn_set. */
struct apd_layer_params {
    size_t conv;
    size_t gamma[APD_BN_SETS], beta[APD_BN_SETS];               /* in the weights */
    size_t running_mean[APD_BN_SETS], running_var[APD_BN_SETS]; /* in the statistics */
};

struct apd_params {
    struct apd_backend *be; /* not owned */
    const struct apd_arch *arch;
    struct apd_conv *conv[APD_MAX_LAYERS];
    struct apd_layer_params layer[APD_MAX_LAYERS];
    size_t fc_weight, fc_bias;
    struct apd_range set[APD_SETS];
    int has_aux;
    size_t count;       /* elements of the weights */
    size_t stats_count; /* elements of the statistics */
    void *weights, *momentum, *stats;
    void *ema_weights, *ema_stats; /* NULL: no average */
};

/* Makes the convolutions and the arrays; contents are zero. `arch` has to outlive the object. */
APD_MUST_USE enum apd_code apd_params_create(struct apd_backend *be, const struct apd_arch *arch,
                                             int has_aux, struct apd_params **out,
                                             struct apd_err *err);
void apd_params_destroy(struct apd_params **params);

/* METHOD: Kaiming normal fan-out, gamma 1, beta 0, classifier U(+-1/sqrt(fan_in)); running mean 0,
 * variance 1. A pure function of the seed and the parameters' names. zero_init: last gamma of each
 * block. */
APD_MUST_USE enum apd_code apd_params_init(struct apd_params *params, uint64_t seed, int zero_init,
                                           struct apd_err *err);

/* To be called when weights were written other than by apd_params_init or a step. */
APD_MUST_USE enum apd_code apd_params_changed(struct apd_params *params, struct apd_err *err);

/* Makes room for the average. */
APD_MUST_USE enum apd_code apd_params_add_ema(struct apd_params *params, struct apd_err *err);
/* average = weights and statistics as they are. The three below do nothing without an average. */
APD_MUST_USE enum apd_code apd_params_start_ema(struct apd_params *params, struct apd_err *err);
/* average = decay * average + (1 - decay) * value. */
APD_MUST_USE enum apd_code apd_params_average(struct apd_params *params, double decay,
                                              struct apd_err *err);
/* Lets the average change places with weights and statistics, for an evaluation; once more: back.
 * After a failure they have changed places all the same. */
APD_MUST_USE enum apd_code apd_params_swap_ema(struct apd_params *params, struct apd_err *err);

/* Tensor i of the list that checkpoints hold, and where it lies; 0 past the end. */
int apd_params_tensor(const struct apd_params *params, int i, struct apd_tensor_info *out);

/* Canonical floats of one tensor <-> a flat array (weights, momentum, a gradient, or stats). */
APD_MUST_USE enum apd_code apd_params_export(const struct apd_params *params,
                                             const struct apd_tensor_info *info, const void *flat,
                                             float *out, struct apd_err *err);
APD_MUST_USE enum apd_code apd_params_import(const struct apd_params *params,
                                             const struct apd_tensor_info *info, const float *in,
                                             void *flat, struct apd_err *err);

/* Device address of element `at` of a flat array. */
static inline void *apd_at(const struct apd_params *params, void *flat, size_t at)
{
    return (char *)flat + at * params->be->elem_bytes;
}

#endif
