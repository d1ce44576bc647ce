/* Networks as data: ResNets (He et al. 2015; stride in the 3x3 of the bottleneck, "v1.5"), ResNeXts
 * (Xie et al. 2016) and Wide ResNets (Zagoruyko and Komodakis 2016), with torchvision's names of
 * networks and parameters. A description lists layers with their shapes; it owns no parameter
 * and knows no backend. */
#ifndef APD_WORKER_MODEL_ARCH_H
#define APD_WORKER_MODEL_ARCH_H

#include "base/err.h"
#include "kernels/backend.h"

#include <stddef.h>

#define APD_LAYER_NAME 48
#define APD_MAX_BLOCKS 64
#define APD_MAX_LAYERS 256 /* convolutions, and as many BN layers */

/* Convolution i is followed by BN layer i. */
struct apd_layer {
    char conv[APD_LAYER_NAME]; /* "layer1.0.conv1" */
    char bn[APD_LAYER_NAME];   /* "layer1.0.bn1" */
    struct apd_conv_shape shape;
    struct apd_shape out;
    int zero_init; /* last gamma of its block, zeroed if asked for */
};

struct apd_block {
    int first, count; /* layers of the main path */
    int down;         /* layer of the shortcut's projection, -1: identity */
    struct apd_shape in, out;
};

struct apd_arch {
    char name[32];
    struct apd_shape image, features; /* features: before the global average pool */
    int classes;
    int maxpool;               /* 3x3 / 2 after the stem */
    struct apd_shape stem_out; /* after the pool, if any */
    int layer_count;           /* layer 0 is the stem */
    struct apd_layer layer[APD_MAX_LAYERS];
    int block_count;
    struct apd_block block[APD_MAX_BLOCKS];
};

/* name: torchvision's; width: channels of the stem and planes of the first stage (64 is standard);
 * small_stem: 3x3 stride 1 and no pool, for images of 28 to 64 px. APD_CONFIG for an unknown name,
 * an image too small, or a width at which the groups of a ResNeXt would have no whole number of
 * channels. */
APD_MUST_USE enum apd_code apd_arch_build(const char *name, int width, int small_stem,
                                          struct apd_shape image, int classes, struct apd_arch *out,
                                          struct apd_err *err);

/* The names that apd_arch_build() knows; NULL past the end. */
const char *apd_arch_name(int i);

/* Parameters of the plain network (main BN only). */
size_t apd_arch_parameters(const struct apd_arch *arch);

#endif
