/* The scheduler of the emulation: one fiber per thread of a block, all on the caller's thread. A
 * fiber runs until it waits at a barrier or for its warp, or has ended; then the next one runs.
 * Fibers are kept from block to block and from launch to launch.
 *
 * TSan sees each fiber as a thread. Fibers are ordered only by barriers, warp operations and the
 * ends of launches, so it reports both a missing barrier and two blocks that write one address.
 * This file itself is compiled without it. */
#include "tests/emu/cuda_emu.h"

#include <cstdio>
#include <cstdlib>
#include <cxxabi.h>
#include <map>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMU_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#ifndef __x86_64__
#error "a switch of stacks for this machine is missing"
#endif

/* Saves the callee's registers and the stack in *from, goes on where `to` was saved. */
extern "C" void emu_switch(void **from, void *to);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch, .-emu_switch
)");

namespace emu
{

namespace
{

const size_t STACK = 256 << 10, GUARD = 4096;
const unsigned MAX_THREADS = 1024, LANES = 32;
const size_t MAX_SHARED = 48 << 10; /* without cudaFuncSetAttribute */

enum State { READY, AT_BARRIER, AT_WARP, ENDED };

struct Fiber {
    void *stack_pointer;
    char *stack;
    Thread thread;
    State state;
    uint32_t mask;    /* AT_WARP: who takes part */
    const char *file; /* where it waits */
    int line;
    void *fake_stack; /* ASan */
    void *tsan;
};

/* What the lanes of a warp gave at one call. A lane may be one call ahead of another one that has
 * not yet read what it came for, never two: so two sets of slots. */
struct Warp {
    uint64_t slot[2][LANES];
    unsigned calls[LANES];
};

struct Main {
    void *stack_pointer, *fake_stack, *tsan;
    const void *stack_bottom;
    size_t stack_size;
};

std::vector<Fiber> fibers;
std::vector<Warp> warps;
Main home;
unsigned running, threads;
const Call *kernel;
std::vector<std::unique_ptr<unsigned char, decltype(&free)>> shared;
/* Their addresses stand for the order of things, to TSan: a launch begins after all that was before
 * it and ends before what follows; a block has its barriers, not those of the block before it. */
char launch_begins, launch_ends, block_marks[64], *block_mark = block_marks;
uint64_t random_state = 88172645463325252u;
int order = -1, order_now; /* -1: as the environment says */

uint64_t random_word()
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

int current_order()
{
    const char *asked = getenv("EMU_ORDER");

    if (order >= 0)
        return order;
    if (asked == nullptr || strcmp(asked, "forward") == 0)
        return FORWARD;
    return strcmp(asked, "reverse") == 0 ? REVERSE : RANDOM;
}

std::vector<unsigned> places(unsigned n)
{
    std::vector<unsigned> at(n);

    for (unsigned i = 0; i < n; i++)
        at[i] = order_now == REVERSE ? n - 1 - i : i;
    for (unsigned i = n; order_now == RANDOM && i > 1; i--)
        std::swap(at[i - 1], at[random_word() % i]);
    return at;
}

[[noreturn]] void die(unsigned who, const char *what)
{
    const Fiber &f = fibers[who];
    uint3 b = f.thread.block_index;

    fprintf(stderr, "cuda_emu: %s: block (%u,%u,%u) thread %u at %s:%d\n", what, b.x, b.y, b.z, who,
            f.file != nullptr ? f.file : "?", f.line);
    abort();
}

/* ---- switching ---- */

#ifdef EMU_TSAN
void publish(void *mark)
{
    __tsan_release(mark);
}
void observe(void *mark)
{
    __tsan_acquire(mark);
}
void tsan_switch(void *to)
{
    __tsan_switch_to_fiber(to, __tsan_switch_to_fiber_no_sync);
}
#else
void publish(void *)
{
}
void observe(void *)
{
}
void tsan_switch(void *)
{
}
#endif

void leave_stack(void **fake, const void *bottom, size_t size)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(fake, bottom, size);
#else
    (void)fake;
    (void)bottom;
    (void)size;
#endif
}

void arrive_on_stack(void *fake, const void **left_bottom, size_t *left_size)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake, left_bottom, left_size);
#else
    (void)fake;
    (void)left_bottom;
    (void)left_size;
#endif
}

void go_home()
{
    Fiber *me = &fibers[running];

    leave_stack(&me->fake_stack, home.stack_bottom, home.stack_size);
    tsan_switch(home.tsan);
    emu_switch(&me->stack_pointer, home.stack_pointer);
    arrive_on_stack(fibers[running].fake_stack, &home.stack_bottom, &home.stack_size);
}

void resume(unsigned i)
{
    running = i;
    leave_stack(&home.fake_stack, fibers[i].stack, STACK);
    tsan_switch(fibers[i].tsan);
    emu_switch(&home.stack_pointer, fibers[i].stack_pointer);
    arrive_on_stack(home.fake_stack, nullptr, nullptr);
}

/* The life of a fiber: one thread of one block after another. */
void fiber_main()
{
    arrive_on_stack(nullptr, &home.stack_bottom, &home.stack_size);
    for (;;) {
        observe(&launch_begins);
        observe(block_mark);
        (*kernel)();
        fibers[running].state = ENDED;
        publish(&launch_ends);
        go_home();
    }
}

void make_fiber(Fiber *f)
{
    void *at = mmap(nullptr, GUARD + STACK, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void **top;

    if (at == MAP_FAILED || mprotect(at, GUARD, PROT_NONE) != 0) {
        perror("cuda_emu: stack");
        abort();
    }
    f->stack = static_cast<char *>(at) + GUARD;
    top = reinterpret_cast<void **>(f->stack + STACK);
    *--top = nullptr; /* fiber_main never returns; keeps its frame aligned */
    *--top = reinterpret_cast<void *>(fiber_main);
    for (int registers = 0; registers < 6; registers++)
        *--top = nullptr;
    f->stack_pointer = top;
#ifdef EMU_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
}

/* ---- a block ---- */

/* Lanes of warp w in the given state. */
uint32_t lanes_in(unsigned w, State state)
{
    uint32_t lanes = 0;

    for (unsigned i = w * LANES; i < threads && i < (w + 1) * LANES; i++)
        lanes |= static_cast<uint32_t>(fibers[i].state == state) << (i - w * LANES);
    return lanes;
}

/* Lets a warp go on whose lanes have all come. */
bool release_warp(unsigned w)
{
    uint32_t waiting = lanes_in(w, AT_WARP), ended = lanes_in(w, ENDED), mask = 0;
    unsigned first = w * LANES;
    bool released = false;

    for (unsigned i = first; i < threads && i < first + LANES; i++) {
        if (fibers[i].state != AT_WARP)
            continue;
        mask = fibers[i].mask;
        if ((mask & ended) != 0)
            die(i, "a warp operation waits for a lane that has ended");
        if ((mask & waiting) != mask)
            continue;
        for (unsigned k = first; k < threads && k < first + LANES; k++)
            if (mask >> (k - first) & 1) {
                if (fibers[k].mask != mask || fibers[k].line != fibers[i].line)
                    die(k, "lanes of one warp are in different warp operations");
                fibers[k].state = READY;
            }
        waiting &= ~mask;
        released = true;
    }
    return released;
}

/* Lets the block go on if every thread is at the same barrier. */
bool release_barrier(unsigned live)
{
    unsigned first = threads;

    for (unsigned i = 0; i < threads; i++) {
        if (fibers[i].state != AT_BARRIER)
            continue;
        if (first == threads)
            first = i;
        if (live != threads)
            die(i, "__syncthreads after threads of the block have ended");
        if (fibers[i].line != fibers[first].line || fibers[i].file != fibers[first].file)
            die(i, "threads are at different __syncthreads");
    }
    for (unsigned i = 0; i < threads; i++)
        fibers[i].state = READY;
    return true;
}

void run_threads()
{
    unsigned live = threads;

    while (live > 0) {
        bool moved = false;
        unsigned waiting = 0;

        for (unsigned i : places(threads))
            while (fibers[i].state == READY) {
                resume(i);
                moved = true;
                live -= fibers[i].state == ENDED;
            }
        for (unsigned w = 0; w < warps.size(); w++)
            moved |= release_warp(w);
        for (unsigned i = 0; i < threads; i++)
            waiting += fibers[i].state == AT_BARRIER;
        if (live > 0 && waiting == live)
            moved |= release_barrier(live);
        for (unsigned i = 0; !moved && live > 0 && i < threads; i++)
            if (fibers[i].state != ENDED)
                die(i, "deadlock: a barrier or warp operation not all threads come to");
    }
}

void new_shared_memory(size_t bytes)
{
    void *memory = nullptr;

    if (posix_memalign(&memory, 16, bytes) != 0)
        abort();
    memset(memory, 0xee, bytes);
#ifndef EMU_TSAN /* there, freeing would look like a race with the block's threads */
    shared.clear();
#endif
    shared.emplace_back(static_cast<unsigned char *>(memory), free);
}

void run_block(uint3 at, dim3 grid, dim3 block, size_t shared_bytes)
{
    threads = block.x * block.y * block.z;
    warps.assign((threads + LANES - 1) / LANES, Warp());
    new_shared_memory(shared_bytes);
    block_mark = block_marks + (block_mark - block_marks + 1) % sizeof block_marks;
    publish(block_mark);
    for (unsigned i = 0; i < threads; i++) {
        Thread t = {make_uint3(i % block.x, i / block.x % block.y, i / (block.x * block.y)),
                    at,
                    block,
                    grid,
                    i % LANES,
                    i / LANES};

        if (fibers[i].stack == nullptr)
            make_fiber(&fibers[i]);
        fibers[i].thread = t;
        fibers[i].state = READY;
        fibers[i].file = nullptr;
    }
    run_threads();
}

/* Registers this call and waits; afterwards everyone's values of the call are in slot[result]. */
unsigned meet_warp(uint32_t mask, uint64_t value, const char *file, int line)
{
    Fiber *me = &fibers[running];
    Warp *w = &warps[me->thread.warp];
    unsigned lane = me->thread.lane, slot = w->calls[lane]++ & 1;

    me->file = file;
    me->line = line;
    if (!(mask >> lane & 1))
        die(running, "a lane is not in its own mask");
    for (unsigned i = 0; i < LANES; i++)
        if (mask >> i & 1 && me->thread.warp * LANES + i >= threads)
            die(running, "the mask names a lane that the block does not have");
    w->slot[slot][lane] = value;
    me->mask = mask;
    me->state = AT_WARP;
    publish(w);
    go_home();
    observe(w);
    return slot;
}

bool launchable(dim3 g, dim3 b, size_t shared_bytes)
{
    return g.x > 0 && g.y > 0 && g.z > 0 && b.x > 0 && b.y > 0 && b.z > 0 && g.x <= INT32_MAX &&
           g.y <= 65535 && g.z <= 65535 && b.x <= 1024 && b.y <= 1024 && b.z <= 64 &&
           static_cast<uint64_t>(b.x) * b.y * b.z <= MAX_THREADS && shared_bytes <= MAX_SHARED;
}

struct Table {
    std::map<std::string, Packer> kernels;
};

Table &table()
{
    static Table t;

    return t;
}

std::string demangled(const char *mangled)
{
    int status = 0;
    char *text = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
    std::string result = status == 0 ? text : mangled;

    free(text);
    return result;
}

/* "(void k<8, A<float> >(A<float>, int)), ..." or "k(int)" as "k<8,A<float>>" or "k": instances of
 * templates carry the type of their result, addresses of functions may be in brackets. */
std::string plain_name(std::string text)
{
    std::string result;

    if (text[0] == '(')
        text = text.substr(1);
    if (text.rfind("void ", 0) == 0)
        text = text.substr(5);
    for (char c : text.substr(0, text.find('(')))
        if (c != ' ')
            result += c;
    return result;
}

} // namespace

/* ---- what kernels call ---- */

const Thread &self()
{
    return fibers[running].thread;
}

void *shared_memory()
{
    return shared.back().get();
}

void barrier(const char *file, int line)
{
    Fiber *me = &fibers[running];

    me->file = file;
    me->line = line;
    me->state = AT_BARRIER;
    publish(block_mark);
    go_home();
    observe(block_mark);
}

uint64_t shuffle(uint32_t mask, uint64_t value, unsigned from, const char *file, int line)
{
    unsigned slot = meet_warp(mask, value, file, line);

    if (from >= LANES || !(mask >> from & 1))
        die(running, "a shuffle reads a lane outside of the mask");
    return warps[self().warp].slot[slot][from];
}

uint32_t ballot(uint32_t mask, bool vote, const char *file, int line)
{
    unsigned slot = meet_warp(mask, vote, file, line);
    uint32_t votes = 0;

    for (unsigned i = 0; i < LANES; i++)
        if (mask >> i & 1)
            votes |= static_cast<uint32_t>(warps[self().warp].slot[slot][i]) << i;
    return votes;
}

/* ---- what a runtime calls ---- */

void set_order(Order next)
{
    order = next;
}

cudaError_t launch(dim3 grid, dim3 block, size_t shared_bytes, const Call &call)
{
    if (!launchable(grid, block, shared_bytes))
        return cudaErrorInvalidConfiguration;
    fibers.resize(MAX_THREADS); /* once: fibers keep pointers into it */
    kernel = &call;
    order_now = current_order();
#ifdef EMU_TSAN
    if (home.tsan == nullptr)
        home.tsan = __tsan_get_current_fiber();
#endif
    publish(&launch_begins);
    for (unsigned z : places(grid.z))
        for (unsigned y : places(grid.y))
            for (unsigned x : places(grid.x))
                run_block(make_uint3(x, y, z), grid, block, shared_bytes);
    observe(&launch_ends);
    shared.clear();
    return cudaSuccess;
}

void add_kernel(const char *type, Packer packer)
{
    std::string text = demangled(type), name = plain_name(text.substr(text.find("<&") + 2));

    if (!table().kernels.emplace(name, packer).second) {
        fprintf(stderr, "cuda_emu: two kernels are named %s\n", name.c_str());
        abort();
    }
}

Packer find(const char *mangled)
{
    auto found = table().kernels.find(plain_name(demangled(mangled)));

    return found != table().kernels.end() ? found->second : nullptr;
}

} // namespace emu
