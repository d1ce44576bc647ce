/* Our convolutions (kernels/cuda/dnn.h) on the stand-ins of the CUDA runtime and of cuDNN: every
 * operation against double, and which engines are taken. */
#include "tests/emu/dnn_case.h"
#include "tests/emu/standin_cudnn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- results ---- */

static void check(struct apd_dnn *dnn, const struct apd_dnn_problem *p, cudaStream_t stream,
                  struct test_random *random)
{
    struct dnn_case b;
    double error;

    dnn_case_init(&b, p, random);
    dnn_reference(&b);
    dnn_run(dnn, &b, stream);
    error = dnn_worst(&b, 0);
    if (!(error <= 1))
        fail_msg("op %d type %d %dx%dx%dx%d -> %d %dx%d/%d: %g times the error allowed", p->op,
                 p->type, p->n, p->h, p->w, p->c, p->k, p->kernel, p->kernel, p->stride, error);
    dnn_case_fini(&b);
}

static void convolutions_are_those_of_double(void **state)
{
    struct test_random random = test_random_start();
    struct apd_dnn *dnn = dnn_case_library(NULL, 0);
    cudaStream_t stream;

    (void)state;
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (size_t i = 0; i < sizeof dnn_shapes / sizeof *dnn_shapes; i++)
        for (int type = 0; type < APD_CUDA_TYPES; type++)
            for (int op = 0; op < APD_DNN_OPS; op++) {
                struct apd_dnn_problem problem = dnn_shapes[i];

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
    struct apd_dnn *dnn = dnn_case_library(NULL, 0);
    struct dnn_case b;

    (void)state;
    dnn_case_init(&b, &problem, &random);
    dnn_put(APD_CUDA_F16, b.w.host, 0, 1);
    for (size_t i = 0; i < 8; i++)
        dnn_put(APD_CUDA_F16, b.x.host, i, values[i]);
    OK(cudaMemcpy(b.x.device, b.x.host, 16, cudaMemcpyHostToDevice));
    OK(cudaMemcpy(b.w.device, b.w.host, 2, cudaMemcpyHostToDevice));
    dnn_run(dnn, &b, NULL);
    for (size_t i = 0; i < 8; i++)
        assert_true(dnn_get(APD_CUDA_F16, b.y.host, i) == values[i]);
    dnn_case_fini(&b);
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
    struct apd_dnn *dnn = dnn_case_library(NULL, 0);
    struct dnn_case b;

    (void)state;
    dnn_case_init(&b, &problem, &random);
    for (size_t i = 0; i < 2; i++)
        dnn_put(APD_CUDA_F16, b.w.host, i, 1);
    for (size_t i = 0; i < 8; i++)
        dnn_put(APD_CUDA_F16, b.x.host, i, terms[i / 2][i % 2]);
    OK(cudaMemcpy(b.x.device, b.x.host, 16, cudaMemcpyHostToDevice));
    OK(cudaMemcpy(b.w.device, b.w.host, 4, cudaMemcpyHostToDevice));
    dnn_run(dnn, &b, NULL);
    for (size_t i = 0; i < 4; i++)
        assert_true(dnn_get(APD_CUDA_F16, b.y.host, i) == terms[i][2]);
    dnn_case_fini(&b);
    apd_dnn_destroy(&dnn);
}

static void runs_repeat_bit_for_bit(void **state)
{
    struct test_random random = {2};
    struct apd_dnn_problem problem = dnn_shapes[3];
    struct apd_dnn *dnn = dnn_case_library(NULL, 0);
    size_t bytes;
    struct dnn_case b;
    void *first;

    (void)state;
    problem.op = APD_DNN_BACKWARD_FILTER;
    dnn_case_init(&b, &problem, &random);
    bytes = b.w.count * sizeof(float);
    first = malloc(bytes);
    assert_non_null(first);
    dnn_run(dnn, &b, NULL);
    memcpy(first, b.w.host, bytes);
    dnn_run(dnn, &b, NULL);
    assert_memory_equal(first, b.w.host, bytes);
    free(first);
    dnn_case_fini(&b);
    apd_dnn_destroy(&dnn);
}

static void a_recorded_convolution_runs_at_each_launch(void **state)
{
    struct test_random random = {3};
    struct apd_dnn *dnn = dnn_case_library(NULL, 0);
    const struct apd_dnn_plan *plan;
    cudaGraphExec_t exec;
    cudaGraph_t graph;
    cudaStream_t stream;
    struct apd_err err;
    struct dnn_case b;

    (void)state;
    dnn_case_init(&b, &dnn_shapes[1], &random);
    dnn_reference(&b);
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
        assert_true(dnn_worst(&b, 0) <= 1);
    }
    OK(cudaGraphExecDestroy(exec));
    OK(cudaStreamDestroy(stream));
    dnn_case_fini(&b);
    apd_dnn_destroy(&dnn);
}

/* ---- engines ---- */

static void engines_that_are_not_exact_are_left_out(void **state)
{
    struct apd_dnn *dnn = dnn_case_library(NULL, 0);

    (void)state;
    for (int type = 0; type < APD_CUDA_TYPES; type++) {
        struct apd_dnn_problem problem = dnn_shapes[0];
        struct apd_dnn_plan_info info;

        problem.type = (enum apd_cuda_type)type;
        info = dnn_plan_info(dnn, &problem);
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
    struct apd_dnn *dnn = dnn_case_library(NULL, 1);
    struct apd_dnn_plan_info info = dnn_plan_info(dnn, &dnn_shapes[0]);

    (void)state;
    assert_int_equal(info.engine, ENGINE_RANDOM);
    assert_false(info.deterministic);
    apd_dnn_destroy(&dnn);
}

static void engines_that_are_compiled_or_slow_come_last(void **state)
{
    static const struct {
        enum apd_cuda_type type;
        const char *unfit;
        int engine, compiled_late;
    } cases[] = {
        {APD_CUDA_F16, "", ENGINE_PLAIN, 0},       {APD_CUDA_F16, "2", ENGINE_SIMPLE, 0},
        {APD_CUDA_F16, "2,4", ENGINE_COMPILED, 1}, {APD_CUDA_F32, "2", ENGINE_SIMPLE, 0},
        {APD_CUDA_F32, "2,4", ENGINE_COMPILED, 1},
    };
    struct test_random random = {6};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct apd_dnn *dnn = dnn_case_library(NULL, 0);
        struct apd_dnn_problem problem = dnn_shapes[1];
        struct apd_dnn_summary summary;
        struct dnn_case b;

        problem.type = cases[i].type;
        dnn_case_init(&b, &problem, &random);
        dnn_reference(&b);
        assert_int_equal(dnn_plan_info(dnn, &problem).engine, ENGINE_PLAIN);
        setenv("STANDIN_CUDNN_UNFIT", cases[i].unfit, 1);
        dnn_run(dnn, &b, NULL);
        unsetenv("STANDIN_CUDNN_UNFIT");
        assert_true(dnn_worst(&b, 0) <= 1);
        assert_int_equal(dnn_plan_info(dnn, &problem).engine, cases[i].engine);
        apd_dnn_summarize(dnn, &summary);
        assert_int_equal(summary.plans, 1);
        assert_int_equal(summary.compiled_late, cases[i].compiled_late);
        dnn_case_fini(&b);
        apd_dnn_destroy(&dnn);
    }
}

static void an_engine_that_does_not_run_is_replaced_and_told(void **state)
{
    struct apd_dnn *dnn = dnn_case_library(NULL, 0);
    struct test_random random = {7};
    const struct apd_dnn_plan *plan;
    struct apd_err err;
    struct dnn_case b;

    (void)state;
    dnn_case_init(&b, &dnn_shapes[1], &random);
    setenv("STANDIN_CUDNN_UNFIT", "2", 1);
    dnn_run(dnn, &b, NULL);
    assert_string_equal(apd_dnn_replaced(dnn),
                        "forward f32 2x9x9x8 -> 16 3x3/1 pad 1 groups 1: eng2 k2=2 did not run "
                        "(cudnnBackendExecute(dnn->handle, plan->plan, pack): "
                        "CUDNN_STATUS_NOT_SUPPORTED: engine 2 does not run), now eng4");
    /* A plan that has run is not changed any more. */
    setenv("STANDIN_CUDNN_UNFIT", "4", 1);
    GOOD(apd_dnn_plan(dnn, &b.problem, &plan, &err));
    assert_int_equal(
        apd_dnn_run(dnn, plan, b.x.device, b.w.device, b.y.device, b.workspace, NULL, &err),
        APD_DEVICE);
    assert_non_null(strstr(err.msg, "engine 4 does not run"));
    unsetenv("STANDIN_CUDNN_UNFIT");
    dnn_run(dnn, &b, NULL);
    assert_int_equal(dnn_plan_info(dnn, &b.problem).engine, ENGINE_SIMPLE);
    dnn_case_fini(&b);
    apd_dnn_destroy(&dnn);
}

static void engines_run_out_with_the_first_failure(void **state)
{
    struct apd_dnn *dnn = dnn_case_library(NULL, 0);
    struct test_random random = {8};
    const struct apd_dnn_plan *plan;
    struct apd_err err;
    struct dnn_case b;

    (void)state;
    dnn_case_init(&b, &dnn_shapes[1], &random);
    GOOD(apd_dnn_plan(dnn, &b.problem, &plan, &err));
    OK(cudaMalloc(&b.workspace, apd_dnn_workspace_bytes(dnn)));
    setenv("STANDIN_CUDNN_UNFIT", "2,3,4", 1);
    assert_int_equal(
        apd_dnn_run(dnn, plan, b.x.device, b.w.device, b.y.device, b.workspace, NULL, &err),
        APD_DEVICE);
    assert_non_null(strstr(err.msg, "engine 2 does not run"));
    unsetenv("STANDIN_CUDNN_UNFIT");
    assert_int_equal(
        apd_dnn_run(dnn, plan, b.x.device, b.w.device, b.y.device, b.workspace, NULL, &err),
        APD_DEVICE);
    assert_non_null(strstr(err.msg, "no engine that runs"));
    assert_string_equal(apd_dnn_replaced(dnn), "");
    dnn_case_fini(&b);
    apd_dnn_destroy(&dnn);
}

static void tf32_rounds_inputs_and_only_if_asked_for(void **state)
{
    struct test_random random = {4};
    struct apd_dnn_problem problem = dnn_shapes[5];
    struct apd_dnn *dnn = dnn_case_library(NULL, 0);
    struct dnn_case b;

    (void)state;
    problem.tf32 = 1;
    assert_int_equal(dnn_plan_info(dnn, &problem).engine, ENGINE_ROUNDED);
    dnn_case_init(&b, &problem, &random);
    dnn_reference(&b);
    dnn_run(dnn, &b, NULL);
    assert_true(dnn_worst(&b, 0) > 1);
    assert_true(dnn_worst(&b, 2 * 0x1p-11) <= 1);
    dnn_case_fini(&b);
    /* In 16 bits there is no such thing: the same plan. */
    problem.type = APD_CUDA_F16;
    assert_int_equal(dnn_plan_info(dnn, &problem).engine, ENGINE_PLAIN);
    apd_dnn_destroy(&dnn);
}

static void a_plan_is_made_once(void **state)
{
    struct apd_dnn *dnn = dnn_case_library(NULL, 0);
    const struct apd_dnn_plan *a, *b, *c;
    struct apd_dnn_problem problem = dnn_shapes[0];
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
    struct apd_dnn *dnn = dnn_case_library(NULL, 0);
    struct apd_dnn_problem wrong = dnn_shapes[0];
    const struct apd_dnn_plan *plan;
    struct test_random random = {5};
    struct apd_err err;
    struct dnn_case b;

    (void)state;
    wrong.h = 1;
    wrong.kernel = 9;
    assert_int_equal(apd_dnn_plan(dnn, &wrong, &plan, &err), APD_DEVICE);
    assert_non_null(strstr(err.msg, "forward f32 3x1x15x8 -> 24 9x9/2 pad 3"));
    assert_non_null(strstr(err.msg, "cudnnBackendFinalize(tensor): CUDNN_STATUS_BAD_PARAM: "
                                    "dimension 2 of a tensor is 0"));
    dnn_case_init(&b, &dnn_shapes[0], &random);
    GOOD(apd_dnn_plan(dnn, &dnn_shapes[0], &plan, &err));
    assert_int_equal(apd_dnn_run(dnn, plan, b.x.device, b.w.device, b.y.device, NULL, NULL, &err),
                     APD_DEVICE);
    assert_non_null(strstr(err.msg, "no workspace"));
    assert_int_equal(err.sys, CUDNN_STATUS_BAD_PARAM_NULL_POINTER);
    dnn_case_fini(&b);
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
    GOOD(apd_dnn_plan(dnn, &dnn_shapes[0], &plan, &err));
    assert_int_equal(apd_dnn_run(dnn, plan, x, x, x, x, NULL, &err), APD_BUG);
    apd_dnn_destroy(&dnn);
    options.device_json = "{}";
    assert_int_equal(apd_dnn_create(&options, &dnn, &err), APD_DEVICE);
    assert_non_null(strstr(err.msg, "deviceName"));
    assert_null(dnn);
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
        cmocka_unit_test(engines_that_are_compiled_or_slow_come_last),
        cmocka_unit_test(an_engine_that_does_not_run_is_replaced_and_told),
        cmocka_unit_test(engines_run_out_with_the_first_failure),
        cmocka_unit_test(tf32_rounds_inputs_and_only_if_asked_for),
        cmocka_unit_test(a_plan_is_made_once),
        cmocka_unit_test(what_cannot_be_planned_or_run_is_told_in_cudnn_s_words),
        cmocka_unit_test(a_device_that_is_not_there_plans_and_does_not_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
