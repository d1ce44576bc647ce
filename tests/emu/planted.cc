/* Kernels with one mistake each, and a sound one: what the sanitizers and the emulation must catch.
 * Usage: planted NAME, or planted names < MANGLED NAMES. test_planted.py says what has to happen.
 */
#include "kernels/cuda/reduce.cuh"

#include <cstdio>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

enum { THREADS = 64 };

/* The sum of the block's values; without the barrier the last step reads what is not there yet. */
template <bool Barrier> __global__ void k_sum(const float *x, float *out)
{
    DYN_SHARED(float, shared);
    float sum = warp_sum(x[threadIdx.x]);

    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = sum;
    if (Barrier)
        __syncthreads();
    if (threadIdx.x == THREADS - 1)
        *out = shared[0] + shared[1];
}

__global__ void k_shared_overrun(float *out)
{
    DYN_SHARED(float, shared);

    shared[threadIdx.x + 1] = 1;
    __syncthreads();
    out[threadIdx.x] = shared[threadIdx.x];
}

__global__ void k_global_overrun(const float *x, float *out)
{
    out[threadIdx.x] = x[threadIdx.x + 1];
}

__global__ void k_misaligned(const __half *x, float *out)
{
    float v[8];

    load<8>(x + 1, v);
    out[threadIdx.x] = v[0];
}

__global__ void k_divergent(float *out)
{
    if (threadIdx.x % 2 == 0)
        __syncthreads();
    else
        out[threadIdx.x] = warp_sum(out[threadIdx.x]);
}

__global__ void k_two_barriers(float *out)
{
    if (threadIdx.x % 2 == 0)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1;
}

__global__ void k_early_exit(float *out)
{
    if (threadIdx.x == 3)
        return;
    __syncthreads();
    out[threadIdx.x] = 1;
}

__global__ void k_lost_lane(float *out)
{
    if (threadIdx.x == 3)
        return;
    out[threadIdx.x] = warp_sum(1.0f);
}

__global__ void k_same_address(float *out)
{
    if (threadIdx.x == blockIdx.x)
        out[0] = float(blockIdx.x);
}

static float *device(size_t n)
{
    static std::vector<std::unique_ptr<void, decltype(&free)>> held;
    void *p = nullptr;

    if (posix_memalign(&p, 16, n * sizeof(float)) != 0)
        abort();
    held.emplace_back(p, free);
    memset(p, 0, n * sizeof(float));
    return static_cast<float *>(p);
}

/* The sums of all orders; equal bits in each if the kernel is sound. */
template <bool Barrier> static int sums(const float *x, float *out)
{
    float first = 0;
    int differ = 0;

    for (int order = 0; order < emu::ORDERS; order++) {
        emu::set_order(static_cast<emu::Order>(order));
        if (launch(k_sum<Barrier>, dim3(1), dim3(THREADS), 2 * sizeof(float), NULL, x, out) !=
            cudaSuccess)
            return 1;
        differ |= order > 0 && memcmp(&first, out, sizeof first) != 0;
        first = *out;
    }
    puts(differ ? "orders differ" : "orders agree");
    return differ || first != THREADS;
}

/* What CUDA refuses is refused here. */
static int limits(float *x)
{
    struct {
        dim3 grid, block;
        size_t shared;
    } bad[] = {{dim3(0), dim3(32), 0},
               {dim3(1), dim3(1025), 0},
               {dim3(1), dim3(64, 32), 0},
               {dim3(1), dim3(1, 1, 65), 0},
               {dim3(1, 65536), dim3(1), 0},
               {dim3(1, 1, 65536), dim3(1), 0},
               {dim3(1), dim3(1), (48 << 10) + 1},
               {dim3(1), dim3(0), 0}};

    for (auto &b : bad)
        if (launch(k_early_exit, b.grid, b.block, b.shared, NULL, x) !=
            cudaErrorInvalidConfiguration)
            return 1;
    return 0;
}

/* Whether every kernel nvcc knows has its twin here. */
static int names()
{
    std::string name;
    int missing = 0, known = 0;

    while (std::getline(std::cin, name)) {
        bool found = emu::find(name.c_str()) != nullptr;

        known += found;
        missing += !found;
        if (!found)
            printf("no kernel %s\n", name.c_str());
    }
    printf("%d kernels known\n", known);
    return missing > 0 || known == 0;
}

/* A launch as a stand-in runtime does it: by name, arguments copied, run later. */
static int by_name(float *out)
{
    emu::Packer packer = emu::find("_Z6k_flatILi2E10AddDoublesEvT0_4Span");
    std::vector<double> src(5, 2.0), dst(5, 1.0);
    struct {
        const double *src;
        double *dst;
    } op = {src.data(), dst.data()};
    Span span = {5, 0, 2};
    void *args[] = {&op, &span};
    emu::Call call;

    (void)out;
    if (packer == nullptr || emu::find("_Z9k_nothinv") != nullptr)
        return 1;
    call = packer(args);
    span.n = span.runs = 0; /* the copy counts */
    if (emu::launch(dim3(1), dim3(32), 0, call) != cudaSuccess)
        return 1;
    for (double v : dst)
        if (v != 3)
            return 1;
    return 0;
}

int main(int argc, char **argv)
{
    std::string what = argc > 1 ? argv[1] : "";
    float *x = device(THREADS), *out = device(THREADS);
    dim3 one(1), block(THREADS);

    for (int k = 0; k < THREADS; k++)
        x[k] = 1;
    if (what == "names")
        return names();
    if (what == "by_name")
        return by_name(out);
    if (what == "sound")
        return sums<true>(x, out);
    if (what == "race")
        return sums<false>(x, out);
    if (what == "limits")
        return limits(x);
    if (what == "shared_overrun")
        return launch(k_shared_overrun, one, block, THREADS * sizeof(float), NULL, out);
    if (what == "global_overrun")
        return launch(k_global_overrun, one, block, 0, NULL, x, out);
    if (what == "misaligned")
        return launch(k_misaligned, one, block, 0, NULL, reinterpret_cast<__half *>(x), out);
    if (what == "divergent")
        return launch(k_divergent, one, block, 0, NULL, out);
    if (what == "two_barriers")
        return launch(k_two_barriers, one, block, 0, NULL, out);
    if (what == "early_exit")
        return launch(k_early_exit, one, block, 0, NULL, out);
    if (what == "lost_lane")
        return launch(k_lost_lane, one, block, 0, NULL, out);
    if (what == "same_address")
        return launch(k_same_address, dim3(2), block, 0, NULL, out);
    if (what == "same_name") {
        emu::add_kernel("<&k_same", NULL);
        emu::add_kernel("<&k_same", NULL);
        return 0;
    }
    fprintf(stderr, "planted: what?\n");
    return 64;
}
