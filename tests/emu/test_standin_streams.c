/* The stand-in CUDA runtime: order of streams, events, captures, graphs, host threads. */
#include "tests/emu/scenario.h"
#include "tests/emu/standin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const dim3 one = {1, 1, 1};

enum { SEEDS = 8, DEPTH = 12 };

/* How many of the seeds end with the right result; none may end otherwise than by status. */
static int right_of_seeds(int (*scenario)(void), const char *setting)
{
    int right = 0;

    for (int seed = 1; seed <= SEEDS; seed++) {
        char text[32];
        snprintf(text, sizeof text, "STANDIN_SEED=%d", seed);
        struct ending end = RUN(scenario, text, setting);
        assert_in_range(end.status, 0, 1);
        right += end.status == 0;
    }
    return right;
}

/* ---- events ---- */

/* DEPTH times: x on stream a, then on stream b, each waiting for the other. */
static int ping_pong(void)
{
    cudaStream_t a = new_stream(), b = new_stream();
    cudaEvent_t from_a = new_event(), from_b = new_event();
    float *x = new_device(1), *y = new_device(1), expected = 0;

    set_all(x, 0, 1, a);
    set_all(y, 1, 1, a);
    for (int i = 0; i < DEPTH; i++) {
        OK(launch_affine(x, y, 1, 1, one, a)); /* x = x + 1 */
        OK(cudaEventRecord(from_a, a));
        OK(cudaStreamWaitEvent(b, from_a, 0));
        OK(launch_affine(x, y, 2, 1, one, b)); /* x = 2 x + 1 */
        OK(cudaEventRecord(from_b, b));
        OK(cudaStreamWaitEvent(a, from_b, 0));
        expected = 2 * (expected + 1) + 1;
    }
    return read_first(x, a) != expected;
}

static void events_order_streams_whatever_the_seed(void **state)
{
    (void)state;
    assert_int_equal(right_of_seeds(ping_pong, "STANDIN_STRICT=0"), SEEDS);
}

static void missing_wait_shows_for_some_seed(void **state)
{
    (void)state;
    for (int k = 1; k <= 2 * DEPTH; k++) {
        char setting[32];
        snprintf(setting, sizeof setting, "STANDIN_IGNORE_WAIT=%d", k);
        assert_in_range(right_of_seeds(ping_pong, setting), 0, SEEDS - 1);
    }
}

static int host_does_not_wait(void)
{
    cudaStream_t s = new_stream();
    float *x = new_device(1), *h = new_pinned(1);

    set_all(x, 4, 1, s);
    OK(cudaMemcpyAsync(h, x, 4, cudaMemcpyDeviceToHost, s));
    return *h != 4;
}

static int wait_for_nothing(void)
{
    OK(cudaStreamWaitEvent(new_stream(), new_event(), 0));
    return 0;
}

static void waits_that_wait_for_nothing_are_told(void **state)
{
    (void)state;
    assert_int_equal(right_of_seeds(host_does_not_wait, "STANDIN_STRICT=0"), 0);
    assert_aborted(RUN(wait_for_nothing), "stream 1 waits for an event that nobody recorded");
    assert_well(RUN(wait_for_nothing, "STANDIN_UNRECORDED=1"));
}

static int event_calls(void)
{
    cudaStream_t s = new_stream();
    cudaEvent_t a, b;
    float *x = new_device(1), ms;
    int queries = 0;

    OK(cudaEventCreate(&a));
    OK(cudaEventCreate(&b));
    OK(cudaEventQuery(a)); /* never recorded */
    OK(cudaEventRecord(a, s));
    for (int i = 0; i < 100; i++)
        OK(cudaMemsetAsync(x, 0, 4, s));
    OK(cudaEventRecord(b, s));
    EXPECT(cudaEventElapsedTime(&ms, a, b), cudaErrorNotReady);
    EXPECT(cudaEventQuery(b), cudaErrorNotReady);
    EXPECT(cudaStreamQuery(s), cudaErrorNotReady);
    while (cudaEventQuery(b) == cudaErrorNotReady) /* asking lets time pass */
        TRUE(queries++ < 1000);
    OK(cudaStreamQuery(s));
    TRUE(standin_operations() == 100);
    OK(cudaEventElapsedTime(&ms, a, b));
    TRUE(ms > 0.0999f && ms < 0.1001f);
    EXPECT(cudaEventElapsedTime(&ms, a, new_event()), cudaErrorInvalidResourceHandle);
    return 0;
}

/* The event stands for its last recording before the wait, not for later ones. */
static int event_recorded_again(void)
{
    cudaStream_t a = new_stream(), b = new_stream();
    cudaEvent_t e = new_event(), done = new_event();
    float *x = new_device(1), *y = new_device(1), got;

    set_all(x, 1, 1, a);
    OK(cudaEventRecord(e, a));
    OK(cudaStreamWaitEvent(b, e, 0));
    OK(cudaMemcpyAsync(y, x, 4, cudaMemcpyDeviceToDevice, b));
    OK(cudaEventRecord(done, b));
    OK(cudaStreamWaitEvent(a, done, 0));
    set_all(x, 2, 1, a);
    OK(cudaEventRecord(e, a));
    OK(cudaEventDestroy(e));
    got = read_first(y, b);
    return got != 1;
}

static int legacy_stream(void)
{
    cudaStream_t blocking;
    float *x = new_device(1), *y = new_device(1);

    OK(cudaStreamCreate(&blocking));
    set_all(x, 1, 1, blocking);
    OK(cudaMemcpyAsync(y, x, 4, cudaMemcpyDeviceToDevice, NULL));
    OK(cudaMemcpyAsync(x, y, 4, cudaMemcpyDeviceToDevice, blocking));
    set_all(y, 7, 1, NULL);
    return read_first(x, blocking) != 1;
}

static void events_and_streams_as_cuda_has_them(void **state)
{
    (void)state;
    assert_well(RUN(event_calls));
    assert_int_equal(right_of_seeds(event_recorded_again, "STANDIN_STRICT=0"), SEEDS);
    assert_int_equal(right_of_seeds(legacy_stream, "STANDIN_STRICT=0"), SEEDS);
}

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

/* ---- work of other stand-ins, host functions, threads ---- */

struct late {
    int attempts, runs, destroyed;
    float *at;
};

/* Every second attempt succeeds. */
static int try_late(void *arg)
{
    struct late *late = arg;

    if (++late->attempts % 2 == 1)
        return 0;
    *late->at += 1;
    late->runs++;
    return 1;
}

static void destroy_late(void *arg)
{
    ((struct late *)arg)->destroyed++;
}

static int never(void *arg)
{
    (void)arg;
    return 0;
}

static int work_that_is_late(void)
{
    float *x = new_device(1);
    struct late late = {.at = x};
    struct standin_work work = {"test", "late", 0, try_late, destroy_late, &late};
    cudaStream_t s = new_stream();
    cudaGraphExec_t exec;
    cudaGraph_t graph;

    set_all(x, 0, 1, s);
    OK(standin_enqueue(s, &work));
    TRUE(read_first(x, s) == 1 && late.attempts == 2 && late.destroyed == 1);
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    OK(standin_enqueue(s, &work));
    OK(cudaStreamEndCapture(s, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    for (int i = 0; i < 3; i++)
        OK(cudaGraphLaunch(exec, s));
    TRUE(read_first(x, s) == 4 && late.runs == 4 && late.destroyed == 1);
    OK(cudaGraphExecDestroy(exec));
    TRUE(late.destroyed == 2);
    EXPECT(standin_enqueue((cudaStream_t)&late, &work), cudaErrorInvalidResourceHandle);
    TRUE(late.destroyed == 3);
    return 0;
}

static int others_go_on(void)
{
    struct standin_work work = {"test", "never", 0, never, NULL, NULL};
    cudaStream_t stuck = new_stream(), s = new_stream();
    float *x = new_device(1);

    OK(standin_enqueue(stuck, &work));
    set_all(x, 3, 1, s);
    TRUE(read_first(x, s) == 3);
    EXPECT(cudaStreamQuery(stuck), cudaErrorNotReady);
    return 0;
}

static int stuck_for_ever(void)
{
    struct standin_work work = {"test", "never", 0, never, NULL, NULL};
    cudaStream_t s = new_stream();

    OK(standin_enqueue(s, &work));
    return cudaStreamSynchronize(s);
}

static void work_that_cannot_go_on_lets_others(void **state)
{
    (void)state;
    assert_well(RUN(work_that_is_late));
    assert_well(RUN(others_go_on));
    assert_aborted(RUN(stuck_for_ever, "STANDIN_TIMEOUT=0.1"), "[stream 1: test never]");
}

static sem_t here, there;
static cudaError_t result_within;

static void host_function(void *arg)
{
    int *count = arg;
    void *p;

    ++*count;
    result_within = cudaMalloc(&p, 4);
}

static void wait_for_there(void *arg)
{
    (void)arg;
    sem_post(&here);
    sem_wait(&there);
}

static void host_reads(void *arg)
{
    volatile float *p = arg;

    (void)*p;
}

static int host_functions(void)
{
    cudaStream_t s = new_stream();
    int count = 0;

    OK(cudaLaunchHostFunc(s, host_function, &count));
    TRUE(count == 0);
    OK(cudaStreamSynchronize(s));
    TRUE(count == 1 && result_within == cudaErrorNotPermitted);
    return 0;
}

static int host_function_touches(void)
{
    cudaStream_t s = new_stream();

    OK(cudaLaunchHostFunc(s, host_reads, new_device(1)));
    return cudaStreamSynchronize(s);
}

static void *other_thread(void *arg)
{
    cudaStream_t s = new_stream();
    float *x = new_device(1), *y = new_device(1);

    sem_wait(&here); /* the host function of the first thread runs now */
    set_all(x, 0, 1, s);
    set_all(y, 1, 1, s);
    for (int i = 0; i < 1000; i++)
        OK(launch_affine(x, y, 1, 1, one, s));
    *(float *)arg = read_first(x, s);
    sem_post(&there);
    return NULL;
}

static int threads_at_once(void)
{
    cudaStream_t s = new_stream();
    float sum = 0;
    pthread_t thread;

    TRUE(sem_init(&here, 0, 0) == 0 && sem_init(&there, 0, 0) == 0);
    TRUE(launch_affine(new_device(1), new_device(1), 1, 1, one, s) == cudaSuccess);
    TRUE(pthread_create(&thread, NULL, other_thread, &sum) == 0);
    OK(cudaLaunchHostFunc(s, wait_for_there, NULL));
    OK(cudaStreamSynchronize(s)); /* cannot end before the other thread did */
    TRUE(pthread_join(thread, NULL) == 0);
    TRUE(sum == 1000);
    return 0;
}

static void host_functions_and_threads(void **state)
{
    (void)state;
    assert_well(RUN(host_functions));
    assert_aborted(RUN(host_function_touches), "host touched device memory");
    assert_well(RUN(threads_at_once));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_order_streams_whatever_the_seed),
        cmocka_unit_test(missing_wait_shows_for_some_seed),
        cmocka_unit_test(waits_that_wait_for_nothing_are_told),
        cmocka_unit_test(events_and_streams_as_cuda_has_them),
        cmocka_unit_test(captures_refuse_what_cuda_refuses),
        cmocka_unit_test(graphs_run_branches_in_any_order),
        cmocka_unit_test(work_that_cannot_go_on_lets_others),
        cmocka_unit_test(host_functions_and_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
