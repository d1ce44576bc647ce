/* The stand-in CUDA runtime: settings, devices as they would describe themselves, and errors: what
 * each thread's last one was and the one that stays. */
#include "tests/emu/standin_private.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace standin
{

static thread_local cudaError_t last_error;
static thread_local int thread_device;
static thread_local bool within_work;
static std::atomic<cudaError_t> the_fault{cudaSuccess};

void die(const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "standin: %s\n", text);
    fflush(NULL);
    abort();
}

static double number_of(const char *name, double fallback)
{
    const char *text = getenv(name);
    char *end;

    if (text == NULL || *text == '\0')
        return fallback;
    double value = strtod(text, &end);
    if (*end != '\0' || value < 0)
        die("%s=%s is not a number", name, text);
    return value;
}

/* Of "rank:number" the number, on that rank; otherwise 0. */
static double of_rank(const char *name, const char *rank)
{
    const char *text = getenv(name);
    double number = 0;
    int meant = 0;

    if (text == NULL)
        return 0;
    if (sscanf(text, "%d:%lf", &meant, &number) != 2)
        die("%s=%s is not like 1:2", name, text);
    return rank != NULL && atoi(rank) == meant ? number : 0;
}

static void read_driver(Settings &s)
{
    const char *driver = getenv("STANDIN_DRIVER");

    if (driver == NULL || *driver == '\0')
        return;
    if (strcmp(driver, "none") == 0) { /* a driver, no GPU */
        s.driver = cudaErrorNoDevice;
    } else if (strcmp(driver, "old") == 0) {
        s.driver = cudaErrorInsufficientDriver;
        s.driver_version = 12040;
    } else if (strcmp(driver, "missing") == 0) {
        s.driver = cudaErrorInsufficientDriver;
        s.driver_version = 0;
    } else {
        die("STANDIN_DRIVER=%s is none of none, old, missing", driver);
    }
}

static Settings read_settings()
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    const char *capability = getenv("STANDIN_CAPABILITY");
    const char *trace = getenv("STANDIN_TRACE");
    const char *waits = getenv("STANDIN_IGNORE_WAITS");
    Settings s;

    s.devices = (int)number_of("STANDIN_DEVICES", s.devices);
    if (s.devices < 1 || s.devices > MAX_DEVICES)
        die("STANDIN_DEVICES=%d is not from 1 to %d", s.devices, MAX_DEVICES);
    if (number_of("STANDIN_BOUND", 0) != 0 && rank != NULL)
        s.first = s.devices * atoi(rank);
    s.memory = (size_t)number_of("STANDIN_MEMORY", (double)s.memory);
    s.seed = (uint64_t)number_of("STANDIN_SEED", (double)s.seed) << 16;
    s.seed += rank == NULL ? 0 : strtoull(rank, NULL, 10);
    if (capability != NULL && sscanf(capability, "%d.%d", &s.major, &s.minor) != 2)
        die("STANDIN_CAPABILITY=%s is not like 9.0", capability);
    s.strict = number_of("STANDIN_STRICT", 0) != 0;
    s.unrecorded = number_of("STANDIN_UNRECORDED", 0) != 0;
    s.ignore_wait = (long)number_of("STANDIN_IGNORE_WAIT", 0);
    if (waits != NULL && sscanf(waits, "%d:%d", &s.ignore_of, &s.ignore_for) != 2)
        die("STANDIN_IGNORE_WAITS=%s is not like 1:2", waits);
    s.fault = (long)number_of("STANDIN_FAULT", 0);
    s.graph_fail = (long)of_rank("STANDIN_GRAPH_FAIL", rank);
    s.late = of_rank("STANDIN_LATE", rank);
    s.timeout = number_of("STANDIN_TIMEOUT", s.timeout);
    s.trace = trace == NULL ? "" : trace;
    if (s.trace.find("%r") != std::string::npos)
        s.trace.replace(s.trace.find("%r"), 2, rank == NULL ? "0" : rank);
    read_driver(s);
    return s;
}

const Settings &settings()
{
    static const Settings *s = new Settings(read_settings());

    return *s;
}

std::mutex &lock()
{
    static std::mutex *m = new std::mutex;

    return *m;
}

int current_device()
{
    return thread_device;
}

cudaError_t fault()
{
    return the_fault;
}

void set_fault(cudaError_t code)
{
    if (the_fault == cudaSuccess)
        the_fault = code;
}

void set_within_work(bool within)
{
    within_work = within;
}

cudaError_t enter()
{
    if (within_work)
        return cudaErrorNotPermitted;
    return settings().driver;
}

cudaError_t leave(cudaError_t result)
{
    if (result != cudaSuccess)
        last_error = result;
    return result;
}

/* What is left at exit was forgotten: memory and handles, or work that nobody waited for. */
__attribute__((destructor)) static void report_at_exit()
{
    int left = report_memory() + report_operations() + report_streams() + report_graphs();

    if (left > 0 && settings().strict) {
        fflush(NULL);
        _exit(LEFT_STATUS);
    }
}

} // namespace standin

using namespace standin;

static const struct {
    cudaError_t code;
    const char *name, *text;
} errors[] = {
#define ERROR(code, text)                                                                          \
    {                                                                                              \
        code, #code, text                                                                          \
    }
    ERROR(cudaSuccess, "no error"),
    ERROR(cudaErrorInvalidValue, "invalid argument"),
    ERROR(cudaErrorMemoryAllocation, "out of memory"),
    ERROR(cudaErrorInitializationError, "initialization error"),
    ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    ERROR(cudaErrorInsufficientDriver,
          "CUDA driver version is insufficient for CUDA runtime version"),
    ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
    ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    ERROR(cudaErrorNoKernelImageForDevice,
          "no kernel image is available for execution on the device"),
    ERROR(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
    ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    ERROR(cudaErrorNotReady, "device not ready"),
    ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    ERROR(cudaErrorHostMemoryAlreadyRegistered,
          "part or all of the requested memory range is already mapped"),
    ERROR(cudaErrorHostMemoryNotRegistered,
          "pointer does not correspond to a registered memory region"),
    ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    ERROR(cudaErrorNotPermitted, "operation not permitted"),
    ERROR(cudaErrorNotSupported, "operation not supported"),
    ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    ERROR(cudaErrorStreamCaptureInvalidated,
          "operation failed due to a previous error during capture"),
    ERROR(cudaErrorStreamCaptureMerge,
          "operation would result in a merge of separate capture sequences"),
    ERROR(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    ERROR(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    ERROR(cudaErrorStreamCaptureIsolation,
          "dependency created on uncaptured work in another stream"),
    ERROR(cudaErrorStreamCaptureImplicit,
          "operation would make the legacy stream depend on a capturing blocking stream"),
    ERROR(cudaErrorCapturedEvent,
          "operation not permitted on an event last recorded in a capturing stream"),
    ERROR(cudaErrorStreamCaptureWrongThread,
          "attempt to terminate a thread-local capture sequence from another thread"),
    ERROR(cudaErrorGraphExecUpdateFailure,
          "the graph update was not performed because it included changes which violated "
          "constraints specific to instantiated graph update"),
    ERROR(cudaErrorUnknown, "unknown error"),
#undef ERROR
};

/* Those of an H100 SXM5; -1: not known here. */
static int attribute(cudaDeviceAttr name, int device)
{
    static const struct {
        cudaDeviceAttr name;
        int value;
    } known[] = {
        {cudaDevAttrMultiProcessorCount, 132},
        {cudaDevAttrWarpSize, 32},
        {cudaDevAttrMaxThreadsPerBlock, 1024},
        {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
        {cudaDevAttrMaxBlocksPerMultiprocessor, 32},
        {cudaDevAttrMaxRegistersPerBlock, 65536},
        {cudaDevAttrMaxSharedMemoryPerBlock, 49152},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448},
        {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 233472},
        {cudaDevAttrL2CacheSize, 52428800},
        {cudaDevAttrMemoryClockRate, 2619000},
        {cudaDevAttrClockRate, 1980000},
        {cudaDevAttrGlobalMemoryBusWidth, 5120},
        {cudaDevAttrAsyncEngineCount, 3},
        {cudaDevAttrConcurrentKernels, 1},
        {cudaDevAttrUnifiedAddressing, 1},
        {cudaDevAttrCanMapHostMemory, 1},
        {cudaDevAttrHostRegisterSupported, 1},
        {cudaDevAttrStreamPrioritiesSupported, 1},
        {cudaDevAttrEccEnabled, 1},
        {cudaDevAttrMemoryPoolsSupported, 1},
        {cudaDevAttrIntegrated, 0},
        {cudaDevAttrCooperativeLaunch, 0},
        {cudaDevAttrManagedMemory, 0},
        {cudaDevAttrPciDomainId, 0},
        {cudaDevAttrPciDeviceId, 0},
    };

    if (name == cudaDevAttrComputeCapabilityMajor)
        return settings().major;
    if (name == cudaDevAttrComputeCapabilityMinor)
        return settings().minor;
    if (name == cudaDevAttrPciBusId)
        return 0x18 + settings().first + device;
    for (const auto &k : known)
        if (k.name == name)
            return k.value;
    return -1;
}

static void describe(cudaDeviceProp *p, int device)
{
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "NVIDIA H100 80GB HBM3 (stand-in)");
    memset(p->uuid.bytes, 'a' + settings().first + device, sizeof p->uuid.bytes);
    p->totalGlobalMem = settings().memory;
    p->sharedMemPerBlock = (size_t)attribute(cudaDevAttrMaxSharedMemoryPerBlock, device);
    p->sharedMemPerBlockOptin = (size_t)attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    p->sharedMemPerMultiprocessor =
        (size_t)attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
    p->reservedSharedMemPerBlock = 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxBlocksPerMultiProcessor = 32;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 65536;
    p->major = settings().major;
    p->minor = settings().minor;
    p->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount, device);
    p->canMapHostMemory = p->concurrentKernels = p->unifiedAddressing = 1;
    p->streamPrioritiesSupported = p->ECCEnabled = p->hostRegisterSupported = 1;
    p->memoryPoolsSupported = 1;
    p->asyncEngineCount = 3;
    p->pciBusID = attribute(cudaDevAttrPciBusId, device);
    p->memoryBusWidth = 5120;
    p->l2CacheSize = attribute(cudaDevAttrL2CacheSize, device);
}

static bool exists(int device)
{
    return device >= 0 && device < settings().devices;
}

extern "C" {

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = settings().driver_version;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    return call([&] {
        *count = settings().devices;
        return cudaSuccess;
    });
}

cudaError_t cudaGetDevice(int *device)
{
    return call([&] {
        *device = thread_device;
        return cudaSuccess;
    });
}

cudaError_t cudaSetDevice(int device)
{
    return call([&] {
        if (!exists(device))
            return cudaErrorInvalidDevice;
        thread_device = device;
        return cudaSuccess;
    });
}

cudaError_t cudaInitDevice(int device, unsigned, unsigned)
{
    return call([&] { return exists(device) ? cudaSuccess : cudaErrorInvalidDevice; });
}

cudaError_t cudaSetDeviceFlags(unsigned)
{
    return call([] { return cudaSuccess; });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int device)
{
    return call([&] {
        if (!exists(device))
            return cudaErrorInvalidDevice;
        describe(out, device);
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceGetAttribute(int *out, cudaDeviceAttr name, int device)
{
    return call([&] {
        if (!exists(device))
            return cudaErrorInvalidDevice;
        *out = attribute(name, device);
        if (*out < 0)
            die("cudaDeviceGetAttribute(%d) is not known here", (int)name);
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceGetPCIBusId(char *out, int size, int device)
{
    return call([&] {
        if (!exists(device))
            return cudaErrorInvalidDevice;
        int n =
            snprintf(out, (size_t)size, "0000:%02X:00.0", attribute(cudaDevAttrPciBusId, device));
        return n < size ? cudaSuccess : cudaErrorInvalidValue;
    });
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    return call([&] {
        if (!exists(device) || !exists(peer))
            return cudaErrorInvalidDevice;
        *can = device != peer;
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    return call([&] {
        *least = 0;
        *greatest = -5;
        return cudaSuccess;
    });
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = fault() != cudaSuccess ? fault() : last_error;

    last_error = cudaSuccess;
    return e;
}

cudaError_t cudaPeekAtLastError(void)
{
    return fault() != cudaSuccess ? fault() : last_error;
}

const char *cudaGetErrorName(cudaError_t code)
{
    for (const auto &e : errors)
        if (e.code == code)
            return e.name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t code)
{
    for (const auto &e : errors)
        if (e.code == code)
            return e.text;
    return "unrecognized error code";
}
}
