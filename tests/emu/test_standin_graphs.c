/* The stand-in CUDA runtime: captures and graphs. */
#include "tests/emu/scenario.h"
#include "tests/emu/standin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const dim3 one = {1, 1, 1};

enum { DEPTH = 12 };

/* ---- captures ---- */

static cudaStream_t captured;
static float *some_device;

static void begin(enum cudaStreamCaptureMode mode)
{
    OK(cudaStreamBeginCapture(captured, mode));
    OK(cudaMemsetAsync(some_device, 0, 4, captured));
}

static void expect_spoilt(void)
{
    enum cudaStreamCaptureStatus status;
    cudaGraph_t graph = (cudaGraph_t)&status;

    OK(cudaStreamIsCapturing(captured, &status));
    TRUE(status == cudaStreamCaptureStatusInvalidated);
    EXPECT(cudaMemsetAsync(some_device, 0, 4, captured), cudaErrorStreamCaptureInvalidated);
    EXPECT(cudaStreamEndCapture(captured, &graph), cudaErrorStreamCaptureInvalidated);
    TRUE(graph == NULL);
    OK(cudaStreamIsCapturing(captured, &status));
    TRUE(status == cudaStreamCaptureStatusNone);
}

static int forbidden_calls(void)
{
    const cudaError_t unsupported = cudaErrorStreamCaptureUnsupported;
    const enum cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal;
    float *h = new_pinned(1);
    cudaStream_t other = new_stream();
    cudaEvent_t event = new_event();
    void *p;

    captured = new_stream();
    some_device = new_device(1);
#define FORBIDDEN(call, code)                                                                      \
    begin(mode);                                                                                   \
    EXPECT(call, code);                                                                            \
    expect_spoilt()
    FORBIDDEN(cudaMalloc(&p, 1), unsupported);
    FORBIDDEN(cudaFree(some_device), unsupported);
    FORBIDDEN(cudaMallocHost(&p, 1), unsupported);
    FORBIDDEN(cudaFreeHost(h), unsupported);
    FORBIDDEN(cudaDeviceSynchronize(), unsupported);
    FORBIDDEN(cudaStreamSynchronize(captured), unsupported);
    FORBIDDEN(cudaStreamSynchronize(other), unsupported);
    FORBIDDEN(cudaStreamQuery(captured), unsupported);
    FORBIDDEN(cudaStreamDestroy(captured), unsupported);
    FORBIDDEN(cudaEventQuery(event), unsupported);
    FORBIDDEN(cudaMemcpy(h, some_device, 4, cudaMemcpyDeviceToHost), unsupported);
    FORBIDDEN(cudaMallocAsync(&p, 4, captured), cudaErrorNotSupported);
    OK(cudaEventRecord(event, other));
    FORBIDDEN(cudaStreamWaitEvent(captured, event, 0), cudaErrorStreamCaptureIsolation);
    begin(mode);
    OK(cudaEventRecord(event, captured));
    EXPECT(cudaEventSynchronize(event), cudaErrorCapturedEvent);
    expect_spoilt();
    EXPECT(cudaEventQuery(event), cudaErrorCapturedEvent);
    EXPECT(cudaStreamWaitEvent(other, event, 0), cudaErrorCapturedEvent);
    return 0;
}

static int captures_that_do_not_fit(void)
{
    cudaStream_t other = new_stream(), blocking;
    cudaEvent_t fork = new_event();
    cudaGraph_t graph;

    captured = new_stream();
    some_device = new_device(1);
    EXPECT(cudaStreamEndCapture(captured, &graph), cudaErrorIllegalState);
    EXPECT(cudaStreamBeginCapture(NULL, cudaStreamCaptureModeGlobal),
           cudaErrorStreamCaptureUnsupported);
    /* unjoined work */
    begin(cudaStreamCaptureModeGlobal);
    OK(cudaEventRecord(fork, captured));
    OK(cudaStreamWaitEvent(other, fork, 0));
    OK(cudaMemsetAsync(some_device, 1, 4, other));
    EXPECT(cudaStreamEndCapture(captured, &graph), cudaErrorStreamCaptureUnjoined);
    TRUE(graph == NULL);
    OK(cudaMemsetAsync(some_device, 1, 4, other)); /* captures no more */
    /* ended on another stream */
    begin(cudaStreamCaptureModeGlobal);
    OK(cudaEventRecord(fork, captured));
    OK(cudaStreamWaitEvent(other, fork, 0));
    EXPECT(cudaStreamEndCapture(other, &graph), cudaErrorStreamCaptureUnmatched);
    expect_spoilt();
    /* two captures that meet */
    begin(cudaStreamCaptureModeGlobal);
    OK(cudaStreamBeginCapture(other, cudaStreamCaptureModeGlobal));
    OK(cudaEventRecord(fork, captured));
    EXPECT(cudaStreamWaitEvent(other, fork, 0), cudaErrorStreamCaptureMerge);
    expect_spoilt();
    EXPECT(cudaStreamEndCapture(other, &graph), cudaErrorStreamCaptureInvalidated);
    /* the legacy stream waits for blocking ones, which cannot be captured */
    OK(cudaStreamCreate(&blocking));
    captured = blocking;
    begin(cudaStreamCaptureModeRelaxed);
    EXPECT(cudaMemsetAsync(some_device, 1, 4, NULL), cudaErrorStreamCaptureImplicit);
    expect_spoilt();
    return 0;
}

static void *end_capture(void *result)
{
    cudaGraph_t graph;

    *(cudaError_t *)result = cudaStreamEndCapture(captured, &graph);
    return NULL;
}

static void *allocate(void *result)
{
    void *p;

    *(cudaError_t *)result = cudaMalloc(&p, 4);
    return NULL;
}

static cudaError_t in_thread(void *(*body)(void *))
{
    cudaError_t result;
    pthread_t thread;

    TRUE(pthread_create(&thread, NULL, body, &result) == 0);
    TRUE(pthread_join(thread, NULL) == 0);
    return result;
}

static int captures_and_threads(void)
{
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaGraph_t graph;
    void *p;

    captured = new_stream();
    some_device = new_device(1);
    begin(cudaStreamCaptureModeThreadLocal);
    TRUE(in_thread(allocate) == cudaSuccess);
    TRUE(in_thread(end_capture) == cudaErrorStreamCaptureWrongThread);
    OK(cudaStreamEndCapture(captured, &graph));
    begin(cudaStreamCaptureModeGlobal);
    TRUE(in_thread(allocate) == cudaErrorStreamCaptureUnsupported);
    expect_spoilt();
    begin(cudaStreamCaptureModeRelaxed);
    OK(cudaMalloc(&p, 1));
    TRUE(in_thread(end_capture) == cudaSuccess);
    begin(cudaStreamCaptureModeGlobal);
    OK(cudaThreadExchangeStreamCaptureMode(&mode));
    OK(cudaMalloc(&p, 1));
    OK(cudaThreadExchangeStreamCaptureMode(&mode));
    TRUE(mode == cudaStreamCaptureModeRelaxed);
    OK(cudaStreamEndCapture(captured, &graph));
    return 0;
}

static void captures_refuse_what_cuda_refuses(void **state)
{
    (void)state;
    assert_well(RUN(forbidden_calls));
    assert_well(RUN(captures_that_do_not_fit));
    assert_well(RUN(captures_and_threads));
}

/* ---- graphs ---- */

/* x = 3 x + y on one branch, z counts on the other, and x + z in the end. */
static cudaGraphExec_t branches(float *x, float *y, float *z, cudaStream_t a, cudaStream_t b)
{
    cudaEvent_t fork = new_event(), join = new_event();
    cudaGraphExec_t exec;
    cudaGraph_t graph;
    size_t nodes;

    OK(cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal));
    OK(launch_affine(x, y, 3, 1, one, a));
    OK(cudaEventRecord(fork, a));
    OK(cudaStreamWaitEvent(b, fork, 0));
    for (int i = 0; i < DEPTH; i++) {
        OK(launch_affine(x, y, 1, 1, one, a));
        OK(launch_affine(z, y, 1, 1, one, b));
    }
    OK(cudaEventRecord(join, b));
    OK(cudaStreamWaitEvent(a, join, 0));
    OK(launch_affine(x, z, 1, 1, one, a));
    OK(cudaStreamEndCapture(a, &graph));
    OK(cudaGraphGetNodes(graph, NULL, &nodes));
    TRUE(nodes == 2 * DEPTH + 2 && standin_operations() == 0);
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    OK(cudaEventDestroy(fork));
    OK(cudaEventDestroy(join));
    return exec;
}

static int graph_twice(void)
{
    cudaStream_t a = new_stream(), b = new_stream(), other = new_stream();
    float *x = new_device(1), *y = new_device(1), *z = new_device(1), expected = 0;
    cudaGraphExec_t exec = branches(x, y, z, a, b);

    set_all(x, 0, 1, a);
    set_all(y, 1, 1, a);
    set_all(z, 0, 1, a);
    OK(cudaStreamSynchronize(a));
    OK(cudaGraphLaunch(exec, a));
    OK(cudaGraphLaunch(exec, other)); /* launches of one graph do not overlap */
    for (int i = 1; i <= 2; i++)
        expected = 3 * expected + 1 + DEPTH + (float)(i * DEPTH);
    OK(cudaGraphExecDestroy(exec));
    EXPECT(cudaGraphLaunch(exec, a), cudaErrorInvalidResourceHandle);
    TRUE(read_first(x, other) == expected);
    return 0;
}

/* Streams in the order in which the graph's operations ran, written to stderr. */
static int graph_order(void)
{
    cudaStream_t a = new_stream(), b = new_stream();
    float *x = new_device(1);
    cudaGraphExec_t exec = branches(x, x, x, a, b);
    char line[256];
    FILE *trace;

    OK(cudaGraphLaunch(exec, a));
    OK(cudaStreamSynchronize(a));
    trace = fopen(getenv("STANDIN_TRACE"), "r");
    TRUE(trace != NULL);
    for (int seq = 1; fgets(line, sizeof line, trace) != NULL;) {
        int got, stream;

        if (strstr(line, "\"kind\":\"malloc\"") != NULL)
            continue;
        TRUE(sscanf(line, "{\"seq\":%d,\"stream\":%d,\"kind\":\"kernel\",\"name\":\"k_affine\"",
                    &got, &stream) == 2);
        TRUE(got == seq++);
        fprintf(stderr, "%d", stream);
    }
    fclose(trace);
    remove(getenv("STANDIN_TRACE"));
    OK(cudaGraphExecDestroy(exec));
    return 0;
}

static int graph_changes(void)
{
    cudaStream_t s = new_stream();
    float *x = new_device(1);
    cudaGraphExecUpdateResultInfo info;
    cudaGraph_t graphs[3];
    cudaGraphExec_t exec;

    for (int i = 0; i < 3; i++) {
        OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeRelaxed));
        OK(cudaMemsetAsync(x, 0, 4, s));
        OK(cudaMemsetAsync(x, i, 1, s));
        if (i == 2)
            OK(cudaMemsetAsync(x, i, 1, s));
        OK(cudaStreamEndCapture(s, &graphs[i]));
    }
    OK(cudaGraphInstantiate(&exec, graphs[0], 0));
    OK(cudaGraphExecUpdate(exec, graphs[1], &info));
    EXPECT(cudaGraphExecUpdate(exec, graphs[2], &info), cudaErrorGraphExecUpdateFailure);
    TRUE(info.result == cudaGraphExecUpdateErrorTopologyChanged);
    OK(cudaGraphLaunch(exec, s));
    float value = read_first(x, s);
    int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits != 1;
}

/* x = 5, then the graph x = 2 x + x twice, then y = x: 45. */
static int graph_within_graph(void)
{
    cudaStream_t s = new_stream(), other = new_stream();
    float *x = new_device(1), *y = new_device(1), *five = new_device(1);
    cudaGraphExec_t inner, outer;
    cudaGraph_t graph;

    set_all(five, 5, 1, s);
    OK(cudaStreamSynchronize(s));
    OK(cudaStreamBeginCapture(other, cudaStreamCaptureModeThreadLocal));
    OK(launch_affine(x, x, 2, 1, one, other));
    OK(cudaStreamEndCapture(other, &graph));
    OK(cudaGraphInstantiate(&inner, graph, 0));
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    OK(cudaMemcpyAsync(x, five, 4, cudaMemcpyDeviceToDevice, s));
    OK(cudaGraphLaunch(inner, s));
    OK(cudaGraphLaunch(inner, s));
    OK(cudaMemcpyAsync(y, x, 4, cudaMemcpyDeviceToDevice, s));
    OK(cudaStreamEndCapture(s, &graph));
    OK(cudaGraphExecDestroy(inner));
    OK(cudaGraphInstantiate(&outer, graph, 0));
    OK(cudaGraphLaunch(outer, s));
    return read_first(y, s) != 45;
}

static void graphs_run_branches_in_any_order(void **state)
{
    char orders[SEEDS][64], path[64], seed[32];
    int different = 0;

    (void)state;
    assert_int_equal(right_of_seeds(graph_twice, "STANDIN_STRICT=0"), SEEDS);
    snprintf(path, sizeof path, "STANDIN_TRACE=/tmp/standin-trace-%d", (int)getpid());
    for (int i = 0; i < SEEDS; i++) {
        snprintf(seed, sizeof seed, "STANDIN_SEED=%d", i);
        struct ending end = RUN(graph_order, seed, path);
        assert_well(end);
        assert_true(strspn(end.text, "12") == 2 * DEPTH + 2);
        snprintf(orders[i], sizeof orders[i], "%.*s", 2 * DEPTH + 2, end.text);
        assert_true(orders[i][0] == '1' && orders[i][2 * DEPTH + 1] == '1');
        different += i > 0 && strcmp(orders[i], orders[i - 1]) != 0;
    }
    assert_in_range(different, SEEDS / 2, SEEDS - 1);
    assert_int_equal(right_of_seeds(graph_within_graph, "STANDIN_STRICT=0"), SEEDS);
    assert_well(RUN(graph_changes));
}

/* Argument of a scenario: the flags. */
static unsigned long long flags;

static int graph_of_two_priorities(void)
{
    cudaStream_t s = new_stream(), urgent;
    cudaEvent_t fork = new_event(), join = new_event();
    float *x = new_device(1);
    cudaGraphExec_t exec;
    cudaGraph_t graph;

    OK(cudaStreamCreateWithPriority(&urgent, cudaStreamNonBlocking, -5));
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    OK(cudaMemsetAsync(x, 0, 4, s));
    OK(cudaEventRecord(fork, s));
    OK(cudaStreamWaitEvent(urgent, fork, 0));
    OK(cudaMemsetAsync(x, 1, 4, urgent));
    OK(cudaEventRecord(join, urgent));
    OK(cudaStreamWaitEvent(s, join, 0));
    OK(cudaStreamEndCapture(s, &graph));
    EXPECT(cudaGraphInstantiate(&exec, graph, cudaGraphInstantiateFlagDeviceLaunch),
           cudaErrorInvalidValue);
    OK(cudaGraphInstantiate(&exec, graph, flags));
    OK(cudaGraphDestroy(graph));
    OK(cudaGraphExecDestroy(exec));
    return 0;
}

static void graphs_keep_priorities_only_if_asked_to(void **state)
{
    (void)state;
    flags = cudaGraphInstantiateFlagUseNodePriority;
    assert_well(RUN(graph_of_two_priorities));
    flags = 0;
    assert_aborted(RUN(graph_of_two_priorities), "streams with different priorities");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(captures_refuse_what_cuda_refuses),
        cmocka_unit_test(graphs_run_branches_in_any_order),
        cmocka_unit_test(graphs_keep_priorities_only_if_asked_to),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
