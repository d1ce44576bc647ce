#include "tests/emu/scenario.h"
#include "tests/emu/standin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name,
                            int threads, uint3 *tid, uint3 *bid, dim3 *block, dim3 *grid,
                            int *warp);

/* ---- processes ---- */

static int run_child(int (*scenario)(void), const char *const *settings, int out)
{
    if (dup2(out, STDERR_FILENO) < 0)
        return 1;
    for (; *settings != NULL; settings++)
        putenv((char *)*settings);
    return scenario();
}

struct ending run_scenario(int (*scenario)(void), const char *const *settings)
{
    struct ending end = {0};
    FILE *out = tmpfile();
    int status;
    pid_t pid;

    assert_non_null(out);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        exit(run_child(scenario, settings, fileno(out)));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    end.status = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
    rewind(out);
    end.text[fread(end.text, 1, sizeof end.text - 1, out)] = '\0';
    fclose(out);
    return end;
}

void assert_well(struct ending end)
{
    if (end.status != 0)
        fail_msg("ended with %d: %s", end.status, end.text);
}

void assert_aborted(struct ending end, const char *words)
{
    if (end.status != -SIGABRT || strstr(end.text, words) == NULL)
        fail_msg("ended with %d, not aborted with '%s': %s", end.status, words, end.text);
}

int right_of_seeds(int (*scenario)(void), const char *setting)
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

void expect_result(cudaError_t result, cudaError_t expected, const char *call, int line)
{
    if (result == expected)
        return;
    fprintf(stderr, "line %d: %s is %s, not %s\n", line, call, cudaGetErrorName(result),
            cudaGetErrorName(expected));
    _exit(1);
}

void expect_true(int truth, const char *what, int line)
{
    if (truth)
        return;
    fprintf(stderr, "line %d: not so: %s\n", line, what);
    _exit(1);
}

/* ---- the kernel ---- */

struct affine {
    float *dst;
    const float *src;
    float factor;
    int n;
};

static void *pack_affine(void **args)
{
    struct affine *a = malloc(sizeof *a);

    *a = (struct affine){*(float **)args[0], *(const float **)args[1], *(float *)args[2],
                         *(int *)args[3]};
    return a;
}

static cudaError_t run_affine(const void *packed, dim3 grid, dim3 block, size_t shared_bytes)
{
    const struct affine *a = packed;

    (void)grid;
    (void)block;
    (void)shared_bytes;
    for (int i = 0; i < a->n; i++)
        a->dst[i] = a->dst[i] * a->factor + a->src[i];
    return cudaSuccess;
}

static char affine_stub, unknown_stub; /* stand for the host functions of two kernels */

static void register_kernels(void)
{
    static const struct standin_kernel affine = {pack_affine, run_affine, free};
    static int registered;

    if (registered)
        return;
    registered = 1;
    __cudaRegisterFunction(NULL, &affine_stub, NULL, "k_affine", -1, NULL, NULL, NULL, NULL, NULL);
    __cudaRegisterFunction(NULL, &unknown_stub, NULL, "k_unknown", -1, NULL, NULL, NULL, NULL,
                           NULL);
    standin_register_kernel("k_affine", &affine);
}

cudaError_t launch_affine_grid(float *dst, const float *src, float factor, int n, dim3 grid,
                               dim3 block, size_t shared, cudaStream_t stream)
{
    void *args[] = {&dst, &src, &factor, &n};

    register_kernels();
    return cudaLaunchKernel(&affine_stub, grid, block, args, shared, stream);
}

cudaError_t launch_affine(float *dst, const float *src, float factor, int n, dim3 block,
                          cudaStream_t stream)
{
    return launch_affine_grid(dst, src, factor, n, (dim3){1, 1, 1}, block, 0, stream);
}

cudaError_t launch_unknown(cudaStream_t stream)
{
    register_kernels();
    return cudaLaunchKernel(&unknown_stub, (dim3){1, 1, 1}, (dim3){1, 1, 1}, NULL, 0, stream);
}

/* ---- objects ---- */

cudaStream_t new_stream(void)
{
    cudaStream_t stream;

    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

cudaEvent_t new_event(void)
{
    cudaEvent_t event;

    OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
}

float *new_device(size_t n)
{
    void *p;

    OK(cudaMalloc(&p, n * sizeof(float)));
    return p;
}

float *new_pinned(size_t n)
{
    void *p;

    OK(cudaMallocHost(&p, n * sizeof(float)));
    return p;
}

float read_first(const float *device, cudaStream_t stream)
{
    float value;

    OK(cudaMemcpyAsync(&value, device, sizeof value, cudaMemcpyDeviceToHost, stream));
    OK(cudaStreamSynchronize(stream));
    return value;
}

void set_all(float *device, float value, size_t n, cudaStream_t stream)
{
    float values[64];

    for (size_t i = 0; i < n; i++)
        values[i] = value;
    OK(cudaMemcpyAsync(device, values, n * sizeof value, cudaMemcpyHostToDevice, stream));
}
