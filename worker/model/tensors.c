#include "worker/model/tensors.h"

#include <stdio.h>
#include <string.h>

static void describe_classifier(const struct apd_arch *arch, int is_bias,
                                struct apd_tensor_info *out)
{
    out->part = is_bias ? APD_PART_FC_BIAS : APD_PART_FC_WEIGHT;
    out->dims = is_bias ? 1 : 2;
    out->shape[0] = arch->classes;
    out->shape[1] = arch->features.c;
    (void)snprintf(out->name, sizeof out->name, "fc.%s", is_bias ? "bias" : "weight");
}

static void describe_conv(const struct apd_layer *layer, struct apd_tensor_info *out)
{
    out->part = APD_PART_CONV;
    out->dims = 4;
    out->shape[0] = layer->shape.out_c;
    out->shape[1] = layer->shape.in.c / layer->shape.groups;
    out->shape[2] = out->shape[3] = layer->shape.kernel;
    (void)snprintf(out->name, sizeof out->name, "%s.weight", layer->conv);
}

static void describe_vector(const struct apd_layer *layer, int set, int which,
                            struct apd_tensor_info *out)
{
    static const char *const names[4] = {"weight", "bias", "running_mean", "running_var"};

    out->part = (enum apd_part)(APD_PART_GAMMA + which);
    out->dims = 1;
    out->shape[0] = layer->out.c;
    out->is_stat = out->part == APD_PART_MEAN || out->part == APD_PART_VAR;
    out->set = (enum apd_set)(APD_SET_MAIN + set);
    (void)snprintf(out->name, sizeof out->name, "%s.%s%s", layer->bn,
                   set == APD_BN_AUX ? "aux_bn." : "", names[which]);
}

int apd_arch_tensor(const struct apd_arch *arch, int has_aux, int i, struct apd_tensor_info *out)
{
    int per_layer = has_aux ? 9 : 5;
    int part = i % per_layer;

    memset(out, 0, sizeof *out);
    if (i < 0 || i >= arch->layer_count * per_layer + 2)
        return 0;
    out->layer = i / per_layer;
    if (out->layer == arch->layer_count)
        describe_classifier(arch, part, out);
    else if (part == 0)
        describe_conv(&arch->layer[out->layer], out);
    else
        describe_vector(&arch->layer[out->layer], (part - 1) / 4, (part - 1) % 4, out);
    out->elems = 1;
    for (int d = 0; d < out->dims; d++)
        out->elems *= (size_t)out->shape[d];
    return 1;
}
