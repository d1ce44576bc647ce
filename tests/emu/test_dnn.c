/* Our convolutions (kernels/cuda/dnn.h) on the stand-ins of the CUDA runtime and of cuDNN: every
 * operation against double, which engines are taken, the file of engines. */
#include "base/fs.h"
#include "kernels/cuda/dnn.h"
#include "tests/emu/standin_cudnn.h"
#include "tests/support/random.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OK(call)   assert_int_equal((call), cudaSuccess)
#define GOOD(call) good((call), &err)

static void good(enum apd_code code, const struct apd_err *err)
{
    if (code != APD_OK)
        fail_msg("%s", err->msg);
}

/* ---- elements ---- */

static size_t elem_bytes(enum apd_cuda_type type)
{
    return type == APD_CUDA_F32 ? 4 : 2;
}

static double get(enum apd_cuda_type type, const void *p, size_t i)
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

/* Of a double that bf16 has, or cut to it. */
static void put(enum apd_cuda_type type, void *p, size_t i, double v)
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

/* ---- one convolution: operands here, on the device and in double ---- */

struct operand {
    size_t count;
    void *host;
    double *value;
    void *device;
};

struct bench {
    struct apd_dnn_problem problem;
    int oh, ow;
    struct operand x, w, y;
    double *sum, *size; /* of the result: by the reference, and the sum of absolute products */
    void *workspace;
};

static void operand_init(struct operand *o, enum apd_cuda_type type, size_t count,
                         struct test_random *random)
{
    o->count = count;
    o->host = calloc(count, elem_bytes(type));
    o->value = calloc(count, sizeof *o->value);
    assert_true(o->host != NULL && o->value != NULL);
    for (size_t i = 0; i < count; i++) {
        put(type, o->host, i, (double)test_below(random, 2001) / 1000 - 1);
        o->value[i] = get(type, o->host, i);
    }
    OK(cudaMalloc(&o->device, count * elem_bytes(type)));
    OK(cudaMemcpy(o->device, o->host, count * elem_bytes(type), cudaMemcpyHostToDevice));
}

static void operand_fini(struct operand *o)
{
    OK(cudaFree(o->device));
    free(o->host);
    free(o->value);
}

static struct operand *result_of(struct bench *b)
{
    return b->problem.op == APD_DNN_FORWARD         ? &b->y
           : b->problem.op == APD_DNN_BACKWARD_DATA ? &b->x
                                                    : &b->w;
}

static void bench_init(struct bench *b, const struct apd_dnn_problem *problem,
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
    b->sum = calloc(result_of(b)->count, sizeof *b->sum);
    b->size = calloc(result_of(b)->count, sizeof *b->size);
    assert_true(b->sum != NULL && b->size != NULL);
    /* What must not be read. */
    OK(cudaMemset(result_of(b)->device, 0xff, result_of(b)->count * elem_bytes(p->type)));
    OK(cudaDeviceSynchronize());
}

static void bench_fini(struct bench *b)
{
    operand_fini(&b->x);
    operand_fini(&b->w);
    operand_fini(&b->y);
    free(b->sum);
    free(b->size);
    OK(cudaFree(b->workspace));
}

static void product(struct bench *b, size_t x, size_t w, size_t y)
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
static void products_of(struct bench *b, int n, int i, int j, int k)
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

static void reference(struct bench *b)
{
    for (int n = 0; n < b->problem.n; n++)
        for (int i = 0; i < b->oh; i++)
            for (int j = 0; j < b->ow; j++)
                for (int k = 0; k < b->problem.k; k++)
                    products_of(b, n, i, j, k);
}

static void run(struct apd_dnn *dnn, struct bench *b, cudaStream_t stream)
{
    const struct apd_dnn_plan *plan;
    struct apd_err err;

    GOOD(apd_dnn_plan(dnn, &b->problem, &plan, &err));
    if (b->workspace == NULL)
        OK(cudaMalloc(&b->workspace, apd_dnn_workspace_bytes(dnn)));
    GOOD(apd_dnn_run(dnn, plan, b->x.device, b->w.device, b->y.device, b->workspace, stream, &err));
    OK(cudaStreamSynchronize(stream));
    OK(cudaMemcpy(result_of(b)->host, result_of(b)->device,
                  result_of(b)->count * elem_bytes(b->problem.type), cudaMemcpyDeviceToHost));
}

/* The largest error, in units of what is allowed: the rounding of the result and of float sums, and
 * `inputs` of every product. */
static double worst(struct bench *b, double inputs)
{
    double worst = 0;

    for (size_t i = 0; i < result_of(b)->count; i++) {
        double error = fabs(get(b->problem.type, result_of(b)->host, i) - b->sum[i]);
        double allowed = rounding(b->problem.type) * fabs(b->sum[i]) + 0x1p-20 * b->size[i] +
                         inputs * b->size[i] + 1e-30;

        if (!(error / allowed <= worst)) /* NaN, too */
            worst = error / allowed;
    }
    return worst;
}

static struct apd_dnn *new_dnn(const char *engines, int nondeterministic)
{
    struct apd_dnn_options options = {.engines = engines, .nondeterministic = nondeterministic};
    struct apd_dnn *dnn = NULL;
    struct apd_err err;

    GOOD(apd_dnn_create(&options, &dnn, &err));
    return dnn;
}

/* ---- results ---- */

static const struct apd_dnn_problem shapes[] = {
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

static void check(struct apd_dnn *dnn, const struct apd_dnn_problem *p, cudaStream_t stream,
                  struct test_random *random)
{
    struct bench b;
    double error;

    bench_init(&b, p, random);
    reference(&b);
    run(dnn, &b, stream);
    error = worst(&b, 0);
    if (!(error <= 1))
        fail_msg("op %d type %d %dx%dx%dx%d -> %d %dx%d/%d: %g times the error allowed", p->op,
                 p->type, p->n, p->h, p->w, p->c, p->k, p->kernel, p->kernel, p->stride, error);
    bench_fini(&b);
}

static void convolutions_are_those_of_double(void **state)
{
    struct test_random random = test_random_start();
    struct apd_dnn *dnn = new_dnn(NULL, 0);
    cudaStream_t stream;

    (void)state;
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int type = 0; type < APD_CUDA_TYPES; type++)
            for (int op = 0; op < APD_DNN_OPS; op++) {
                struct apd_dnn_problem problem = shapes[i];

                problem.type = (enum apd_cuda_type)type;
                problem.op = (enum apd_dnn_op)op;
                check(dnn, &problem, stream, &random);
            }
    apd_dnn_destroy(&dnn);
    OK(cudaStreamDestroy(stream));
}

static void values_at_the_ends_of_a_type_survive(void **state)
{
    /* n c h w 1, filter 1: the result is the input. Largest, smallest normal, subnormals, a tie. */
    static const double values[8] = {65504, -0x1p-14,    0x1p-24,  3 * 0x1p-24,
                                     0,     1 + 0x1p-10, INFINITY, -2};
    struct apd_dnn_problem problem = {.type = APD_CUDA_F16,
                                      .n = 8,
                                      .h = 1,
                                      .w = 1,
                                      .c = 1,
                                      .k = 1,
                                      .kernel = 1,
                                      .stride = 1,
                                      .groups = 1};
    struct test_random random = {1};
    struct apd_dnn *dnn = new_dnn(NULL, 0);
    struct bench b;

    (void)state;
    bench_init(&b, &problem, &random);
    put(APD_CUDA_F16, b.w.host, 0, 1);
    for (size_t i = 0; i < 8; i++)
        put(APD_CUDA_F16, b.x.host, i, values[i]);
    OK(cudaMemcpy(b.x.device, b.x.host, 16, cudaMemcpyHostToDevice));
    OK(cudaMemcpy(b.w.device, b.w.host, 2, cudaMemcpyHostToDevice));
    run(dnn, &b, NULL);
    for (size_t i = 0; i < 8; i++)
        assert_true(get(APD_CUDA_F16, b.y.host, i) == values[i]);
    bench_fini(&b);
    apd_dnn_destroy(&dnn);
}

static void results_round_to_even_and_overflow_to_infinity(void **state)
{
    /* x * 1 + x' * 1 in float, then to half. */
    static const double terms[4][3] = {{2048, 1, 2048},       /* tie, down to even */
                                       {2050, 1, 2052},       /* tie, up to even */
                                       {65504, 16, INFINITY}, /* tie above the largest */
                                       {0x1p-24, 0x1p-24, 0x1p-23}};
    struct apd_dnn_problem problem = {.type = APD_CUDA_F16,
                                      .n = 4,
                                      .h = 1,
                                      .w = 1,
                                      .c = 2,
                                      .k = 1,
                                      .kernel = 1,
                                      .stride = 1,
                                      .groups = 1};
    struct test_random random = {1};
    struct apd_dnn *dnn = new_dnn(NULL, 0);
    struct bench b;

    (void)state;
    bench_init(&b, &problem, &random);
    for (size_t i = 0; i < 2; i++)
        put(APD_CUDA_F16, b.w.host, i, 1);
    for (size_t i = 0; i < 8; i++)
        put(APD_CUDA_F16, b.x.host, i, terms[i / 2][i % 2]);
    OK(cudaMemcpy(b.x.device, b.x.host, 16, cudaMemcpyHostToDevice));
    OK(cudaMemcpy(b.w.device, b.w.host, 4, cudaMemcpyHostToDevice));
    run(dnn, &b, NULL);
    for (size_t i = 0; i < 4; i++)
        assert_true(get(APD_CUDA_F16, b.y.host, i) == terms[i][2]);
    bench_fini(&b);
    apd_dnn_destroy(&dnn);
}

static void runs_repeat_bit_for_bit(void **state)
{
    struct test_random random = {2};
    struct apd_dnn_problem problem = shapes[3];
    struct apd_dnn *dnn = new_dnn(NULL, 0);
    size_t bytes;
    struct bench b;
    void *first;

    (void)state;
    problem.op = APD_DNN_BACKWARD_FILTER;
    bench_init(&b, &problem, &random);
    bytes = b.w.count * sizeof(float);
    first = malloc(bytes);
    assert_non_null(first);
    run(dnn, &b, NULL);
    memcpy(first, b.w.host, bytes);
    run(dnn, &b, NULL);
    assert_memory_equal(first, b.w.host, bytes);
    free(first);
    bench_fini(&b);
    apd_dnn_destroy(&dnn);
}

static void a_recorded_convolution_runs_at_each_launch(void **state)
{
    struct test_random random = {3};
    struct apd_dnn *dnn = new_dnn(NULL, 0);
    const struct apd_dnn_plan *plan;
    cudaGraphExec_t exec;
    cudaGraph_t graph;
    cudaStream_t stream;
    struct apd_err err;
    struct bench b;

    (void)state;
    bench_init(&b, &shapes[1], &random);
    reference(&b);
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    GOOD(apd_dnn_plan(dnn, &b.problem, &plan, &err));
    OK(cudaMalloc(&b.workspace, apd_dnn_workspace_bytes(dnn)));
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    GOOD(apd_dnn_run(dnn, plan, b.x.device, b.w.device, b.y.device, b.workspace, stream, &err));
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    for (int i = 0; i < 2; i++) {
        OK(cudaMemsetAsync(b.y.device, 0xff, b.y.count * sizeof(float), stream));
        OK(cudaGraphLaunch(exec, stream));
        OK(cudaMemcpyAsync(b.y.host, b.y.device, b.y.count * sizeof(float), cudaMemcpyDeviceToHost,
                           stream));
        OK(cudaStreamSynchronize(stream));
        assert_true(worst(&b, 0) <= 1);
    }
    OK(cudaGraphExecDestroy(exec));
    OK(cudaStreamDestroy(stream));
    bench_fini(&b);
    apd_dnn_destroy(&dnn);
}

/* ---- engines ---- */

static struct apd_dnn_plan_info plan_info(struct apd_dnn *dnn, const struct apd_dnn_problem *p)
{
    const struct apd_dnn_plan *plan = NULL;
    struct apd_dnn_plan_info info;
    struct apd_err err;

    GOOD(apd_dnn_plan(dnn, p, &plan, &err));
    apd_dnn_plan_info(plan, &info);
    return info;
}

static void engines_that_are_not_exact_are_left_out(void **state)
{
    struct apd_dnn *dnn = new_dnn(NULL, 0);

    (void)state;
    for (int type = 0; type < APD_CUDA_TYPES; type++) {
        struct apd_dnn_problem problem = shapes[0];
        struct apd_dnn_plan_info info;

        problem.type = (enum apd_cuda_type)type;
        info = plan_info(dnn, &problem);
        assert_int_equal(info.engine, ENGINE_PLAIN);
        assert_int_equal(info.workspace_bytes, WORKSPACE_BYTES);
        assert_int_equal(info.tensor_core, type != APD_CUDA_F32);
        assert_true(info.deterministic);
        assert_false(info.fallback);
        assert_string_equal(info.name, "eng2 k2=2");
    }
    apd_dnn_destroy(&dnn);
}

static void engines_that_vary_are_taken_if_asked_for(void **state)
{
    struct apd_dnn *dnn = new_dnn(NULL, 1);
    struct apd_dnn_plan_info info = plan_info(dnn, &shapes[0]);

    (void)state;
    assert_int_equal(info.engine, ENGINE_RANDOM);
    assert_false(info.deterministic);
    apd_dnn_destroy(&dnn);
}

static void tf32_rounds_inputs_and_only_if_asked_for(void **state)
{
    struct test_random random = {4};
    struct apd_dnn_problem problem = shapes[5];
    struct apd_dnn *dnn = new_dnn(NULL, 0);
    struct bench b;

    (void)state;
    problem.tf32 = 1;
    assert_int_equal(plan_info(dnn, &problem).engine, ENGINE_ROUNDED);
    bench_init(&b, &problem, &random);
    reference(&b);
    run(dnn, &b, NULL);
    assert_true(worst(&b, 0) > 1);
    assert_true(worst(&b, 2 * 0x1p-11) <= 1);
    bench_fini(&b);
    /* In 16 bits there is no such thing: the same plan. */
    problem.type = APD_CUDA_F16;
    assert_int_equal(plan_info(dnn, &problem).engine, ENGINE_PLAIN);
    apd_dnn_destroy(&dnn);
}

static void a_plan_is_made_once(void **state)
{
    struct apd_dnn *dnn = new_dnn(NULL, 0);
    const struct apd_dnn_plan *a, *b, *c;
    struct apd_dnn_problem problem = shapes[0];
    struct apd_err err;

    (void)state;
    assert_int_equal(apd_dnn_workspace_bytes(dnn), 0);
    GOOD(apd_dnn_plan(dnn, &problem, &a, &err));
    GOOD(apd_dnn_plan(dnn, &problem, &b, &err));
    assert_ptr_equal(a, b);
    problem.n++;
    GOOD(apd_dnn_plan(dnn, &problem, &c, &err));
    assert_ptr_not_equal(a, c);
    assert_int_equal(apd_dnn_workspace_bytes(dnn), WORKSPACE_BYTES);
    apd_dnn_destroy(&dnn);
    assert_null(dnn);
    apd_dnn_destroy(&dnn);
}

static void what_cannot_be_planned_or_run_is_told_in_cudnn_s_words(void **state)
{
    struct apd_dnn *dnn = new_dnn(NULL, 0);
    struct apd_dnn_problem wrong = shapes[0];
    const struct apd_dnn_plan *plan;
    struct test_random random = {5};
    struct apd_err err;
    struct bench b;

    (void)state;
    wrong.h = 1;
    wrong.kernel = 9;
    assert_int_equal(apd_dnn_plan(dnn, &wrong, &plan, &err), APD_DEVICE);
    assert_non_null(strstr(err.msg, "forward f32 3x1x15x8 -> 24 9x9/2 pad 3"));
    assert_non_null(strstr(err.msg, "cudnnBackendFinalize(tensor): CUDNN_STATUS_BAD_PARAM: "
                                    "dimension 2 of a tensor is 0"));
    bench_init(&b, &shapes[0], &random);
    GOOD(apd_dnn_plan(dnn, &shapes[0], &plan, &err));
    assert_int_equal(apd_dnn_run(dnn, plan, b.x.device, b.w.device, b.y.device, NULL, NULL, &err),
                     APD_DEVICE);
    assert_non_null(strstr(err.msg, "no workspace"));
    assert_int_equal(err.sys, CUDNN_STATUS_BAD_PARAM_NULL_POINTER);
    bench_fini(&b);
    apd_dnn_destroy(&dnn);
}

static void a_device_that_is_not_there_plans_and_does_not_run(void **state)
{
    struct apd_dnn_options options = {.device_json = "{\"deviceName\": \"elsewhere\"}"};
    struct apd_dnn *dnn = NULL;
    const struct apd_dnn_plan *plan;
    struct apd_err err;
    char x[16];

    (void)state;
    GOOD(apd_dnn_create(&options, &dnn, &err));
    assert_string_equal(apd_dnn_device_json(dnn), options.device_json);
    GOOD(apd_dnn_plan(dnn, &shapes[0], &plan, &err));
    assert_int_equal(apd_dnn_run(dnn, plan, x, x, x, x, NULL, &err), APD_BUG);
    apd_dnn_destroy(&dnn);
    options.device_json = "{}";
    assert_int_equal(apd_dnn_create(&options, &dnn, &err), APD_DEVICE);
    assert_non_null(strstr(err.msg, "deviceName"));
    assert_null(dnn);
}

/* ---- the file of engines ---- */

static char *text_of(const char *path)
{
    struct apd_err err;
    char *text = NULL;

    GOOD(apd_read_file(path, 1 << 20, &text, NULL, &err));
    return text;
}

/* In the file, the first `from` becomes `to`. */
static void replace(const char *path, const char *from, const char *to)
{
    char changed[4096], *text = NULL, *found;
    struct apd_err err;

    GOOD(apd_read_file(path, 1 << 20, &text, NULL, &err));
    found = strstr(text, from);
    assert_non_null(found);
    (void)snprintf(changed, sizeof changed, "%.*s%s%s", (int)(found - text), text, to,
                   found + strlen(from));
    scratch_write(path, changed, strlen(changed));
    free(text);
}

static void write_engines(const char *path)
{
    struct apd_dnn *dnn;
    struct apd_err err;

    scratch_write(path, "", 0); /* whatever was there */
    dnn = new_dnn(path, 0);
    (void)plan_info(dnn, &shapes[0]);
    (void)plan_info(dnn, &shapes[9]);
    GOOD(apd_dnn_save(dnn, &err));
    apd_dnn_destroy(&dnn);
}

static void a_restart_takes_the_engines_of_the_file(void **state)
{
    const char *path = scratch_path("engines");
    struct apd_dnn *dnn;
    struct apd_err err;
    char *text;

    (void)state;
    write_engines(path);
    replace(path, "\"knobs\":[[2,2]]", "\"knobs\":[[2,3]]");
    dnn = new_dnn(path, 0);
    assert_string_equal(apd_dnn_engines_note(dnn), "");
    assert_string_equal(plan_info(dnn, &shapes[0]).name, "eng2 k2=3");
    assert_string_equal(plan_info(dnn, &shapes[9]).name, "eng2 k2=2");
    /* Nothing is new: the file is left alone. */
    assert_int_equal(remove(path), 0);
    GOOD(apd_dnn_save(dnn, &err));
    assert_int_equal(apd_read_file(path, 1 << 20, &text, NULL, &err), APD_IO);
    /* What nobody asked for stays. */
    apd_dnn_destroy(&dnn);
    write_engines(path);
    dnn = new_dnn(path, 0);
    (void)plan_info(dnn, &shapes[1]);
    GOOD(apd_dnn_save(dnn, &err));
    apd_dnn_destroy(&dnn);
    text = text_of(path);
    assert_non_null(strstr(text, "\"nhwc\":[3,17,15,8]"));
    assert_non_null(strstr(text, "\"nhwc\":[2,9,9,8]"));
    free(text);
}

static void a_file_of_another_kind_is_left_alone_with_a_note(void **state)
{
    static const struct {
        const char *from, *to, *note;
    } damages[] = {
        {"\"stand-in\"", "\"another\"", "made for another, this is stand-in"},
        {"\"cudnn\": 9", "\"cudnn\": 8", "made by cuDNN 8"},
        {"\"format\": 1", "\"format\": 2", "format 2"},
        {"\"forward\"", "\"sideways\"", "sideways"},
        {"\"stride\":2", "\"stride\":\"2\"", "engine 0: "},
        {"[[2,2]]", "[[2,2,2]]", "engine 0: knobs"},
        {"[[2,2]]", "7", "engine 0: knobs"},
        {"[3,17,15,8]", "[3,17,15]", "engine 0: "},
        {"{\"op\"", "null,{\"op\"", "engine 0: "},
        {"]}\n", "", "line"},
        {"{\"format\"", "", "line"},
    };
    const char *path = scratch_path("engines");

    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        struct apd_dnn *dnn;
        struct apd_err err;

        write_engines(path);
        replace(path, damages[i].from, damages[i].to);
        dnn = new_dnn(path, 0);
        if (strstr(apd_dnn_engines_note(dnn), damages[i].note) == NULL)
            fail_msg("%s -> %s: \"%s\"", damages[i].from, damages[i].to, apd_dnn_engines_note(dnn));
        assert_string_equal(plan_info(dnn, &shapes[0]).name, "eng2 k2=2");
        GOOD(apd_dnn_save(dnn, &err));
        apd_dnn_destroy(&dnn);
        dnn = new_dnn(path, 0);
        assert_string_equal(apd_dnn_engines_note(dnn), "");
        apd_dnn_destroy(&dnn);
    }
}

static void every_torn_file_is_survived(void **state)
{
    const char *path = scratch_path("engines");
    char *text;

    (void)state;
    write_engines(path);
    text = text_of(path);
    for (size_t size = 0; size + 2 < strlen(text); size++) {
        struct apd_dnn *dnn;

        scratch_write(path, text, size);
        dnn = new_dnn(path, 0);
        assert_string_not_equal(apd_dnn_engines_note(dnn), "");
        apd_dnn_destroy(&dnn);
    }
    free(text);
}

static void engines_of_the_file_that_do_not_do_are_chosen_anew(void **state)
{
    static const struct {
        const char *from, *to;
    } engines[] = {
        {"\"engine\":2,\"knobs\":[[2,2]]", "\"engine\":0,\"knobs\":[]"}, /* varies */
        {"\"engine\":2,\"knobs\":[[2,2]]", "\"engine\":1,\"knobs\":[]"}, /* rounds */
        {"\"engine\":2", "\"engine\":99"},                               /* there is none */
        {"\"engine\":2", "\"engine\":-9223372036854775807"},             /* likewise */
        {"[[2,2]]", "[[2,77]]"},                                         /* nor such a knob */
        {"[[2,2]]", "[[4000000000,2]]"},
    };
    const char *path = scratch_path("engines");

    (void)state;
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        struct apd_dnn *dnn;

        write_engines(path);
        replace(path, engines[i].from, engines[i].to);
        dnn = new_dnn(path, 0);
        assert_string_equal(apd_dnn_engines_note(dnn), "");
        assert_string_equal(plan_info(dnn, &shapes[0]).name, "eng2 k2=2");
        apd_dnn_destroy(&dnn);
    }
}

static void a_file_that_cannot_be_written_is_an_error(void **state)
{
    struct apd_dnn *dnn = new_dnn(scratch_path("no folder/engines"), 0);
    struct apd_err err;

    (void)state;
    assert_string_equal(apd_dnn_engines_note(dnn), "");
    GOOD(apd_dnn_save(dnn, &err));
    (void)plan_info(dnn, &shapes[0]);
    assert_int_equal(apd_dnn_save(dnn, &err), APD_IO);
    apd_dnn_destroy(&dnn);
}

static int make_folder(void **state)
{
    (void)state;
    return scratch_create() == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_are_those_of_double),
        cmocka_unit_test(values_at_the_ends_of_a_type_survive),
        cmocka_unit_test(results_round_to_even_and_overflow_to_infinity),
        cmocka_unit_test(runs_repeat_bit_for_bit),
        cmocka_unit_test(a_recorded_convolution_runs_at_each_launch),
        cmocka_unit_test(engines_that_are_not_exact_are_left_out),
        cmocka_unit_test(engines_that_vary_are_taken_if_asked_for),
        cmocka_unit_test(tf32_rounds_inputs_and_only_if_asked_for),
        cmocka_unit_test(a_plan_is_made_once),
        cmocka_unit_test(what_cannot_be_planned_or_run_is_told_in_cudnn_s_words),
        cmocka_unit_test(a_device_that_is_not_there_plans_and_does_not_run),
        cmocka_unit_test(a_restart_takes_the_engines_of_the_file),
        cmocka_unit_test(a_file_of_another_kind_is_left_alone_with_a_note),
        cmocka_unit_test(every_torn_file_is_survived),
        cmocka_unit_test(engines_of_the_file_that_do_not_do_are_chosen_anew),
        cmocka_unit_test(a_file_that_cannot_be_written_is_an_error),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
