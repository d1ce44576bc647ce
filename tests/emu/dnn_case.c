#include "tests/emu/dnn_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct apd_dnn_problem dnn_shapes[DNN_SHAPES] = {
    {.n = 3, .h = 17, .w = 15, .c = 8, .k = 24, .kernel = 7, .stride = 2, .pad = 3, .groups = 1},
    {.n = 2, .h = 9, .w = 9, .c = 8, .k = 16, .kernel = 3, .stride = 1, .pad = 1, .groups = 1},
    {.n = 2, .h = 7, .w = 9, .c = 16, .k = 16, .kernel = 3, .stride = 1, .pad = 1, .groups = 1},
    {.n = 3, .h = 8, .w = 8, .c = 24, .k = 40, .kernel = 3, .stride = 2, .pad = 1, .groups = 1},
    {.n = 1, .h = 7, .w = 5, .c = 16, .k = 8, .kernel = 3, .stride = 2, .pad = 1, .groups = 1},
    {.n = 2, .h = 6, .w = 7, .c = 64, .k = 32, .kernel = 1, .stride = 1, .pad = 0, .groups = 1},
    {.n = 2, .h = 7, .w = 6, .c = 32, .k = 64, .kernel = 1, .stride = 2, .pad = 0, .groups = 1},
    {.n = 5, .h = 1, .w = 1, .c = 64, .k = 104, .kernel = 1, .stride = 1, .pad = 0, .groups = 1},
    {.n = 1, .h = 1, .w = 1, .c = 8, .k = 8, .kernel = 1, .stride = 1, .pad = 0, .groups = 1},
    {.n = 2, .h = 5, .w = 6, .c = 128, .k = 128, .kernel = 3, .stride = 1, .pad = 1, .groups = 32},
    {.n = 2, .h = 7, .w = 7, .c = 256, .k = 256, .kernel = 3, .stride = 2, .pad = 1, .groups = 32},
    {.n = 1, .h = 4, .w = 4, .c = 32, .k = 64, .kernel = 3, .stride = 1, .pad = 1, .groups = 4},
    {.n = 2, .h = 5, .w = 5, .c = 3, .k = 5, .kernel = 3, .stride = 1, .pad = 1, .groups = 1},
    {.n = 1, .h = 6, .w = 6, .c = 8, .k = 8, .kernel = 3, .stride = 1, .pad = 0, .groups = 1},
};

void dnn_good(enum apd_code code, const struct apd_err *err)
{
    if (code != APD_OK)
        fail_msg("%s", err->msg);
}

/* ---- elements ---- */

static size_t elem_bytes(enum apd_cuda_type type)
{
    return type == APD_CUDA_F32 ? 4 : 2;
}

double dnn_get(enum apd_cuda_type type, const void *p, size_t i)
{
    uint32_t bits;
    float f;

    if (type == APD_CUDA_F32)
        return ((const float *)p)[i];
    if (type == APD_CUDA_F16)
        return ((const _Float16 *)p)[i];
    bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

void dnn_put(enum apd_cuda_type type, void *p, size_t i, double v)
{
    float f = (float)v;
    uint32_t bits;

    if (type == APD_CUDA_F32) {
        ((float *)p)[i] = f;
    } else if (type == APD_CUDA_F16) {
        ((_Float16 *)p)[i] = (_Float16)v;
    } else {
        memcpy(&bits, &f, sizeof bits);
        ((uint16_t *)p)[i] = (uint16_t)(bits >> 16);
    }
}

/* Half a step of the type at 1. */
static double rounding(enum apd_cuda_type type)
{
    return type == APD_CUDA_F32 ? 0x1p-24 : type == APD_CUDA_F16 ? 0x1p-11 : 0x1p-8;
}

/* ---- one convolution ---- */

static void operand_init(struct dnn_operand *o, enum apd_cuda_type type, size_t count,
                         struct test_random *random)
{
    o->count = count;
    o->host = calloc(count, elem_bytes(type));
    o->value = calloc(count, sizeof *o->value);
    assert_true(o->host != NULL && o->value != NULL);
    for (size_t i = 0; i < count; i++) {
        dnn_put(type, o->host, i, (double)test_below(random, 2001) / 1000 - 1);
        o->value[i] = dnn_get(type, o->host, i);
    }
    OK(cudaMalloc(&o->device, count * elem_bytes(type)));
    OK(cudaMemcpy(o->device, o->host, count * elem_bytes(type), cudaMemcpyHostToDevice));
}

static void operand_fini(struct dnn_operand *o)
{
    OK(cudaFree(o->device));
    free(o->host);
    free(o->value);
}

struct dnn_operand *dnn_result(struct dnn_case *b)
{
    return b->problem.op == APD_DNN_FORWARD         ? &b->y
           : b->problem.op == APD_DNN_BACKWARD_DATA ? &b->x
                                                    : &b->w;
}

void dnn_case_init(struct dnn_case *b, const struct apd_dnn_problem *problem,
                   struct test_random *random)
{
    const struct apd_dnn_problem *p = problem;

    memset(b, 0, sizeof *b);
    b->problem = *p;
    b->oh = (p->h + 2 * p->pad - p->kernel) / p->stride + 1;
    b->ow = (p->w + 2 * p->pad - p->kernel) / p->stride + 1;
    operand_init(&b->x, p->type, (size_t)(p->n * p->h * p->w * p->c), random);
    operand_init(&b->w, p->type, (size_t)(p->k * p->kernel * p->kernel * (p->c / p->groups)),
                 random);
    operand_init(&b->y, p->type, (size_t)(p->n * b->oh * b->ow * p->k), random);
    b->sum = calloc(dnn_result(b)->count, sizeof *b->sum);
    b->size = calloc(dnn_result(b)->count, sizeof *b->size);
    assert_true(b->sum != NULL && b->size != NULL);
    /* What must not be read. */
    OK(cudaMemset(dnn_result(b)->device, 0xff, dnn_result(b)->count * elem_bytes(p->type)));
    OK(cudaDeviceSynchronize());
}

void dnn_case_fini(struct dnn_case *b)
{
    operand_fini(&b->x);
    operand_fini(&b->w);
    operand_fini(&b->y);
    free(b->sum);
    free(b->size);
    OK(cudaFree(b->workspace));
}

static void product(struct dnn_case *b, size_t x, size_t w, size_t y)
{
    size_t at = b->problem.op == APD_DNN_FORWARD         ? y
                : b->problem.op == APD_DNN_BACKWARD_DATA ? x
                                                         : w;
    double v = b->problem.op == APD_DNN_FORWARD         ? b->x.value[x] * b->w.value[w]
               : b->problem.op == APD_DNN_BACKWARD_DATA ? b->y.value[y] * b->w.value[w]
                                                        : b->x.value[x] * b->y.value[y];

    b->sum[at] += v;
    b->size[at] += fabs(v);
}

/* All products that one output element is made of, in whichever direction. */
static void products_of(struct dnn_case *b, int n, int i, int j, int k)
{
    const struct apd_dnn_problem *p = &b->problem;
    int cg = p->c / p->groups, group = k / (p->k / p->groups);

    for (int r = 0; r < p->kernel; r++)
        for (int s = 0; s < p->kernel; s++) {
            int h = i * p->stride + r - p->pad, w = j * p->stride + s - p->pad;

            if (h < 0 || h >= p->h || w < 0 || w >= p->w)
                continue;
            for (int c = 0; c < cg; c++)
                product(b, (size_t)(((n * p->h + h) * p->w + w) * p->c + group * cg + c),
                        (size_t)(((k * p->kernel + r) * p->kernel + s) * cg + c),
                        (size_t)(((n * b->oh + i) * b->ow + j) * p->k + k));
        }
}

void dnn_reference(struct dnn_case *b)
{
    for (int n = 0; n < b->problem.n; n++)
        for (int i = 0; i < b->oh; i++)
            for (int j = 0; j < b->ow; j++)
                for (int k = 0; k < b->problem.k; k++)
                    products_of(b, n, i, j, k);
}

void dnn_run(struct apd_dnn *dnn, struct dnn_case *b, cudaStream_t stream)
{
    const struct apd_dnn_plan *plan;
    struct apd_err err;

    GOOD(apd_dnn_plan(dnn, &b->problem, &plan, &err));
    if (b->workspace == NULL)
        OK(cudaMalloc(&b->workspace, apd_dnn_workspace_bytes(dnn)));
    GOOD(apd_dnn_run(dnn, plan, b->x.device, b->w.device, b->y.device, b->workspace, stream, &err));
    OK(cudaStreamSynchronize(stream));
    OK(cudaMemcpy(dnn_result(b)->host, dnn_result(b)->device,
                  dnn_result(b)->count * elem_bytes(b->problem.type), cudaMemcpyDeviceToHost));
}

double dnn_worst(struct dnn_case *b, double inputs)
{
    double worst = 0;

    for (size_t i = 0; i < dnn_result(b)->count; i++) {
        double error = fabs(dnn_get(b->problem.type, dnn_result(b)->host, i) - b->sum[i]);
        double allowed = rounding(b->problem.type) * fabs(b->sum[i]) + 0x1p-20 * b->size[i] +
                         inputs * b->size[i] + 1e-30;

        if (!(error / allowed <= worst)) /* NaN, too */
            worst = error / allowed;
    }
    return worst;
}

struct apd_dnn *dnn_case_library(const char *engines, int nondeterministic)
{
    struct apd_dnn_options options = {.engines = engines, .nondeterministic = nondeterministic};
    struct apd_dnn *dnn = NULL;
    struct apd_err err;

    GOOD(apd_dnn_create(&options, &dnn, &err));
    return dnn;
}

struct apd_dnn_plan_info dnn_plan_info(struct apd_dnn *dnn, const struct apd_dnn_problem *p)
{
    const struct apd_dnn_plan *plan = NULL;
    struct apd_dnn_plan_info info;
    struct apd_err err;

    GOOD(apd_dnn_plan(dnn, p, &plan, &err));
    apd_dnn_plan_info(plan, &info);
    return info;
}
