/* Which oneDNN implementation computes a convolution. What oneDNN 2.6 offers depends on the layouts
 * of the activations: with blocked ones it has no optimised kernel for groups of few channels, nor
 * for the gradient of a plain image, nor any backward kernel below AVX2, and would silently take
 * its reference code, which is slower by orders of magnitude. So layouts are tried in order of
 * cost. */
#include "kernels/cpu/pass.h"

#include "kernels/shape.h"

#include <string.h>

const char *const cpu_direction_names[CPU_DIRECTIONS] = {"forward", "backward data",
                                                         "backward weights"};

struct layouts {
    dnnl_format_tag_t src, dst;
};

static dnnl_format_tag_t blocked(const struct cpu_backend *cpu)
{
    return cpu->simd->block == 16 ? dnnl_nChw16c : dnnl_nChw8c;
}

static enum apd_code describe_activation(struct apd_shape s, int n, dnnl_format_tag_t tag,
                                         dnnl_memory_desc_t *out, struct apd_err *err)
{
    dnnl_dims_t dims = {n, s.c, s.h, s.w};
    enum apd_code rc = APD_OK;

    DNNL_GO(dnnl_memory_desc_init_by_tag(out, 4, dims, dnnl_f32, tag));
done:
    return rc;
}

enum apd_code cpu_activation_desc(const struct cpu_backend *cpu, const struct apd_conv_shape *shape,
                                  int n, int dst, dnnl_memory_desc_t *out, struct apd_err *err)
{
    if (dst)
        return describe_activation(apd_conv_out(shape), n, blocked(cpu), out, err);
    return describe_activation(shape->in, n, shape->input_is_image ? dnnl_nchw : blocked(cpu), out,
                               err);
}

enum apd_code cpu_weights_desc(const struct apd_conv_shape *shape, dnnl_format_tag_t tag,
                               dnnl_memory_desc_t *out, struct apd_err *err)
{
    int g = shape->groups, k = shape->kernel;
    dnnl_dims_t plain = {shape->out_c, shape->in.c, k, k};
    dnnl_dims_t grouped = {g, shape->out_c / g, shape->in.c / g, k, k};
    enum apd_code rc = APD_OK;

    if (g > 1)
        DNNL_GO(dnnl_memory_desc_init_by_tag(out, 5, grouped, dnnl_f32, tag));
    else
        DNNL_GO(dnnl_memory_desc_init_by_tag(out, 4, plain, dnnl_f32, tag));
done:
    return rc;
}

static enum cpu_quality quality_of(const char *impl)
{
    if (strstr(impl, "ref") != NULL)
        return CPU_REFERENCE;
    return strstr(impl, "gemm") != NULL ? CPU_GEMM : CPU_OPTIMISED;
}

/* Asks oneDNN for one algorithm in one pair of layouts. That it has none is no error: quality NONE.
 */
static enum apd_code ask(struct cpu_backend *cpu, const struct apd_conv_shape *shape, int n,
                         enum cpu_direction direction, dnnl_alg_kind_t algo, struct layouts layouts,
                         struct cpu_choice *out, struct apd_err *err)
{
    dnnl_dims_t strides = {shape->stride, shape->stride}, pads = {shape->pad, shape->pad};
    dnnl_memory_desc_t src, dst, weights;
    dnnl_convolution_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    enum apd_code rc;

    *out = (struct cpu_choice){.quality = CPU_NONE};
    APD_GO(describe_activation(shape->in, n, layouts.src, &src, err));
    APD_GO(describe_activation(apd_conv_out(shape), n, layouts.dst, &dst, err));
    APD_GO(cpu_weights_desc(shape, dnnl_format_tag_any, &weights, err));
    if (direction == CPU_FORWARD)
        DNNL_GO(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_training, algo, &src,
                                                   &weights, NULL, &dst, strides, pads, pads));
    else if (direction == CPU_BACKWARD_DATA)
        DNNL_GO(dnnl_convolution_backward_data_desc_init(&desc, algo, &src, &weights, &dst, strides,
                                                         pads, pads));
    else
        DNNL_GO(dnnl_convolution_backward_weights_desc_init(&desc, algo, &src, &weights, NULL, &dst,
                                                            strides, pads, pads));
    DNNL_GO(dnnl_primitive_attr_create(&attr));
    DNNL_GO(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    if (dnnl_primitive_desc_create(&out->pd, &desc, attr, cpu->engine, NULL) != dnnl_success)
        goto done;
    DNNL_GO(dnnl_primitive_desc_query(out->pd, dnnl_query_impl_info_str, 0, &out->impl));
    out->quality = quality_of(out->impl);
    out->winograd = algo == dnnl_convolution_winograd;
done:
    if (attr != NULL)
        (void)dnnl_primitive_attr_destroy(attr);
    return rc;
}

/* Keeps the better of *best and *other and destroys the other. */
static void keep_better(struct cpu_choice *best, struct cpu_choice *other)
{
    if (other->quality < best->quality) {
        struct cpu_choice t = *best;

        *best = *other;
        *other = t;
    }
    if (other->pd != NULL)
        (void)dnnl_primitive_desc_destroy(other->pd);
}

enum apd_code cpu_choose(struct cpu_backend *cpu, const struct apd_conv_shape *shape, int n,
                         enum cpu_direction direction, int winograd, struct cpu_choice *out,
                         struct apd_err *err)
{
    struct layouts own = {shape->input_is_image ? dnnl_nchw : blocked(cpu), blocked(cpu)};
    const struct {
        dnnl_alg_kind_t algo;
        struct layouts layouts;
    } tries[] = {
        {dnnl_convolution_winograd, own},
        {dnnl_convolution_direct, own},
        {dnnl_convolution_direct, {blocked(cpu), blocked(cpu)}},
        {dnnl_convolution_direct, {dnnl_nhwc, dnnl_nhwc}},
        {dnnl_convolution_direct, {dnnl_nchw, dnnl_nchw}},
    };
    struct cpu_choice best = {.quality = CPU_NONE};
    enum apd_code rc = APD_OK;

    for (size_t i = winograd ? 0 : 1; i < sizeof tries / sizeof *tries; i++) {
        struct cpu_choice next;

        rc = ask(cpu, shape, n, direction, tries[i].algo, tries[i].layouts, &next, err);
        keep_better(&best, &next);
        if (rc != APD_OK || best.quality == CPU_OPTIMISED)
            break;
    }
    if (rc == APD_OK && best.quality == CPU_NONE)
        rc = apd_fail(err, APD_DEVICE, "oneDNN has no %s convolution for this shape",
                      cpu_direction_names[direction]);
    if (rc != APD_OK && best.pd != NULL)
        (void)dnnl_primitive_desc_destroy(best.pd);
    if (rc == APD_OK)
        *out = best;
    return rc;
}

enum apd_code cpu_reorder_create(const struct cpu_backend *cpu, const dnnl_memory_desc_t *from,
                                 const dnnl_memory_desc_t *to, dnnl_primitive_t *out,
                                 struct apd_err *err)
{
    dnnl_primitive_desc_t pd = NULL;
    enum apd_code rc = APD_OK;

    DNNL_GO(dnnl_reorder_primitive_desc_create(&pd, from, cpu->engine, to, cpu->engine, NULL));
    DNNL_GO(dnnl_primitive_create(out, pd));
done:
    if (pd != NULL)
        (void)dnnl_primitive_desc_destroy(pd);
    return rc;
}

enum apd_code cpu_reorder_run(const struct cpu_backend *cpu, dnnl_primitive_t reorder,
                              dnnl_memory_t from, dnnl_memory_t to, struct apd_err *err)
{
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    enum apd_code rc = APD_OK;

    DNNL_GO(dnnl_primitive_execute(reorder, cpu->stream, 2, args));
done:
    return rc;
}
