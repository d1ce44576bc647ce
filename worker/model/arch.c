#include "worker/model/arch.h"

#include <stdio.h>
#include <string.h>

/* clang-format off */
static const struct family {
    const char *name;
    int bottleneck;
    int blocks[4];
    int groups, base_width; /* of the bottleneck's 3x3: channels of a group at width 64 */
} families[] = {
    {"resnet18",         0, {2, 2,  2, 2},  1,  64},
    {"resnet34",         0, {3, 4,  6, 3},  1,  64},
    {"resnet50",         1, {3, 4,  6, 3},  1,  64},
    {"resnet101",        1, {3, 4, 23, 3},  1,  64},
    {"resnet152",        1, {3, 8, 36, 3},  1,  64},
    {"resnext50_32x4d",  1, {3, 4,  6, 3}, 32,   4},
    {"resnext101_32x8d", 1, {3, 4, 23, 3}, 32,   8},
    {"wide_resnet50_2",  1, {3, 4,  6, 3},  1, 128},
    {"wide_resnet101_2", 1, {3, 4, 23, 3},  1, 128},
};
/* clang-format on */

static int out_px(int in, int kernel, int stride, int pad)
{
    return (in + 2 * pad - kernel) / stride + 1;
}

/* Appends a convolution with its BN; the padding keeps the size at stride 1. */
static struct apd_layer *add_layer(struct apd_arch *arch, struct apd_shape in, int out_c,
                                   int kernel, int stride, int groups)
{
    struct apd_layer *layer = &arch->layer[arch->layer_count++];
    int pad = kernel / 2;

    layer->shape = (struct apd_conv_shape){
        .in = in, .out_c = out_c, .kernel = kernel, .stride = stride, .pad = pad, .groups = groups};
    layer->out = (struct apd_shape){out_c, out_px(in.h, kernel, stride, pad),
                                    out_px(in.w, kernel, stride, pad)};
    return layer;
}

static void name_layer(struct apd_layer *layer, const char *prefix, int number)
{
    (void)snprintf(layer->conv, sizeof layer->conv, "%sconv%d", prefix, number);
    (void)snprintf(layer->bn, sizeof layer->bn, "%sbn%d", prefix, number);
}

static void add_block(struct apd_arch *arch, const struct family *family, int stage, int index,
                      int planes, struct apd_shape in)
{
    struct apd_block *block = &arch->block[arch->block_count++];
    int out_c = family->bottleneck ? 4 * planes : planes;
    int stride = stage > 0 && index == 0 ? 2 : 1;
    int inner = planes * family->base_width / 64 * family->groups;
    const int kernels[3] = {family->bottleneck ? 1 : 3, 3, 1};
    char prefix[24];

    (void)snprintf(prefix, sizeof prefix, "layer%d.%d.", stage + 1, index);
    *block = (struct apd_block){
        .first = arch->layer_count, .count = family->bottleneck ? 3 : 2, .down = -1, .in = in};
    block->out = in;
    for (int i = 0; i < block->count; i++) {
        int last = i == block->count - 1;
        int strided = family->bottleneck ? i == 1 : i == 0;
        struct apd_layer *layer = add_layer(arch, block->out, last ? out_c : inner, kernels[i],
                                            strided ? stride : 1, strided ? family->groups : 1);

        name_layer(layer, prefix, i + 1);
        layer->zero_init = last;
        block->out = layer->out;
    }
    if (stride != 1 || in.c != out_c) {
        struct apd_layer *layer;

        block->down = arch->layer_count;
        layer = add_layer(arch, in, out_c, 1, stride, 1);
        (void)snprintf(layer->conv, sizeof layer->conv, "%sdownsample.0", prefix);
        (void)snprintf(layer->bn, sizeof layer->bn, "%sdownsample.1", prefix);
    }
}

static const struct family *find_family(const char *name)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(families[i].name, name) == 0)
            return &families[i];
    return NULL;
}

static enum apd_code check_width(const struct family *family, int width, struct apd_err *err)
{
    if (width < 1 || width > 4096)
        return apd_fail(err, APD_CONFIG, "model.width: expected 1 to 4096, found %d", width);
    if (width * family->base_width % 64 != 0)
        return apd_fail(err, APD_CONFIG,
                        "model.width: %s at width %d would have groups of %d * %d / 64 = %g "
                        "channels: expected a multiple of %d",
                        family->name, width, width, family->base_width,
                        width * family->base_width / 64.0, 64 / family->base_width);
    return APD_OK;
}

enum apd_code apd_arch_build(const char *name, int width, int small_stem, struct apd_shape image,
                             int classes, struct apd_arch *out, struct apd_err *err)
{
    const struct family *family = find_family(name);
    struct apd_shape at;

    if (family == NULL)
        return apd_fail(err, APD_CONFIG, "model.arch: no network is called \"%s\"", name);
    if (image.c < 1 || image.h < 8 || image.w < 8)
        return apd_fail(err, APD_CONFIG, "images of %d x %d x %d: expected at least 1 x 8 x 8",
                        image.c, image.h, image.w);
    if (classes < 2)
        return apd_fail(err, APD_CONFIG, "%d classes: expected at least 2", classes);
    APD_TRY(check_width(family, width, err));
    memset(out, 0, sizeof *out);
    (void)snprintf(out->name, sizeof out->name, "%s", name);
    out->image = image;
    out->classes = classes;
    out->maxpool = !small_stem;
    name_layer(add_layer(out, image, width, small_stem ? 3 : 7, small_stem ? 1 : 2, 1), "", 1);
    out->layer[0].shape.input_is_image = 1;
    at = out->layer[0].out;
    if (out->maxpool)
        at = (struct apd_shape){at.c, out_px(at.h, 3, 2, 1), out_px(at.w, 3, 2, 1)};
    out->stem_out = at;
    for (int stage = 0; stage < 4; stage++)
        for (int i = 0; i < family->blocks[stage]; i++) {
            add_block(out, family, stage, i, width << stage, at);
            at = out->block[out->block_count - 1].out;
        }
    out->features = at;
    return APD_OK;
}

size_t apd_arch_parameters(const struct apd_arch *arch)
{
    size_t n = (size_t)arch->classes * (size_t)(arch->features.c + 1);

    for (int i = 0; i < arch->layer_count; i++) {
        const struct apd_conv_shape *shape = &arch->layer[i].shape;

        n += (size_t)shape->out_c * (size_t)(shape->in.c / shape->groups) *
             (size_t)(shape->kernel * shape->kernel);
        n += 2 * (size_t)shape->out_c;
    }
    return n;
}

const char *apd_arch_name(int i)
{
    return i >= 0 && (size_t)i < sizeof families / sizeof *families ? families[i].name : NULL;
}
