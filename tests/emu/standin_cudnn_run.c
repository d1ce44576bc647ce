/* The arithmetic: oneDNN in float on one thread (the same bits whatever the number of cores),
 * operands widened before and the result rounded to its type after. */
#include "tests/emu/standin_cudnn.h"

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the operation ---- */

static void read_tensor(const struct descriptor *tensor, int which, int64_t dims[4],
                        struct convolution *out)
{
    memcpy(dims, ints_of(tensor, CUDNN_ATTR_TENSOR_DIMENSIONS), 4 * sizeof *dims);
    out->uid[which] = int_of(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID);
    out->alignment[which] = int_of(tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
    out->type = (cudnnDataType_t)enum_of(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE);
}

#define READ(NAME, X, W, Y)                                                                        \
    do {                                                                                           \
        conv = part_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_CONV_DESC);                   \
        read_tensor(part_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##X), 0, out->x, out);   \
        read_tensor(part_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##W), 1, out->w, out);   \
        read_tensor(part_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##Y), 2, out->y, out);   \
        out->alpha =                                                                               \
            *(float *)attribute_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_ALPHA)->value;    \
        out->beta =                                                                                \
            *(float *)attribute_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_BETA)->value;     \
    } while (0)

void convolution_read(const struct descriptor *op, struct convolution *out)
{
    const struct descriptor *conv;

    memset(out, 0, sizeof *out);
    out->op = op->type;
    if (op->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)
        READ(FORWARD, X, W, Y);
    else if (op->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR)
        READ(BWD_DATA, DX, W, DY);
    else
        READ(BWD_FILTER, X, DW, DY);
    memcpy(out->pre_pad, ints_of(conv, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS), sizeof out->pre_pad);
    memcpy(out->post_pad, ints_of(conv, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS),
           sizeof out->post_pad);
    memcpy(out->stride, ints_of(conv, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES), sizeof out->stride);
}

/* ---- types ---- */

static uint32_t bits_of(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Scaling by 2^112 moves half's exponent to float's, subnormals included. */
static float from_half(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    uint32_t bits = bits_of(float_of(magnitude) * 0x1p112f);

    if (magnitude >= UINT32_C(0x7c00) << 13)
        bits = magnitude | UINT32_C(0x7f800000);
    return float_of(bits | (uint32_t)(half & 0x8000) << 16);
}

/* To nearest, ties to even. */
static uint16_t to_half(float x)
{
    uint32_t bits = bits_of(x), magnitude = bits & UINT32_C(0x7fffffff), half;

    if (magnitude > UINT32_C(0x7f800000))
        half = 0x7e00;
    else if (magnitude >= UINT32_C(0x47800000)) /* 2^16 */
        half = 0x7c00;
    else if (magnitude < UINT32_C(0x38800000)) /* 2^-14: the adder rounds to steps of 2^-24 */
        half = bits_of(float_of(magnitude) + 0.5f) - UINT32_C(0x3f000000);
    else
        half = (magnitude - UINT32_C(0x38000000) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    return (uint16_t)(half | (bits >> 16 & 0x8000));
}

/* Keeps 32 - drop bits, to nearest, ties to even; NaN stays NaN. */
static uint32_t round_bits(uint32_t bits, int drop)
{
    uint32_t half = (UINT32_C(1) << (drop - 1)) - 1;

    if ((bits & UINT32_C(0x7fffffff)) > UINT32_C(0x7f800000))
        return bits | UINT32_C(0x00400000);
    return (bits + half + (bits >> drop & 1)) & ~((UINT32_C(1) << drop) - 1);
}

static void widen(cudnnDataType_t type, int tf32, int64_t n, const void *src, float *dst)
{
    const uint16_t *narrow = src;

    if (type == CUDNN_DATA_HALF)
        for (int64_t i = 0; i < n; i++)
            dst[i] = from_half(narrow[i]);
    else if (type == CUDNN_DATA_BFLOAT16)
        for (int64_t i = 0; i < n; i++)
            dst[i] = float_of((uint32_t)narrow[i] << 16);
    else if (tf32)
        for (int64_t i = 0; i < n; i++)
            dst[i] = float_of(round_bits(bits_of(((const float *)src)[i]), 13));
    else
        memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void narrow(cudnnDataType_t type, int64_t n, const float *src, void *dst)
{
    uint16_t *out = dst;

    if (type == CUDNN_DATA_HALF)
        for (int64_t i = 0; i < n; i++)
            out[i] = to_half(src[i]);
    else if (type == CUDNN_DATA_BFLOAT16)
        for (int64_t i = 0; i < n; i++)
            out[i] = (uint16_t)(round_bits(bits_of(src[i]), 16) >> 16);
    else
        memcpy(dst, src, (size_t)n * sizeof *src);
}

/* ---- oneDNN ---- */

/* Nothing can be returned from work on a stream. */
static void must(int failed, const char *what)
{
    if (failed) {
        fprintf(stderr, "stand-in cuDNN: %s failed\n", what);
        abort();
    }
}

#define MUST(call) must((call) != dnnl_success, #call)

struct cpu {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
};

/* x, w, y as they are in memory, and as the primitive may have them. */
struct layouts {
    dnnl_memory_desc_t plain[3], any[3];
};

static void describe(const struct convolution *c, struct layouts *out)
{
    int64_t g = c->x[1] / c->w[1], cg = c->w[1], r = c->w[2], s = c->w[3];
    dnnl_dims_t x = {c->x[0], c->x[1], c->x[2], c->x[3]};
    dnnl_dims_t y = {c->y[0], c->y[1], c->y[2], c->y[3]};
    dnnl_dims_t w = {c->w[0], cg, r, s}, gw = {g, c->w[0] / g, cg, r, s};
    dnnl_dims_t w_strides = {r * s * cg, 1, s * cg, cg};
    dnnl_dims_t gw_strides = {c->w[0] / g * r * s * cg, r * s * cg, 1, s * cg, cg};

    MUST(dnnl_memory_desc_init_by_tag(&out->plain[0], 4, x, dnnl_f32, dnnl_nhwc));
    MUST(dnnl_memory_desc_init_by_tag(&out->plain[2], 4, y, dnnl_f32, dnnl_nhwc));
    MUST(dnnl_memory_desc_init_by_strides(&out->plain[1], g > 1 ? 5 : 4, g > 1 ? gw : w, dnnl_f32,
                                          g > 1 ? gw_strides : w_strides));
    for (int i = 0; i < 3; i++)
        MUST(dnnl_memory_desc_init_by_tag(&out->any[i], out->plain[i].ndims, out->plain[i].dims,
                                          dnnl_f32, dnnl_format_tag_any));
}

static dnnl_primitive_desc_t new_primitive_desc(const struct cpu *cpu, const struct convolution *c,
                                                const struct layouts *l)
{
    const dnnl_memory_desc_t *x = &l->any[0], *w = &l->any[1], *y = &l->any[2];
    const dnnl_dims_t s = {c->stride[0], c->stride[1]};
    const dnnl_dims_t pre = {c->pre_pad[0], c->pre_pad[1]};
    const dnnl_dims_t post = {c->post_pad[0], c->post_pad[1]};
    dnnl_convolution_desc_t desc;
    dnnl_primitive_desc_t forward, pd;

    MUST(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_training, dnnl_convolution_direct,
                                            x, w, NULL, y, s, pre, post));
    MUST(dnnl_primitive_desc_create(&forward, &desc, NULL, cpu->engine, NULL));
    if (c->op == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)
        return forward;
    if (c->op == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR)
        MUST(dnnl_convolution_backward_data_desc_init(&desc, dnnl_convolution_direct, x, w, y, s,
                                                      pre, post));
    else
        MUST(dnnl_convolution_backward_weights_desc_init(&desc, dnnl_convolution_direct, x, w, NULL,
                                                         y, s, pre, post));
    MUST(dnnl_primitive_desc_create(&pd, &desc, NULL, cpu->engine, forward));
    MUST(dnnl_primitive_desc_destroy(forward));
    return pd;
}

static void reorder(const struct cpu *cpu, dnnl_memory_t from, dnnl_memory_t to)
{
    const dnnl_memory_desc_t *from_desc, *to_desc;
    dnnl_exec_arg_t args[2] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t primitive;

    MUST(dnnl_memory_get_memory_desc(from, &from_desc));
    MUST(dnnl_memory_get_memory_desc(to, &to_desc));
    MUST(dnnl_reorder_primitive_desc_create(&pd, from_desc, cpu->engine, to_desc, cpu->engine,
                                            NULL));
    MUST(dnnl_primitive_create(&primitive, pd));
    MUST(dnnl_primitive_execute(primitive, cpu->stream, 2, args));
    MUST(dnnl_stream_wait(cpu->stream));
    MUST(dnnl_primitive_destroy(primitive));
    MUST(dnnl_primitive_desc_destroy(pd));
}

/* How oneDNN calls x, w and y in the three operations, and as what the primitive has them. */
struct roles {
    int arg[3];
    dnnl_query_t query[3];
    int result;
};

static struct roles roles_of(const struct convolution *c)
{
    if (c->op == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)
        return (struct roles){{DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                              {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md},
                              2};
    if (c->op == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR)
        return (struct roles){
            {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST},
            {dnnl_query_diff_src_md, dnnl_query_weights_md, dnnl_query_diff_dst_md},
            0};
    return (struct roles){{DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST},
                          {dnnl_query_src_md, dnnl_query_diff_weights_md, dnnl_query_diff_dst_md},
                          1};
}

/* data: x, w, y in float; the result is overwritten. */
static void convolve(const struct cpu *cpu, const struct convolution *c, float *const data[3])
{
    struct roles roles = roles_of(c);
    struct layouts layouts;
    dnnl_memory_t plain[3], own[3];
    dnnl_exec_arg_t args[3];
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t primitive;

    describe(c, &layouts);
    pd = new_primitive_desc(cpu, c, &layouts);
    for (int i = 0; i < 3; i++) {
        const dnnl_memory_desc_t *desc = dnnl_primitive_desc_query_md(pd, roles.query[i], 0);

        MUST(dnnl_memory_create(&plain[i], &layouts.plain[i], cpu->engine, data[i]));
        MUST(dnnl_memory_create(&own[i], desc, cpu->engine, DNNL_MEMORY_ALLOCATE));
        if (i != roles.result)
            reorder(cpu, plain[i], own[i]);
        args[i] = (dnnl_exec_arg_t){roles.arg[i], own[i]};
    }
    MUST(dnnl_primitive_create(&primitive, pd));
    MUST(dnnl_primitive_execute(primitive, cpu->stream, 3, args));
    MUST(dnnl_stream_wait(cpu->stream));
    reorder(cpu, own[roles.result], plain[roles.result]);
    for (int i = 0; i < 3; i++) {
        MUST(dnnl_memory_destroy(plain[i]));
        MUST(dnnl_memory_destroy(own[i]));
    }
    MUST(dnnl_primitive_destroy(primitive));
    MUST(dnnl_primitive_desc_destroy(pd));
}

/* ---- the job ---- */

static int64_t elements(const int64_t dims[4])
{
    return dims[0] * dims[1] * dims[2] * dims[3];
}

static void store(const struct job *job, int64_t n, float *result, void *dst)
{
    const struct convolution *c = &job->conv;
    float *before = c->beta != 0 ? malloc((size_t)n * sizeof *before) : NULL;

    if (c->beta != 0) { /* beta 0 does not read: there may be NaN */
        must(before == NULL, "malloc");
        widen(c->type, 0, n, dst, before);
    }
    for (int64_t i = 0; i < n; i++)
        result[i] = c->alpha * result[i] + (before != NULL ? c->beta * before[i] : 0);
    narrow(c->type, n, result, dst);
    free(before);
}

void job_run(const struct job *job)
{
    const int64_t *dims[3] = {job->conv.x, job->conv.w, job->conv.y};
    int result = roles_of(&job->conv).result, threads = omp_get_max_threads();
    float *data[3];
    struct cpu cpu;

    omp_set_num_threads(1);
    MUST(dnnl_engine_create(&cpu.engine, dnnl_cpu, 0));
    MUST(dnnl_stream_create(&cpu.stream, cpu.engine, dnnl_stream_default_flags));
    memset(job->workspace, 0xff, WORKSPACE_BYTES);
    for (int i = 0; i < 3; i++) {
        data[i] = malloc((size_t)elements(dims[i]) * sizeof *data[i]);
        must(data[i] == NULL, "malloc");
        if (i != result)
            widen(job->conv.type, job->conv.engine == ENGINE_ROUNDED, elements(dims[i]),
                  job->data[i], data[i]);
    }
    convolve(&cpu, &job->conv, data);
    store(job, elements(dims[result]), data[result], job->data[result]);
    for (int i = 0; i < 3; i++)
        free(data[i]);
    MUST(dnnl_stream_destroy(cpu.stream));
    MUST(dnnl_engine_destroy(cpu.engine));
    omp_set_num_threads(threads);
}
