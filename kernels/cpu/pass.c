#include "kernels/cpu/pass.h"

#include <omp.h>

static int writes_src(enum cpu_direction d)
{
    return d == CPU_BACKWARD_DATA;
}

static int writes_dst(enum cpu_direction d)
{
    return d == CPU_FORWARD;
}

static void side_fini(struct cpu_side *side)
{
    if (side->own != NULL)
        (void)dnnl_memory_destroy(side->own);
    if (side->inner != NULL)
        (void)dnnl_memory_destroy(side->inner);
    if (side->reorder != NULL)
        (void)dnnl_primitive_destroy(side->reorder);
    *side = (struct cpu_side){0};
}

static enum apd_code side_init(struct cpu_backend *cpu, struct cpu_side *side,
                               const dnnl_memory_desc_t *own, const dnnl_memory_desc_t *inner,
                               int is_result, enum cpu_scratch_use scratch, struct apd_err *err)
{
    enum apd_code rc = APD_OK;

    DNNL_GO(dnnl_memory_create(&side->own, own, cpu->engine, DNNL_MEMORY_NONE));
    if (dnnl_memory_desc_equal(own, inner))
        goto done;
    DNNL_GO(dnnl_memory_create(&side->inner, inner, cpu->engine, DNNL_MEMORY_NONE));
    APD_GO(cpu_reserve(cpu, scratch, dnnl_memory_desc_get_size(inner), err));
    APD_GO(cpu_reorder_create(cpu, is_result ? inner : own, is_result ? own : inner, &side->reorder,
                              err));
done:
    return rc;
}

void cpu_pass_fini(struct cpu_pass *pass)
{
    side_fini(&pass->src);
    side_fini(&pass->dst);
    if (pass->scratchpad != NULL)
        (void)dnnl_memory_destroy(pass->scratchpad);
    if (pass->primitive != NULL)
        (void)dnnl_primitive_destroy(pass->primitive);
    *pass = (struct cpu_pass){0};
}

enum apd_code cpu_pass_init(struct cpu_backend *cpu, struct cpu_pass *pass,
                            const struct apd_conv_shape *shape, int n, enum cpu_direction direction,
                            const struct cpu_choice *choice, struct apd_err *err)
{
    static const dnnl_query_t queries[CPU_DIRECTIONS][3] = {
        [CPU_FORWARD] = {dnnl_query_src_md, dnnl_query_dst_md, dnnl_query_weights_md},
        [CPU_BACKWARD_DATA] = {dnnl_query_diff_src_md, dnnl_query_diff_dst_md,
                               dnnl_query_weights_md},
        [CPU_BACKWARD_WEIGHTS] = {dnnl_query_src_md, dnnl_query_diff_dst_md,
                                  dnnl_query_diff_weights_md},
    };
    const dnnl_query_t *query = queries[direction];
    const dnnl_memory_desc_t *scratchpad =
        dnnl_primitive_desc_query_md(choice->pd, dnnl_query_scratchpad_md, 0);
    dnnl_memory_desc_t src, dst;
    enum apd_code rc;

    *pass = (struct cpu_pass){.direction = direction};
    pass->weights = *dnnl_primitive_desc_query_md(choice->pd, query[2], 0);
    APD_GO(cpu_activation_desc(cpu, shape, n, 0, &src, err));
    APD_GO(cpu_activation_desc(cpu, shape, n, 1, &dst, err));
    APD_GO(side_init(cpu, &pass->src, &src, dnnl_primitive_desc_query_md(choice->pd, query[0], 0),
                     writes_src(direction), CPU_SRC, err));
    APD_GO(side_init(cpu, &pass->dst, &dst, dnnl_primitive_desc_query_md(choice->pd, query[1], 0),
                     writes_dst(direction), CPU_DST, err));
    DNNL_GO(dnnl_memory_create(&pass->scratchpad, scratchpad, cpu->engine, DNNL_MEMORY_NONE));
    APD_GO(cpu_reserve(cpu, CPU_PRIMITIVE, dnnl_memory_desc_get_size(scratchpad), err));
    DNNL_GO(dnnl_primitive_create(&pass->primitive, choice->pd));
done:
    if (rc != APD_OK)
        cpu_pass_fini(pass);
    return rc;
}

/* Points the side at our tensor and gives what the primitive is to be called with. */
static enum apd_code side_open(struct cpu_backend *cpu, struct cpu_side *side, const void *tensor,
                               int is_result, enum cpu_scratch_use scratch, dnnl_memory_t *out,
                               struct apd_err *err)
{
    enum apd_code rc = APD_OK;

    /* oneDNN has no const memory; operands are only read. */
    DNNL_GO(dnnl_memory_set_data_handle(side->own, (void *)(uintptr_t)tensor));
    *out = side->own;
    if (side->inner == NULL)
        goto done;
    DNNL_GO(dnnl_memory_set_data_handle(side->inner, cpu->scratch[scratch].data));
    *out = side->inner;
    if (!is_result)
        APD_GO(cpu_reorder_run(cpu, side->reorder, side->own, side->inner, err));
done:
    return rc;
}

/* Brings a result home. */
static enum apd_code side_close(struct cpu_backend *cpu, struct cpu_side *side, int is_result,
                                struct apd_err *err)
{
    if (side->inner == NULL || !is_result)
        return APD_OK;
    return cpu_reorder_run(cpu, side->reorder, side->inner, side->own, err);
}

enum apd_code cpu_pass_run(struct cpu_backend *cpu, struct cpu_pass *pass, const void *src,
                           const void *dst, dnnl_memory_t weights, struct apd_err *err)
{
    static const int names[CPU_DIRECTIONS][3] = {
        [CPU_FORWARD] = {DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS},
        [CPU_BACKWARD_DATA] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS},
        [CPU_BACKWARD_WEIGHTS] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS},
    };
    enum cpu_direction d = pass->direction;
    dnnl_exec_arg_t args[] = {
        {names[d][0], NULL},
        {names[d][1], NULL},
        {names[d][2], weights},
        {DNNL_ARG_SCRATCHPAD, pass->scratchpad},
    };
    enum apd_code rc;

    /* The primitive was made for this many threads; another backend may have set another number. */
    omp_set_num_threads(cpu->threads);
    APD_GO(side_open(cpu, &pass->src, src, writes_src(d), CPU_SRC, &args[0].memory, err));
    APD_GO(side_open(cpu, &pass->dst, dst, writes_dst(d), CPU_DST, &args[1].memory, err));
    DNNL_GO(dnnl_memory_set_data_handle(pass->scratchpad, cpu->scratch[CPU_PRIMITIVE].data));
    DNNL_GO(dnnl_primitive_execute(pass->primitive, cpu->stream, 4, args));
    APD_GO(side_close(cpu, &pass->src, writes_src(d), err));
    APD_GO(side_close(cpu, &pass->dst, writes_dst(d), err));
done:
    return rc;
}
