/* The stand-in CUDA runtime: memory, copies, devices, kernels, errors, what is left at exit. */
#include "tests/emu/scenario.h"
#include "tests/emu/standin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const dim3 one = {1, 1, 1};

/* ---- device memory ---- */

static int host_reads_device(void)
{
    volatile float *p = new_device(8);

    return p[3] == 1;
}

static int host_reads_freed(void)
{
    volatile float *p = new_device(8);

    OK(cudaFree((void *)p));
    return p[0] == 1;
}

static void host_that_touches_device_memory_is_told_which(void **state)
{
    (void)state;
    assert_aborted(RUN(host_reads_device), "host touched device memory at");
    assert_aborted(RUN(host_reads_device),
                   "byte 12 of allocation 0, allocated as 32 bytes on device 0 by");
    assert_aborted(RUN(host_reads_freed), "byte 0 of allocation 0, freed");
}

static int kernel_uses_freed(void)
{
    float *src = new_device(4), *dst = new_device(4);
    cudaStream_t stream = new_stream();

    OK(cudaFree(src));
    OK(launch_affine(dst, src, 1, 4, one, stream));
    return cudaStreamSynchronize(stream);
}

static int kernel_writes_past(void)
{
    float *src = new_device(8), *dst = new_device(4);
    cudaStream_t stream = new_stream();

    OK(launch_affine(dst, src, 1, 5, one, stream));
    return cudaStreamSynchronize(stream);
}

static int kernel_writes_far_past(void)
{
    float *src = new_device(4096), *dst = new_device(4);
    cudaStream_t stream = new_stream();

    OK(launch_affine(dst, src, 1, 4096, one, stream));
    return cudaStreamSynchronize(stream);
}

static void kernel_that_leaves_its_memory_is_named(void **state)
{
    (void)state;
    assert_aborted(RUN(kernel_uses_freed), "operation kernel k_affine touched device memory");
    assert_aborted(RUN(kernel_writes_past), "k_affine wrote past device memory: byte 16");
    assert_aborted(RUN(kernel_writes_far_past), "operation kernel k_affine touched device memory");
}

static int new_memory_is_nan(void)
{
    cudaStream_t stream = new_stream();

    TRUE(isnan(read_first(new_device(4), stream)));
    TRUE(isnan(new_pinned(4)[0]));
    return 0;
}

static int memory_ends(void)
{
    size_t free_bytes, total;
    void *a, *b;

    EXPECT(cudaMalloc(&a, 1001), cudaErrorMemoryAllocation);
    OK(cudaMalloc(&a, 600));
    EXPECT(cudaMalloc(&b, 600), cudaErrorMemoryAllocation);
    TRUE(b == NULL);
    OK(cudaMemGetInfo(&free_bytes, &total));
    TRUE(free_bytes == 400 && total == 1000);
    OK(cudaFree(a));
    EXPECT(cudaFree(a), cudaErrorInvalidValue);
    OK(cudaMalloc(&b, 1000));
    OK(cudaFree(b));
    OK(cudaFree(NULL));
    return 0;
}

static int memory_in_stream_order(void)
{
    cudaStream_t s = new_stream();
    size_t before, after, total;
    void *p;

    OK(cudaMemGetInfo(&before, &total));
    OK(cudaMallocAsync(&p, 4, s));
    OK(cudaMemsetAsync(p, 0, 4, s));
    OK(cudaFreeAsync(p, s));
    OK(cudaMemGetInfo(&after, &total));
    TRUE(after == before - 4); /* the stream has not come to it */
    OK(cudaStreamSynchronize(s));
    OK(cudaMemGetInfo(&after, &total));
    TRUE(after == before);
    EXPECT(cudaMemsetAsync(p, 0, 4, s), cudaErrorInvalidValue);
    return 0;
}

static int pointers(void)
{
    struct cudaPointerAttributes a;
    float *d = new_device(4), *h = new_pinned(4), plain;

    OK(cudaPointerGetAttributes(&a, d + 3));
    TRUE(a.type == cudaMemoryTypeDevice && a.device == 0 && a.devicePointer == d + 3);
    TRUE(standin_is_device_memory(d + 3, 4) && !standin_is_device_memory(d + 3, 5));
    OK(cudaPointerGetAttributes(&a, h));
    TRUE(a.type == cudaMemoryTypeHost && a.hostPointer == h);
    OK(cudaPointerGetAttributes(&a, &plain));
    TRUE(a.type == cudaMemoryTypeUnregistered && !standin_is_device_memory(&plain, 4));
    EXPECT(cudaPointerGetAttributes(&a, d + 4), cudaErrorInvalidValue);
    return 0;
}

static void memory_is_poisoned_and_ends(void **state)
{
    (void)state;
    assert_well(RUN(new_memory_is_nan));
    assert_well(RUN(memory_ends, "STANDIN_MEMORY=1000"));
    assert_well(RUN(memory_in_stream_order));
    assert_well(RUN(pointers));
}

/* ---- copies ---- */

static int wrong_copies(void)
{
    float *d = new_device(4), *h = new_pinned(4), *gone = new_device(4), plain[4] = {0};
    cudaStream_t s = new_stream();

    OK(cudaFree(gone));
    EXPECT(cudaMemcpyAsync(d, h, 16, cudaMemcpyDeviceToHost, s), cudaErrorInvalidValue);
    EXPECT(cudaMemcpyAsync(h, d, 16, cudaMemcpyHostToDevice, s), cudaErrorInvalidValue);
    EXPECT(cudaMemcpyAsync(d, h, 16, cudaMemcpyDeviceToDevice, s), cudaErrorInvalidValue);
    EXPECT(cudaMemcpyAsync(d, d, 16, cudaMemcpyHostToDevice, s), cudaErrorInvalidValue);
    EXPECT(cudaMemcpyAsync(plain, d, 16, cudaMemcpyHostToHost, s), cudaErrorInvalidValue);
    EXPECT(cudaMemcpyAsync(d, h, 17, cudaMemcpyHostToDevice, s), cudaErrorInvalidValue);
    EXPECT(cudaMemcpyAsync(d + 1, h, 16, cudaMemcpyHostToDevice, s), cudaErrorInvalidValue);
    EXPECT(cudaMemcpyAsync(gone, h, 16, cudaMemcpyHostToDevice, s), cudaErrorInvalidValue);
    EXPECT(cudaMemcpy(d, h, 16, (enum cudaMemcpyKind)7), cudaErrorInvalidMemcpyDirection);
    EXPECT(cudaMemsetAsync(h, 0, 16, s), cudaErrorInvalidValue);
    EXPECT(cudaMemsetAsync(d, 0, 17, s), cudaErrorInvalidValue);
    OK(cudaMemcpyAsync(d, h, 16, cudaMemcpyDefault, s));
    TRUE(standin_operations() == 0);
    return 0;
}

static int sources_change_later(void)
{
    float *d = new_device(1), *h = new_pinned(1), plain = 1;
    cudaStream_t s = new_stream();

    *h = 1;
    OK(cudaMemcpyAsync(d, h, 4, cudaMemcpyHostToDevice, s));
    *h = 2;
    TRUE(read_first(d, s) == 2); /* pinned: read when the stream came to it */
    OK(cudaMemcpyAsync(d, &plain, 4, cudaMemcpyHostToDevice, s));
    plain = 2;
    TRUE(read_first(d, s) == 1); /* pageable: read at the call */
    OK(cudaMemcpyAsync(h, d, 4, cudaMemcpyDeviceToHost, s));
    TRUE(*h == 2); /* not yet there */
    OK(cudaStreamSynchronize(s));
    TRUE(*h == 1);
    OK(cudaHostRegister(&plain, sizeof plain, cudaHostRegisterDefault));
    OK(cudaMemcpyAsync(d, &plain, 4, cudaMemcpyHostToDevice, s));
    plain = 5;
    TRUE(read_first(d, s) == 5);
    OK(cudaHostUnregister(&plain));
    EXPECT(cudaHostUnregister(&plain), cudaErrorHostMemoryNotRegistered);
    return 0;
}

static int copies_of_rows(void)
{
    unsigned char *d, rows[12] = "abcdefghijkl", back[8] = {0};
    cudaStream_t s = new_stream();

    OK(cudaMalloc((void **)&d, 16));
    OK(cudaMemset2DAsync(d, 4, '-', 3, 4, s));
    OK(cudaMemcpy2DAsync(d + 1, 8, rows, 6, 2, 2, cudaMemcpyHostToDevice, s));
    EXPECT(cudaMemcpy2DAsync(d, 2, rows, 6, 3, 2, cudaMemcpyHostToDevice, s),
           cudaErrorInvalidValue);
    OK(cudaMemcpy2DAsync(back, 4, d, 8, 4, 2, cudaMemcpyDeviceToHost, s));
    TRUE(memcmp(back, "-ab\xff-gh\xff", 8) == 0);
    OK(cudaMemset(d, 'x', 16));
    OK(cudaMemcpy(back, d + 8, 8, cudaMemcpyDeviceToHost));
    TRUE(memcmp(back, "xxxxxxxx", 8) == 0);
    return 0;
}

/* Two of a page exclude each other, whichever comes first. */
static int registered_pages(void)
{
    char *pages = aligned_alloc(4096, 3 * 4096);

    TRUE(pages != NULL);
    OK(cudaHostRegister(pages + 4096, 100, cudaHostRegisterDefault));
    EXPECT(cudaHostRegister(pages + 4096 + 200, 100, cudaHostRegisterDefault),
           cudaErrorHostMemoryAlreadyRegistered);
    EXPECT(cudaHostRegister(pages + 4000, 100, cudaHostRegisterDefault),
           cudaErrorHostMemoryAlreadyRegistered);
    OK(cudaHostRegister(pages, 4096, cudaHostRegisterDefault));
    OK(cudaHostRegister(pages + 8192, 1, cudaHostRegisterDefault));
    for (int i = 0; i < 3; i++)
        OK(cudaHostUnregister(pages + (size_t)i * 4096));
    free(pages);
    return 0;
}

/* The legacy stream orders only what blocks it. */
static int copy_that_no_stream_waits_for(void)
{
    float *d = new_device(1), plain = 1;
    cudaStream_t s = new_stream();

    set_all(d, 0, 1, s);
    OK(cudaStreamSynchronize(s));
    OK(cudaMemcpy(d, &plain, 4, cudaMemcpyHostToDevice));
    return read_first(d, s) != 1;
}

static void copies_are_checked_and_late(void **state)
{
    (void)state;
    assert_well(RUN(wrong_copies));
    assert_well(RUN(sources_change_later));
    assert_well(RUN(copies_of_rows));
    assert_well(RUN(registered_pages));
    assert_in_range(right_of_seeds(copy_that_no_stream_waits_for, "STANDIN_STRICT=0"), 0,
                    SEEDS - 1);
}

/* ---- kernels ---- */

static int kernel_runs(void)
{
    float *a = new_device(4), *b = new_device(4);
    cudaStream_t s = new_stream();

    set_all(a, 2, 4, s);
    set_all(b, 3, 4, s);
    OK(launch_affine(a, b, 10, 4, (dim3){32, 1, 1}, s)); /* its arguments are gone when it runs */
    TRUE(read_first(a, s) == 23);
    return 0;
}

static int launches_beyond_limits(void)
{
    float *a = new_device(1);
    cudaStream_t s = new_stream();
    static const dim3 grids[] = {{0, 1, 1}, {1, 65536, 1}, {1, 1, 65536}, {2147483648u, 1, 1}};
    static const dim3 blocks[] = {{0, 1, 1}, {1025, 1, 1}, {32, 33, 1}, {1, 1, 65}};

    for (int i = 0; i < 4; i++) {
        EXPECT(launch_affine_grid(a, a, 1, 1, grids[i], one, 0, s), cudaErrorInvalidConfiguration);
        EXPECT(launch_affine_grid(a, a, 1, 1, one, blocks[i], 0, s), cudaErrorInvalidConfiguration);
    }
    OK(launch_affine_grid(a, a, 1, 1, one, one, 49152, s));
    EXPECT(launch_affine_grid(a, a, 1, 1, one, one, 49153, s), cudaErrorInvalidValue);
    return 0;
}

static int unknown_kernel(void)
{
    return launch_unknown(new_stream());
}

static int old_gpu(void)
{
    float *a = new_device(1);
    struct cudaDeviceProp prop;

    OK(cudaGetDeviceProperties(&prop, 0));
    TRUE(prop.major == 7 && prop.minor == 0);
    EXPECT(launch_affine(a, a, 1, 1, one, new_stream()), cudaErrorNoKernelImageForDevice);
    return 0;
}

static void kernels_run_within_limits(void **state)
{
    (void)state;
    assert_well(RUN(kernel_runs));
    assert_well(RUN(launches_beyond_limits));
    assert_aborted(RUN(unknown_kernel), "there is no CPU version of kernel k_unknown");
    assert_well(RUN(old_gpu, "STANDIN_CAPABILITY=7.0"));
}

/* ---- devices ---- */

static int no_driver(void)
{
    cudaError_t expected = (cudaError_t)atoi(getenv("EXPECTED"));
    int count = 7, version;
    void *p;

    EXPECT(cudaGetDeviceCount(&count), expected);
    TRUE(count == 7);
    EXPECT(cudaMalloc(&p, 1), expected);
    EXPECT(cudaGetLastError(), expected);
    OK(cudaGetLastError());
    OK(cudaRuntimeGetVersion(&version));
    TRUE(version == 13000);
    OK(cudaDriverGetVersion(&version));
    TRUE(version == atoi(getenv("VERSION")));
    return 0;
}

static int two_devices(void)
{
    float *a = new_device(1), *b;
    cudaStream_t s = new_stream();
    cudaEvent_t e = new_event();
    int count, peer;
    char bus[16];

    OK(cudaGetDeviceCount(&count));
    OK(cudaDeviceCanAccessPeer(&peer, 0, 1));
    OK(cudaDeviceGetPCIBusId(bus, sizeof bus, 1));
    TRUE(count == 2 && peer == 1 && strcmp(bus, "0000:19:00.0") == 0);
    EXPECT(cudaSetDevice(2), cudaErrorInvalidDevice);
    OK(cudaSetDevice(1));
    b = new_device(1);
    EXPECT(launch_affine(b, b, 1, 1, one, s), cudaErrorInvalidResourceHandle);
    EXPECT(cudaEventRecord(e, new_stream()), cudaErrorInvalidResourceHandle);
    OK(cudaEventRecord(e, s));
    OK(cudaStreamWaitEvent(new_stream(), e, 0));
    set_all(b, 3, 1, new_stream());
    OK(cudaDeviceSynchronize());
    OK(cudaMemcpyAsync(a, b, 4, cudaMemcpyDeviceToDevice, s));
    TRUE(read_first(a, s) == 3);
    return 0;
}

static int kernel_uses_other_device(void)
{
    float *a = new_device(1);
    cudaStream_t s;

    OK(cudaSetDevice(1));
    s = new_stream();
    OK(launch_affine(a, a, 1, 1, one, s));
    return cudaStreamSynchronize(s);
}

static void devices_are_as_the_environment_says(void **state)
{
    (void)state;
    assert_well(RUN(no_driver, "STANDIN_DRIVER=none", "EXPECTED=100", "VERSION=13000"));
    assert_well(RUN(no_driver, "STANDIN_DRIVER=old", "EXPECTED=35", "VERSION=12040"));
    assert_well(RUN(no_driver, "STANDIN_DRIVER=missing", "EXPECTED=35", "VERSION=0"));
    assert_well(RUN(two_devices, "STANDIN_DEVICES=2"));
    assert_aborted(RUN(kernel_uses_other_device, "STANDIN_DEVICES=2"), "on device 0 by");
}

/* ---- errors ---- */

static int errors_are_kept(void)
{
    EXPECT(cudaStreamSynchronize((cudaStream_t)&one), cudaErrorInvalidResourceHandle);
    EXPECT(cudaPeekAtLastError(), cudaErrorInvalidResourceHandle);
    OK(cudaDeviceSynchronize());
    EXPECT(cudaGetLastError(), cudaErrorInvalidResourceHandle);
    OK(cudaGetLastError());
    TRUE(strcmp(cudaGetErrorName(cudaErrorMemoryAllocation), "cudaErrorMemoryAllocation") == 0);
    TRUE(strcmp(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory") == 0);
    return 0;
}

static int fail_with_ecc(void *arg)
{
    (void)arg;
    return -(int)cudaErrorECCUncorrectable;
}

static int fault_stays(void)
{
    struct standin_work work = {"test", "ecc", 0, fail_with_ecc, NULL, NULL};
    cudaStream_t s = new_stream();
    float *d = new_device(1);
    void *p;

    OK(standin_enqueue(s, &work));
    OK(cudaMemsetAsync(d, 0, 4, s)); /* not known yet */
    EXPECT(cudaStreamSynchronize(s), cudaErrorECCUncorrectable);
    EXPECT(cudaGetLastError(), cudaErrorECCUncorrectable);
    EXPECT(cudaGetLastError(), cudaErrorECCUncorrectable);
    EXPECT(cudaMalloc(&p, 1), cudaErrorECCUncorrectable);
    EXPECT(cudaMemsetAsync(d, 0, 4, s), cudaErrorECCUncorrectable);
    EXPECT(cudaFree(d), cudaErrorECCUncorrectable);
    EXPECT(cudaStreamQuery(s), cudaErrorECCUncorrectable);
    return 0;
}

static int second_operation_fails(void)
{
    cudaStream_t s = new_stream();
    float *d = new_device(1);

    OK(cudaMemsetAsync(d, 0, 4, s));
    OK(cudaStreamSynchronize(s));
    OK(cudaMemsetAsync(d, 0, 4, s));
    EXPECT(cudaStreamSynchronize(s), cudaErrorLaunchFailure);
    return 0;
}

static void errors_are_told_once_and_faults_for_ever(void **state)
{
    (void)state;
    assert_well(RUN(errors_are_kept));
    assert_well(RUN(fault_stays));
    assert_well(RUN(second_operation_fails, "STANDIN_FAULT=2"));
}

/* ---- at exit ---- */

static int leave_nothing(void)
{
    float *d = new_device(4), *h = new_pinned(4);
    cudaStream_t s = new_stream();
    cudaEvent_t e = new_event();

    OK(cudaMemcpyAsync(h, d, 16, cudaMemcpyDeviceToHost, s));
    OK(cudaEventRecord(e, s));
    OK(cudaStreamSynchronize(s));
    OK(cudaEventDestroy(e));
    OK(cudaStreamDestroy(s));
    OK(cudaFree(d));
    OK(cudaFreeHost(h));
    EXPECT(cudaStreamDestroy(s), cudaErrorInvalidResourceHandle);
    EXPECT(cudaEventDestroy(e), cudaErrorInvalidResourceHandle);
    EXPECT(cudaFreeHost(h), cudaErrorInvalidValue);
    return 0;
}

static int leave_memory(void)
{
    new_device(10);
    return 0;
}

static int leave_pinned(void)
{
    new_pinned(10);
    return 0;
}

static int leave_event(void)
{
    new_event();
    return 0;
}

static int leave_work(void)
{
    float *d = new_device(1);

    OK(cudaMemsetAsync(d, 0, 4, new_stream()));
    return 0;
}

static void what_is_left_at_exit_is_told(void **state)
{
    static const struct {
        int (*scenario)(void);
        const char *words;
    } cases[] = {{leave_memory, "device memory, 40 bytes"},
                 {leave_pinned, "pinned memory, 40 bytes"},
                 {leave_event, "1 events"},
                 {leave_work, "operations that nobody waited for, 1 in all, first set memset"}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ending end = RUN(cases[i].scenario, "STANDIN_STRICT=1");
        assert_int_equal(end.status, 99);
        assert_non_null(strstr(end.text, cases[i].words));
        assert_well(RUN(cases[i].scenario));
    }
    struct ending end = RUN(leave_nothing, "STANDIN_STRICT=1");
    assert_well(end);
    assert_string_equal(end.text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_that_touches_device_memory_is_told_which),
        cmocka_unit_test(kernel_that_leaves_its_memory_is_named),
        cmocka_unit_test(memory_is_poisoned_and_ends),
        cmocka_unit_test(copies_are_checked_and_late),
        cmocka_unit_test(kernels_run_within_limits),
        cmocka_unit_test(devices_are_as_the_environment_says),
        cmocka_unit_test(errors_are_told_once_and_faults_for_ever),
        cmocka_unit_test(what_is_left_at_exit_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
