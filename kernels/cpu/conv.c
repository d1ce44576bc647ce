/* Convolutions. A layer's weights have one layout, that of oneDNN's direct forward primitive,
 * whatever the batch size; a primitive that wants another one gets a copy, made anew when the
 * weights changed. Everything that depends on the batch size is a plan, made once by conv_prepare.
 */
#include "base/log.h"
#include "kernels/cpu/pass.h"
#include "kernels/shape.h"

#include <assert.h>
#include <omp.h>
#include <stdlib.h>

/* The batch size that the layout of the weights is asked for; any would do, but always the same. */
#define LAYOUT_BATCH 16

/* Winograd F(4x4, 3x3) pays from this many tiles (measured: ResNet-50 and ResNet-18 layers). */
#define WINOGRAD_TILES 64

struct weights_copy {
    dnnl_memory_desc_t desc;
    void *data;
    dnnl_memory_t memory;
    dnnl_primitive_t reorder;
    const void *of;   /* the weights it was made from */
    uint64_t version; /* and when */
    struct weights_copy *next;
};

struct plan {
    int n;
    struct cpu_pass pass[CPU_DIRECTIONS];
    struct weights_copy *copy[CPU_DIRECTIONS]; /* NULL: the weights as they are */
    dnnl_memory_t d_weights;            /* backward weights: gradient as the primitive writes it */
    dnnl_primitive_t d_weights_reorder; /* NULL: in the layout of the weights */
    struct plan *next;
};

struct apd_conv {
    struct apd_conv_shape shape;
    dnnl_memory_desc_t desc; /* of the weights */
    dnnl_memory_t memory;    /* address set at each use */
    struct weights_copy *copies;
    struct plan *plans;
    int warned[CPU_DIRECTIONS];
};

static size_t cpu_conv_weight_elems(const struct apd_conv *conv)
{
    return dnnl_memory_desc_get_size(&conv->desc) / sizeof(float);
}

/* ---- copies of the weights in other layouts ---- */

static void copy_destroy(struct weights_copy *copy)
{
    if (copy->reorder != NULL)
        (void)dnnl_primitive_destroy(copy->reorder);
    if (copy->memory != NULL)
        (void)dnnl_memory_destroy(copy->memory);
    free(copy->data);
    free(copy);
}

static enum apd_code copy_create(struct cpu_backend *cpu, struct apd_conv *conv,
                                 const dnnl_memory_desc_t *desc, struct weights_copy **out,
                                 struct apd_err *err)
{
    struct weights_copy *copy = calloc(1, sizeof *copy);
    enum apd_code rc;

    if (copy == NULL)
        return apd_fail(err, APD_NOMEM, "no memory for a convolution");
    copy->desc = *desc;
    APD_GO(cpu->ops.alloc(&cpu->base, dnnl_memory_desc_get_size(desc), &copy->data, err));
    DNNL_GO(dnnl_memory_create(&copy->memory, desc, cpu->engine, copy->data));
    APD_GO(cpu_reorder_create(cpu, &conv->desc, desc, &copy->reorder, err));
    copy->next = conv->copies;
    conv->copies = copy;
    *out = copy;
done:
    if (rc != APD_OK)
        copy_destroy(copy);
    return rc;
}

/* The layer's copy in layout desc; NULL if that is the weights' own. */
static enum apd_code copy_for(struct cpu_backend *cpu, struct apd_conv *conv,
                              const dnnl_memory_desc_t *desc, struct weights_copy **out,
                              struct apd_err *err)
{
    *out = NULL;
    if (dnnl_memory_desc_equal(desc, &conv->desc))
        return APD_OK;
    for (struct weights_copy *c = conv->copies; c != NULL; c = c->next)
        if (dnnl_memory_desc_equal(desc, &c->desc)) {
            *out = c;
            return APD_OK;
        }
    return copy_create(cpu, conv, desc, out, err);
}

/* The memory to hand to a primitive for weights w, brought up to date. */
static enum apd_code current_weights(struct cpu_backend *cpu, struct apd_conv *conv,
                                     struct weights_copy *copy, const void *w, dnnl_memory_t *out,
                                     struct apd_err *err)
{
    enum apd_code rc = APD_OK;

    DNNL_GO(dnnl_memory_set_data_handle(conv->memory, (void *)(uintptr_t)w));
    *out = conv->memory;
    if (copy == NULL)
        goto done;
    if (copy->of != w || copy->version != cpu->weights_version) {
        omp_set_num_threads(cpu->threads);
        APD_GO(cpu_reorder_run(cpu, copy->reorder, conv->memory, copy->memory, err));
        copy->of = w;
        copy->version = cpu->weights_version;
    }
    *out = copy->memory;
done:
    return rc;
}

/* ---- plans ---- */

static void plan_destroy(struct plan *plan)
{
    for (int d = 0; d < CPU_DIRECTIONS; d++)
        cpu_pass_fini(&plan->pass[d]);
    if (plan->d_weights != NULL)
        (void)dnnl_memory_destroy(plan->d_weights);
    if (plan->d_weights_reorder != NULL)
        (void)dnnl_primitive_destroy(plan->d_weights_reorder);
    free(plan);
}

static int wants_winograd(const struct cpu_backend *cpu, const struct apd_conv_shape *s, int n)
{
    struct apd_shape out = apd_conv_out(s);
    int tiles = n * ((out.h + 3) / 4) * ((out.w + 3) / 4);

    if (s->kernel != 3 || s->stride != 1 || s->groups != 1 || s->input_is_image)
        return 0;
    return cpu->algo == CPU_ALGO_WINOGRAD ||
           (cpu->algo == CPU_ALGO_AUTO && tiles >= WINOGRAD_TILES);
}

static void report(struct apd_conv *conv, int n, enum cpu_direction d,
                   const struct cpu_choice *choice)
{
    const struct apd_conv_shape *s = &conv->shape;
    int slow = choice->quality == CPU_REFERENCE && !conv->warned[d];

    conv->warned[d] |= slow;
    apd_log(slow ? APD_LOG_WARN : APD_LOG_DEBUG,
            slow ? "convolution without an optimised kernel" : "convolution",
            "pass=\"%s\" in=%dx%dx%d out_c=%d kernel=%d stride=%d groups=%d n=%d impl=%s",
            cpu_direction_names[d], s->in.c, s->in.h, s->in.w, s->out_c, s->kernel, s->stride,
            s->groups, n, choice->impl);
}

/* The gradient of the weights is written to scratch, and from there added to d_w. */
static enum apd_code plan_d_weights(struct cpu_backend *cpu, struct apd_conv *conv,
                                    struct plan *plan, struct apd_err *err)
{
    const dnnl_memory_desc_t *desc = &plan->pass[CPU_BACKWARD_WEIGHTS].weights;
    enum apd_code rc = APD_OK;

    APD_GO(cpu_reserve(cpu, CPU_D_WEIGHTS, dnnl_memory_desc_get_size(&conv->desc), err));
    DNNL_GO(dnnl_memory_create(&plan->d_weights, desc, cpu->engine, DNNL_MEMORY_NONE));
    if (dnnl_memory_desc_equal(desc, &conv->desc))
        goto done;
    APD_GO(cpu_reserve(cpu, CPU_D_WEIGHTS_IN, dnnl_memory_desc_get_size(desc), err));
    APD_GO(cpu_reorder_create(cpu, desc, &conv->desc, &plan->d_weights_reorder, err));
done:
    return rc;
}

static enum apd_code plan_pass(struct cpu_backend *cpu, struct apd_conv *conv, struct plan *plan,
                               enum cpu_direction d, struct apd_err *err)
{
    struct cpu_choice choice;
    enum apd_code rc;

    APD_TRY(cpu_choose(cpu, &conv->shape, plan->n, d, wants_winograd(cpu, &conv->shape, plan->n),
                       &choice, err));
    report(conv, plan->n, d, &choice);
    rc = cpu_pass_init(cpu, &plan->pass[d], &conv->shape, plan->n, d, &choice, err);
    (void)dnnl_primitive_desc_destroy(choice.pd);
    if (rc != APD_OK)
        return rc;
    if (d == CPU_BACKWARD_WEIGHTS)
        return plan_d_weights(cpu, conv, plan, err);
    return copy_for(cpu, conv, &plan->pass[d].weights, &plan->copy[d], err);
}

static struct plan *find_plan(const struct apd_conv *conv, int n)
{
    struct plan *plan = conv->plans;

    while (plan != NULL && plan->n != n)
        plan = plan->next;
    return plan;
}

static enum apd_code cpu_conv_prepare(struct apd_backend *be, struct apd_conv *conv, int n, int d_w,
                                      int d_src, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    struct plan *plan;
    enum apd_code rc = APD_OK;

    (void)d_w, (void)d_src; /* a plan costs no memory */
    assert(n > 0);
    if (find_plan(conv, n) != NULL)
        return APD_OK;
    plan = calloc(1, sizeof *plan);
    if (plan == NULL)
        return apd_fail(err, APD_NOMEM, "no memory for a convolution");
    plan->n = n;
    omp_set_num_threads(cpu->threads);
    for (int d = 0; d < CPU_DIRECTIONS && rc == APD_OK; d++)
        rc = plan_pass(cpu, conv, plan, (enum cpu_direction)d, err);
    if (rc != APD_OK) {
        plan_destroy(plan);
        return rc;
    }
    plan->next = conv->plans;
    conv->plans = plan;
    return APD_OK;
}

static enum apd_code plan_for(struct apd_backend *be, struct apd_conv *conv, int n,
                              struct plan **out, struct apd_err *err)
{
    APD_TRY(cpu_conv_prepare(be, conv, n, 1, 1, err));
    *out = find_plan(conv, n);
    return APD_OK;
}

/* ---- the operations ---- */

static void cpu_conv_destroy(struct apd_backend *be, struct apd_conv **conv)
{
    (void)be;
    if (*conv == NULL)
        return;
    for (struct plan *plan = (*conv)->plans, *next; plan != NULL; plan = next) {
        next = plan->next;
        plan_destroy(plan);
    }
    for (struct weights_copy *copy = (*conv)->copies, *next; copy != NULL; copy = next) {
        next = copy->next;
        copy_destroy(copy);
    }
    if ((*conv)->memory != NULL)
        (void)dnnl_memory_destroy((*conv)->memory);
    free(*conv);
    *conv = NULL;
}

static enum apd_code cpu_conv_create(struct apd_backend *be, const struct apd_conv_shape *shape,
                                     struct apd_conv **out, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    struct cpu_choice choice = {0};
    struct apd_conv *conv;
    enum apd_code rc;

    assert(apd_conv_shape_ok(shape));
    conv = calloc(1, sizeof *conv);
    if (conv == NULL)
        return apd_fail(err, APD_NOMEM, "no memory for a convolution");
    conv->shape = *shape;
    omp_set_num_threads(cpu->threads);
    APD_GO(cpu_choose(cpu, shape, LAYOUT_BATCH, CPU_FORWARD, 0, &choice, err));
    conv->desc = *dnnl_primitive_desc_query_md(choice.pd, dnnl_query_weights_md, 0);
    DNNL_GO(dnnl_memory_create(&conv->memory, &conv->desc, cpu->engine, DNNL_MEMORY_NONE));
    *out = conv;
done:
    if (choice.pd != NULL)
        (void)dnnl_primitive_desc_destroy(choice.pd);
    if (rc != APD_OK)
        cpu_conv_destroy(be, &conv);
    return rc;
}

/* Copies between the layer's layout and canonical OIHW; not for the step. */
static enum apd_code exchange(struct apd_backend *be, const struct apd_conv *conv, float *oihw,
                              void *weights, int import, struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    dnnl_memory_desc_t plain;
    dnnl_memory_t host = NULL, own = NULL;
    dnnl_primitive_t reorder = NULL;
    enum apd_code rc;

    omp_set_num_threads(cpu->threads);
    APD_GO(cpu_weights_desc(&conv->shape, conv->shape.groups > 1 ? dnnl_goihw : dnnl_oihw, &plain,
                            err));
    APD_GO(cpu_reorder_create(cpu, import ? &plain : &conv->desc, import ? &conv->desc : &plain,
                              &reorder, err));
    DNNL_GO(dnnl_memory_create(&host, &plain, cpu->engine, oihw));
    DNNL_GO(dnnl_memory_create(&own, &conv->desc, cpu->engine, weights));
    APD_GO(cpu_reorder_run(cpu, reorder, import ? host : own, import ? own : host, err));
done:
    if (host != NULL)
        (void)dnnl_memory_destroy(host);
    if (own != NULL)
        (void)dnnl_memory_destroy(own);
    if (reorder != NULL)
        (void)dnnl_primitive_destroy(reorder);
    return rc;
}

static enum apd_code cpu_conv_import(struct apd_backend *be, const struct apd_conv *conv,
                                     const float *oihw, void *weights, struct apd_err *err)
{
    return exchange(be, conv, (float *)(uintptr_t)oihw, weights, 1, err);
}

static enum apd_code cpu_conv_export(struct apd_backend *be, const struct apd_conv *conv,
                                     const void *weights, float *oihw, struct apd_err *err)
{
    return exchange(be, conv, oihw, (void *)(uintptr_t)weights, 0, err);
}

static enum apd_code cpu_conv_forward(struct apd_backend *be, struct apd_conv *conv, int n,
                                      const void *src, const void *w, void *dst,
                                      struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    struct plan *plan;
    dnnl_memory_t weights = NULL;

    APD_TRY(plan_for(be, conv, n, &plan, err));
    APD_TRY(current_weights(cpu, conv, plan->copy[CPU_FORWARD], w, &weights, err));
    return cpu_pass_run(cpu, &plan->pass[CPU_FORWARD], src, dst, weights, err);
}

static enum apd_code cpu_conv_backward_data(struct apd_backend *be, struct apd_conv *conv, int n,
                                            const void *d_dst, const void *w, void *d_src,
                                            struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    struct plan *plan;
    dnnl_memory_t weights = NULL;

    APD_TRY(plan_for(be, conv, n, &plan, err));
    APD_TRY(current_weights(cpu, conv, plan->copy[CPU_BACKWARD_DATA], w, &weights, err));
    return cpu_pass_run(cpu, &plan->pass[CPU_BACKWARD_DATA], d_src, d_dst, weights, err);
}

static enum apd_code cpu_conv_backward_weights(struct apd_backend *be, struct apd_conv *conv, int n,
                                               const void *src, const void *d_dst, void *d_w,
                                               struct apd_err *err)
{
    struct cpu_backend *cpu = cpu_of(be);
    void *fresh = NULL;
    struct plan *plan;
    enum apd_code rc;

    APD_GO(plan_for(be, conv, n, &plan, err));
    fresh = cpu->scratch[CPU_D_WEIGHTS].data;
    DNNL_GO(dnnl_memory_set_data_handle(
        plan->d_weights,
        plan->d_weights_reorder == NULL ? fresh : cpu->scratch[CPU_D_WEIGHTS_IN].data));
    APD_GO(cpu_pass_run(cpu, &plan->pass[CPU_BACKWARD_WEIGHTS], src, d_dst, plan->d_weights, err));
    if (plan->d_weights_reorder != NULL) {
        DNNL_GO(dnnl_memory_set_data_handle(conv->memory, fresh));
        APD_GO(cpu_reorder_run(cpu, plan->d_weights_reorder, plan->d_weights, conv->memory, err));
    }
    APD_GO(be->ops->add(be, cpu_conv_weight_elems(conv), fresh, d_w, err));
done:
    return rc;
}

static enum apd_code cpu_weights_changed(struct apd_backend *be, const void *weights, size_t n,
                                         struct apd_err *err)
{
    (void)weights;
    (void)n;
    (void)err;
    cpu_of(be)->weights_version++;
    return APD_OK;
}

void cpu_conv_ops(struct apd_backend_ops *ops)
{
    ops->conv_create = cpu_conv_create;
    ops->conv_destroy = cpu_conv_destroy;
    ops->conv_weight_elems = cpu_conv_weight_elems;
    ops->conv_import = cpu_conv_import;
    ops->conv_export = cpu_conv_export;
    ops->conv_prepare = cpu_conv_prepare;
    ops->conv_forward = cpu_conv_forward;
    ops->conv_backward_data = cpu_conv_backward_data;
    ops->conv_backward_weights = cpu_conv_backward_weights;
    ops->weights_changed = cpu_weights_changed;
}
