/* The stand-in CUDA runtime: order of streams, events, late work, host functions and
 * threads. */
#include "tests/emu/scenario.h"
#include "tests/emu/standin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>

static const dim3 one = {1, 1, 1};

enum { DEPTH = 12 };

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
        cmocka_unit_test(work_that_cannot_go_on_lets_others),
        cmocka_unit_test(host_functions_and_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
