/* The stand-in CUDA runtime: kernels. nvcc's objects register the host function of each kernel
 * under its mangled name; the CPU version is found by that name. Arguments are copied at the
 * launch, limits are those of an H100. */
#include "tests/emu/standin_private.h"

#include <algorithm>
#include <cstring>
#include <map>

namespace standin
{

Kernel (*find_emulated)(const char *mangled);

enum { SHARED_DEFAULT = 49152, SHARED_MOST = 232448, OLDEST_CAPABILITY = 75 };

struct Function {
    std::string name;
    int shared_most; /* dynamic shared memory that it may have: cudaFuncSetAttribute() */
};

struct Configuration {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
};

struct Kernels {
    std::map<const void *, Function> functions; /* by host function */
    std::map<std::string, Kernel> registered;
};

static thread_local std::vector<Configuration> configurations; /* of <<<>>> */

static Kernels &state()
{
    static Kernels *k = new Kernels;

    return *k;
}

static Kernel kernel_of(const Function &f)
{
    auto known = state().registered.find(f.name);
    Kernel kernel;

    if (known != state().registered.end())
        return known->second;
    if (find_emulated != NULL)
        kernel = find_emulated(f.name.c_str());
    if (!kernel)
        die("there is no CPU version of kernel %s", f.name.c_str());
    return kernel;
}

static bool fits(dim3 grid, dim3 block)
{
    size_t threads = (size_t)block.x * block.y * block.z;

    return grid.x >= 1 && grid.x <= 2147483647 && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 &&
           grid.z <= 65535 && threads >= 1 && threads <= 1024 && block.z <= 64;
}

static cudaError_t launch(const void *host, dim3 grid, dim3 block, void **args, size_t shared,
                          cudaStream_t stream)
{
    auto f = state().functions.find(host);

    if (f == state().functions.end())
        return cudaErrorInvalidDeviceFunction;
    if (stream == NULL || stream->device != current_device())
        return cudaErrorInvalidResourceHandle;
    if (settings().major * 10 + settings().minor < OLDEST_CAPABILITY)
        return cudaErrorNoKernelImageForDevice;
    if (!fits(grid, block))
        return cudaErrorInvalidConfiguration;
    if (shared > (size_t)f->second.shared_most)
        return cudaErrorInvalidValue; /* the code that the genuine one has for it */
    Launch bound = kernel_of(f->second)(args);
    WorkPtr work = std::make_shared<Work>();
    work->kind = "kernel";
    work->name = f->second.name;
    work->device = stream->device;
    work->attempt = [=] {
        cudaError_t e = bound(grid, block, shared);
        return e == cudaSuccess ? 1 : -(int)e;
    };
    return enqueue(stream, work);
}

} // namespace standin

using namespace standin;

extern "C" {

void standin_register_kernel(const char *name, const struct standin_kernel *kernel)
{
    struct standin_kernel k = *kernel;
    std::unique_lock<std::mutex> guard(lock());

    state().registered[name] = [k](void **args) -> Launch {
        std::shared_ptr<void> packed(k.pack(args), k.release);

        return [k, packed](dim3 grid, dim3 block, size_t shared) {
            return k.run(packed.get(), grid, block, shared);
        };
    };
}

/* ---- what nvcc's objects call; declared nowhere that can be included here ---- */

void **__cudaRegisterFatBinary(void *)
{
    static void *handle;

    return &handle;
}

void __cudaRegisterFatBinaryEnd(void **)
{
}

void __cudaUnregisterFatBinary(void **)
{
}

char __cudaInitModule(void **)
{
    return 1;
}

void __cudaRegisterFunction(void **, const char *host, char *, const char *name, int, uint3 *,
                            uint3 *, dim3 *, dim3 *, int *)
{
    std::unique_lock<std::mutex> guard(lock());

    state().functions[host] = {name, SHARED_DEFAULT};
}

/* Kernels with __constant__ or __device__ variables: their CPU versions have them, the copies to
 * and from symbols are not there. */
void __cudaRegisterVar(void **, char *, char *, const char *, int, size_t, int, int)
{
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream)
{
    configurations.push_back({grid, block, shared, stream});
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream)
{
    if (configurations.empty())
        return cudaErrorInvalidConfiguration;
    const Configuration &c = configurations.back();
    *grid = c.grid;
    *block = c.block;
    *shared = c.shared;
    memcpy(stream, &c.stream, sizeof c.stream);
    configurations.pop_back();
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *host, dim3 grid, dim3 block, void **args, size_t shared,
                             cudaStream_t stream)
{
    return call([&] { return launch(host, grid, block, args, shared, stream_of(stream)); });
}

/* A kernel's handle is its host function. */
cudaError_t cudaGetKernel(cudaKernel_t *out, const void *host)
{
    return call([&] {
        if (state().functions.count(host) == 0)
            return cudaErrorInvalidDeviceFunction;
        *out = (cudaKernel_t)host;
        return cudaSuccess;
    });
}

/* Called once at a kernel's first <<<>>>, so it must not fail for want of a driver. */
cudaError_t __cudaGetKernel(cudaKernel_t *out, const void *host)
{
    *out = (cudaKernel_t)host;
    return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args,
                               size_t shared, cudaStream_t stream)
{
    return cudaLaunchKernel((const void *)kernel, grid, block, args, shared, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *host, void **args)
{
    if (config->numAttrs > 0)
        die("cudaLaunchKernelExC: launch attributes are not known here");
    return cudaLaunchKernel(host, config->gridDim, config->blockDim, args, config->dynamicSmemBytes,
                            config->stream);
}

cudaError_t cudaFuncSetAttribute(const void *host, cudaFuncAttribute attribute, int value)
{
    return call([&] {
        auto f = state().functions.find(host);

        if (f == state().functions.end())
            return cudaErrorInvalidDeviceFunction;
        if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout)
            return cudaSuccess;
        if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
            value > SHARED_MOST)
            return cudaErrorInvalidValue;
        f->second.shared_most = value;
        return cudaSuccess;
    });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *out, const void *host)
{
    return call([&] {
        auto f = state().functions.find(host);

        if (f == state().functions.end())
            return cudaErrorInvalidDeviceFunction;
        memset(out, 0, sizeof *out);
        out->maxThreadsPerBlock = 1024;
        out->numRegs = 32;
        out->maxDynamicSharedSizeBytes = f->second.shared_most;
        out->ptxVersion = out->binaryVersion = settings().major * 10 + settings().minor;
        return cudaSuccess;
    });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *out, const void *host, int threads,
                                                          size_t shared)
{
    return call([&] {
        if (state().functions.count(host) == 0)
            return cudaErrorInvalidDeviceFunction;
        if (threads < 1 || threads > 1024 || shared > SHARED_MOST)
            return cudaErrorInvalidValue;
        *out = std::min({32, 2048 / threads, (int)(233472 / (shared + 1024))});
        return cudaSuccess;
    });
}
}
