/* Tests of the stand-in CUDA runtime run each scenario in a process of its own: its settings come
 * from the environment, once, and many of its answers end the process. */
#ifndef APD_TESTS_EMU_SCENARIO_H
#define APD_TESTS_EMU_SCENARIO_H

#include <cuda_runtime_api.h>

#include <stddef.h>

/* How a scenario ended, and what it wrote to stderr. */
struct ending {
    int status; /* exit status, or minus the signal */
    char text[4096];
};

/* Runs scenario(); its return value is the exit status. Settings: NAME=value, NULL at the end. */
struct ending run_scenario(int (*scenario)(void), const char *const *settings);
#define RUN(scenario, ...)                                                                         \
    run_scenario(scenario, (const char *const[]){NULL, ##__VA_ARGS__, NULL} + 1)

/* In the test: the scenario ended well / by abort() with these words. */
void assert_well(struct ending end);
void assert_aborted(struct ending end, const char *words);

/* In the test: how many of the seeds of the scheduler end with status 0; none may end otherwise
 * than with 0 or 1. */
enum { SEEDS = 8 };
int right_of_seeds(int (*scenario)(void), const char *setting);

/* In a scenario: the call's result must be as expected, or the scenario ends with status 1. */
void expect_result(cudaError_t result, cudaError_t expected, const char *call, int line);
#define EXPECT(call, code) expect_result(call, code, #call, __LINE__)
#define OK(call)           EXPECT(call, cudaSuccess)
void expect_true(int truth, const char *what, int line);
#define TRUE(truth) expect_true(truth, #truth, __LINE__)

/* ---- for scenarios ---- */

cudaStream_t new_stream(void); /* non-blocking */
cudaEvent_t new_event(void);
float *new_device(size_t n);
float *new_pinned(size_t n);
/* Kernel, registered as nvcc's objects do: dst[i] = dst[i] * factor + src[i] for i < n. The
 * CPU version believes n. */
cudaError_t launch_affine(float *dst, const float *src, float factor, int n, dim3 block,
                          cudaStream_t stream);
cudaError_t launch_affine_grid(float *dst, const float *src, float factor, int n, dim3 grid,
                               dim3 block, size_t shared, cudaStream_t stream);
/* The same, without a CPU version. */
cudaError_t launch_unknown(cudaStream_t stream);
/* First element, read through `stream` and waited for. */
float read_first(const float *device, cudaStream_t stream);
void set_all(float *device, float value, size_t n, cudaStream_t stream);

#endif
