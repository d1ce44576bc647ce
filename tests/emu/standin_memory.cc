/* The stand-in CUDA runtime: device memory and pinned memory.
 *
 * Device memory is one range of addresses that is never used twice and that nobody may touch except
 * the operation that runs: the host, and operations that go to freed memory or past an allocation,
 * fault and are told what they touched.
 *
 *      ... | allocation, 0xff at first | redzone | rest of the page | page nobody may touch | ...
 */
#include "tests/emu/standin_private.h"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace standin
{

static const size_t ARENA = (size_t)256 << 30, PAGE = 4096, REDZONE = 256;
enum { FRESH = 0xff, FENCE = 0xa5 };

struct Allocation {
    size_t bytes;
    int device;
    long number;
    const void *by; /* address of the call */
    bool live;
};

struct Pinned {
    size_t bytes;
    bool registered; /* by cudaHostRegister(): not ours */
    const void *by;
};

struct Memory {
    char *arena;
    size_t used = 0;                 /* addresses */
    size_t in_use[MAX_DEVICES] = {}; /* bytes */
    long count = 0;
    std::map<const char *, Allocation> all; /* also freed ones */
    std::map<const char *, Pinned> pinned;
    enum { CLOSED = -2 };
    int open = CLOSED; /* -1: of all devices */
    struct sigaction before;
};

static Memory &memory();

static size_t pages(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

/* A name for an address, without allocating: the fault handler asks too. */
struct Caller {
    char text[256];

    explicit Caller(const void *by)
    {
        Dl_info info;

        if (dladdr(by, &info) == 0)
            snprintf(text, sizeof text, "%p", by);
        else if (info.dli_sname == NULL)
            snprintf(text, sizeof text, "%s+0x%zx", info.dli_fname,
                     (size_t)((const char *)by - (const char *)info.dli_fbase));
        else
            snprintf(text, sizeof text, "%s+0x%zx", info.dli_sname,
                     (size_t)((const char *)by - (const char *)info.dli_saddr));
    }
};

static void describe(const char *at, char *text, size_t size)
{
    auto i = memory().all.upper_bound(at);

    if (i == memory().all.begin()) {
        snprintf(text, size, "before the first allocation");
        return;
    }
    const Allocation &a = (--i)->second;
    snprintf(text, size, "byte %zu of allocation %ld, %s as %zu bytes on device %d by %s",
             (size_t)(at - i->first), a.number, a.live ? "allocated" : "freed, once allocated",
             a.bytes, a.device, Caller(a.by).text);
}

/* Faults outside of the arena are not ours. This ends the process, so it may do what handlers
 * otherwise must not. */
static void on_fault(int number, siginfo_t *info, void *context)
{
    Memory &m = memory();
    const char *at = (const char *)info->si_addr;
    char where[512];

    (void)context;
    if (at < m.arena || at >= m.arena + ARENA) {
        sigaction(number, &m.before, NULL); /* returns to the instruction, which faults again */
        return;
    }
    describe(at, where, sizeof where);
    if (running() == NULL)
        die("host touched device memory at %p: %s", info->si_addr, where);
    die("operation %s %s touched device memory it must not at %p: %s", running()->kind,
        running()->name.c_str(), info->si_addr, where);
}

static Memory *new_memory()
{
    Memory *m = new Memory;
    struct sigaction action = {};
    void *arena = mmap(NULL, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (arena == MAP_FAILED)
        die("no address space for device memory");
    m->arena = (char *)arena;
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &m->before);
    return m;
}

static Memory &memory()
{
    static Memory *m = new_memory();

    return *m;
}

static void protect(const char *start, const Allocation &a, int how)
{
    if (mprotect((void *)start, pages(a.bytes + REDZONE), how) != 0)
        die("mprotect of device memory failed");
}

void open_memory(int device)
{
    Memory &m = memory();

    if (settings().devices == 1)
        device = -1; /* all the same: no need to close between kernels and copies */
    if (m.open == device)
        return;
    close_memory();
    m.open = device;
    for (const auto &[start, a] : m.all)
        if (a.live && (device < 0 || a.device == device))
            protect(start, a, PROT_READ | PROT_WRITE);
}

void close_memory()
{
    Memory &m = memory();

    if (m.open == Memory::CLOSED)
        return;
    for (const auto &[start, a] : m.all)
        if (a.live && (m.open < 0 || a.device == m.open))
            protect(start, a, PROT_NONE);
    m.open = Memory::CLOSED;
}

static void check_redzone(const char *start, const Allocation &a, const char *operation)
{
    for (size_t i = 0; i < REDZONE; i++)
        if ((unsigned char)start[a.bytes + i] != FENCE)
            die("%s wrote past device memory: byte %zu of allocation %ld, allocated as %zu bytes "
                "by %s",
                operation, a.bytes + i, a.number, a.bytes, Caller(a.by).text);
}

void check_redzones(const char *operation)
{
    Memory &m = memory();

    for (const auto &[start, a] : m.all)
        if (a.live && (m.open < 0 || a.device == m.open))
            check_redzone(start, a, operation);
}

template <class Map> static auto find(Map &map, const char *p)
{
    auto i = map.upper_bound(p);

    if (i == map.begin())
        return map.end();
    --i;
    return p < i->first + i->second.bytes || p == i->first ? i : map.end();
}

Place place_of(const void *at, size_t bytes)
{
    Memory &m = memory();
    const char *p = (const char *)at;

    if (p >= m.arena && p < m.arena + ARENA) {
        auto i = find(m.all, p);
        if (i == m.all.end() || !i->second.live)
            return Place::Invalid;
        return bytes <= i->second.bytes - (size_t)(p - i->first) ? Place::Device : Place::Invalid;
    }
    auto i = find(m.pinned, p);
    if (i == m.pinned.end())
        return Place::Pageable;
    return bytes <= i->second.bytes - (size_t)(p - i->first) ? Place::Pinned : Place::Invalid;
}

static cudaError_t allocate(void **out, size_t bytes, const void *by)
{
    Memory &m = memory();
    int device = current_device();

    *out = NULL;
    if (bytes == 0)
        return cudaSuccess;
    if (bytes > settings().memory - m.in_use[device])
        return cudaErrorMemoryAllocation;
    size_t size = pages(bytes + REDZONE) + PAGE;
    if (size > ARENA - m.used)
        die("out of addresses for device memory after %ld allocations", m.count);
    char *start = m.arena + m.used;
    Allocation a = {bytes, device, m.count++, by, true};
    m.used += size;
    m.in_use[device] += bytes;
    protect(start, a, PROT_READ | PROT_WRITE);
    memset(start, FRESH, bytes);
    memset(start + bytes, FENCE, REDZONE);
    if (m.open == Memory::CLOSED || (m.open >= 0 && m.open != device))
        protect(start, a, PROT_NONE);
    m.all[start] = a;
    note("malloc", "", bytes);
    *out = start;
    return cudaSuccess;
}

void free_device(void *p)
{
    Memory &m = memory();
    Allocation &a = m.all[(const char *)p];

    protect((const char *)p, a, PROT_READ);
    check_redzone((const char *)p, a, "an operation, found at cudaFree,");
    protect((const char *)p, a, PROT_NONE);
    madvise(p, pages(a.bytes + REDZONE), MADV_DONTNEED);
    m.in_use[a.device] -= a.bytes;
    a.live = false;
}

static bool is_allocation(const void *p)
{
    auto i = memory().all.find((const char *)p);

    return i != memory().all.end() && i->second.live;
}

int report_memory()
{
    int left = 0;

    for (const auto &[start, a] : memory().all) {
        if (!a.live)
            continue;
        fprintf(stderr, "standin: left at exit: device memory, %zu bytes, allocated by %s\n",
                a.bytes, Caller(a.by).text);
        left++;
    }
    for (const auto &[start, p] : memory().pinned) {
        fprintf(stderr, "standin: left at exit: %s memory, %zu bytes, of %s\n",
                p.registered ? "registered" : "pinned", p.bytes, Caller(p.by).text);
        left++;
    }
    return left;
}

static cudaError_t pin(void **out, size_t bytes, const void *by)
{
    *out = NULL;
    if (bytes == 0)
        return cudaSuccess;
    void *p = mmap(NULL, pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    memset(p, FRESH, bytes);
    memory().pinned[(const char *)p] = {bytes, false, by};
    *out = p;
    return cudaSuccess;
}

} // namespace standin

using namespace standin;

/* Everything here may wait for the device, so that captures do not allow it. */
template <class Body> static cudaError_t unsafe_call(Body body)
{
    return call([&] {
        cudaError_t refused = refuse_unsafe();

        return refused != cudaSuccess ? refused : body();
    });
}

extern "C" {

int standin_is_device_memory(const void *p, size_t bytes)
{
    std::unique_lock<std::mutex> guard(lock());

    return place_of(p, bytes) == Place::Device;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    const void *by = __builtin_return_address(0);

    return unsafe_call([&] { return allocate(out, bytes, by); });
}

cudaError_t cudaFree(void *p)
{
    return unsafe_call([&] {
        if (p == NULL)
            return cudaSuccess;
        if (!is_allocation(p))
            return cudaErrorInvalidValue;
        drain_device(-1);
        if (fault() == cudaSuccess)
            free_device(p);
        return cudaSuccess;
    });
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    const void *by = __builtin_return_address(0);

    return unsafe_call([&] { return pin(out, bytes, by); });
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned)
{
    const void *by = __builtin_return_address(0);

    return unsafe_call([&] { return pin(out, bytes, by); });
}

cudaError_t cudaFreeHost(void *p)
{
    return unsafe_call([&] {
        auto i = memory().pinned.find((const char *)p);

        if (p == NULL)
            return cudaSuccess;
        if (i == memory().pinned.end() || i->second.registered)
            return cudaErrorInvalidValue;
        drain_device(-1);
        munmap(p, pages(i->second.bytes));
        memory().pinned.erase(i);
        return cudaSuccess;
    });
}

/* Pages are registered, each once at most. */
cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned)
{
    const void *by = __builtin_return_address(0);
    auto first_page = [](const void *at) { return (uintptr_t)at / PAGE; };
    auto past_pages = [](const void *at, size_t n) {
        return ((uintptr_t)at + n + PAGE - 1) / PAGE;
    };

    std::this_thread::sleep_for(std::chrono::duration<double>(settings().late));
    return unsafe_call([&] {
        if (p == NULL || bytes == 0 || place_of(p, 1) == Place::Device)
            return cudaErrorInvalidValue;
        for (const auto &[start, pinned] : memory().pinned)
            if (first_page(p) < past_pages(start, pinned.bytes) &&
                first_page(start) < past_pages(p, bytes))
                return cudaErrorHostMemoryAlreadyRegistered;
        memory().pinned[(const char *)p] = {bytes, true, by};
        return cudaSuccess;
    });
}

cudaError_t cudaHostUnregister(void *p)
{
    return unsafe_call([&] {
        auto i = memory().pinned.find((const char *)p);

        if (i == memory().pinned.end() || !i->second.registered)
            return cudaErrorHostMemoryNotRegistered;
        drain_device(-1);
        memory().pinned.erase(i);
        return cudaSuccess;
    });
}

cudaError_t cudaHostGetDevicePointer(void **out, void *p, unsigned)
{
    return call([&] {
        *out = p;
        return place_of(p, 1) == Place::Pinned ? cudaSuccess : cudaErrorInvalidValue;
    });
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    return call([&] {
        *total = settings().memory;
        *free_bytes = *total - memory().in_use[current_device()];
        return cudaSuccess;
    });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *out, const void *p)
{
    return call([&] {
        Place place = place_of(p, 1);

        memset(out, 0, sizeof *out);
        out->device = -2;
        out->hostPointer = (void *)p;
        if (place == Place::Invalid)
            return cudaErrorInvalidValue;
        if (place == Place::Pageable)
            return cudaSuccess;
        out->devicePointer = (void *)p;
        out->device = current_device();
        out->type = place == Place::Device ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
        if (place == Place::Device) {
            out->device = find(memory().all, (const char *)p)->second.device;
            out->hostPointer = NULL;
        }
        return cudaSuccess;
    });
}

/* Stream ordered: allocated at once, freed when the stream comes to it. */
cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t stream)
{
    const void *by = __builtin_return_address(0);

    return call([&] {
        cudaStream_t s = stream_of(stream);

        if (s == NULL)
            return cudaErrorInvalidResourceHandle;
        if (s->capture != nullptr)
            return spoil(s->capture, cudaErrorNotSupported);
        return allocate(out, bytes, by);
    });
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t stream)
{
    return call([&] {
        cudaStream_t s = stream_of(stream);
        WorkPtr work = std::make_shared<Work>();

        if (s == NULL)
            return cudaErrorInvalidResourceHandle;
        if (s->capture != nullptr)
            return spoil(s->capture, cudaErrorNotSupported);
        if (!is_allocation(p))
            return cudaErrorInvalidValue;
        work->kind = "free";
        work->attempt = [p] {
            free_device(p);
            return 1;
        };
        return enqueue(s, work);
    });
}
}
