/* The stand-in CUDA runtime: when operations run. Nothing runs when it is enqueued; while the host
 * waits or asks, operations whose predecessors are done run one by one. Which one is drawn: lanes
 * have priorities, drawn anew now and then, so that a stream may be far ahead of another or far
 * behind, as long as the events between them allow. */
#include "tests/emu/standin_private.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>

namespace standin
{

enum { FEW = 4 }; /* operations that a query may run, at most */

struct Schedule {
    std::vector<OpPtr> ready;
    long unfinished = 0, executed = 0;
    uint64_t random = 0, epoch = 0;
    unsigned period = 0; /* operations between new priorities, on average */
    FILE *trace = NULL;
};

static const Work *now_running;

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static Schedule *new_schedule()
{
    static const unsigned periods[] = {2, 16, 256};
    Schedule *s = new Schedule;
    const std::string &trace = settings().trace;

    s->random = settings().seed;
    s->epoch = mix(s->random);
    s->period = periods[mix(s->epoch) % 3];
    if (trace.empty())
        return s;
    s->trace = fopen(trace.c_str(), "w");
    if (s->trace == NULL)
        die("STANDIN_TRACE=%s cannot be written", trace.c_str());
    setvbuf(s->trace, NULL, _IOLBF, 0);
    return s;
}

static Schedule &schedule()
{
    static Schedule *s = new_schedule();

    return *s;
}

uint64_t draw()
{
    return mix(schedule().random++);
}

long executed()
{
    return schedule().executed;
}

const Work *running()
{
    return now_running;
}

Work::~Work()
{
    if (destroy)
        destroy();
}

bool is_done(const OpPtr &op)
{
    return op == nullptr || op->done;
}

static void finish(const OpPtr &op);

static void make_ready(const OpPtr &op)
{
    if (op->work != nullptr)
        schedule().ready.push_back(op);
    else
        finish(op);
}

static void finish(const OpPtr &op)
{
    std::vector<OpPtr> reached{op};

    while (!reached.empty()) { /* a loop, as points may follow each other by the thousand */
        OpPtr done = reached.back();
        std::vector<OpPtr> next;

        reached.pop_back();
        done->done = true;
        done->when = schedule().executed;
        done->work = nullptr;
        schedule().unfinished--;
        next.swap(done->next);
        for (const OpPtr &n : next) {
            if (--n->waiting > 0)
                continue;
            if (n->work == nullptr)
                reached.push_back(n);
            else
                make_ready(n);
        }
    }
}

OpPtr add_op(const WorkPtr &work, const std::vector<OpPtr> &after, int lane)
{
    OpPtr op = std::make_shared<Op>();

    op->work = work;
    op->lane = lane;
    schedule().unfinished++;
    for (const OpPtr &a : after) {
        if (is_done(a))
            continue;
        a->next.push_back(op);
        op->waiting++;
    }
    if (op->waiting == 0)
        make_ready(op);
    return op;
}

static void write_trace(int lane, const char *kind, const char *name, size_t bytes)
{
    Schedule &s = schedule();

    if (s.trace != NULL)
        fprintf(s.trace,
                "{\"seq\":%ld,\"stream\":%d,\"kind\":\"%s\",\"name\":\"%s\",\"bytes\":%zu}\n",
                s.executed, lane, kind, name, bytes);
}

void note(const char *kind, const char *name, size_t bytes)
{
    write_trace(-1, kind, name, bytes);
}

/* A host function may take its time and wait for other threads, so the lock is open meanwhile. */
static int run_on_host(const Work &work)
{
    int result;

    close_memory();
    lock().unlock();
    set_within_work(true);
    result = work.attempt();
    set_within_work(false);
    lock().lock();
    return result;
}

static int run_on_device(const Work &work)
{
    int result;

    open_memory(work.device);
    now_running = &work;
    set_within_work(true);
    result = work.attempt();
    set_within_work(false);
    now_running = NULL;
    if (result != 0)
        check_redzones(work.name.c_str());
    return result;
}

/* Whether the operation is done now. After a fault nothing runs any more, but all gets done. */
static bool try_op(const OpPtr &op)
{
    Schedule &s = schedule();
    WorkPtr work = op->work;
    int result = 1;

    op->busy = true;
    if (fault() == cudaSuccess && s.executed + 1 == settings().fault)
        result = -(int)cudaErrorLaunchFailure;
    else if (fault() == cudaSuccess)
        result = work->on_host ? run_on_host(*work) : run_on_device(*work);
    op->busy = false;
    if (result == 0)
        return false;
    if (result < 0)
        set_fault((cudaError_t)-result);
    s.executed++;
    if (fault() == cudaSuccess)
        write_trace(op->lane, work->kind, work->name.c_str(), work->bytes);
    s.ready.erase(std::find(s.ready.begin(), s.ready.end(), op));
    finish(op);
    return true;
}

/* Runs one operation; false if none can run now. */
static bool step()
{
    Schedule &s = schedule();
    std::vector<OpPtr> order = s.ready;

    if (draw() % s.period == 0)
        s.epoch = draw();
    std::shuffle(order.begin(), order.end(), std::minstd_rand((unsigned)draw()));
    std::stable_sort(order.begin(), order.end(), [&](const OpPtr &a, const OpPtr &b) {
        return mix(s.epoch + (uint64_t)a->lane) < mix(s.epoch + (uint64_t)b->lane);
    });
    for (const OpPtr &op : order)
        if (!op->busy && !op->done && try_op(op))
            return true;
    return false;
}

static void give_way(int microseconds)
{
    close_memory();
    lock().unlock();
    std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
    lock().lock();
}

static void die_stuck(double seconds)
{
    std::string what;

    for (const OpPtr &op : schedule().ready)
        what += " [stream " + std::to_string(op->lane) + ": " + op->work->kind + " " +
                op->work->name + "]";
    die("the host waited %.0f s for a stream that does not go on:%s", seconds, what.c_str());
}

void drain(const OpPtr &op)
{
    auto since = std::chrono::steady_clock::now();
    int pause = 20;

    while (!is_done(op)) {
        if (step()) {
            since = std::chrono::steady_clock::now();
            pause = 20;
            continue;
        }
        std::chrono::duration<double> idle = std::chrono::steady_clock::now() - since;
        if (schedule().ready.empty())
            die("a stream waits for work that nobody will do");
        if (idle.count() > settings().timeout)
            die_stuck(idle.count());
        give_way(pause);
        pause = std::min(2 * pause, 1000);
    }
    close_memory();
}

void advance()
{
    for (uint64_t n = draw() % (FEW + 1); n > 0; n--) {
        if (!step()) {
            give_way(20);
            break;
        }
    }
    close_memory();
}

int report_operations()
{
    long left = (long)schedule().ready.size();

    if (left == 0 || fault() != cudaSuccess)
        return 0;
    fprintf(stderr,
            "standin: left at exit: operations that nobody waited for, %ld in all, first "
            "%s %s\n",
            schedule().unfinished, schedule().ready[0]->work->kind,
            schedule().ready[0]->work->name.c_str());
    return 1;
}

} // namespace standin

using namespace standin;

extern "C" {

cudaError_t standin_enqueue(cudaStream_t stream, const struct standin_work *work)
{
    struct standin_work w = *work;
    WorkPtr made = std::make_shared<Work>();

    made->kind = w.kind;
    made->name = w.name;
    made->bytes = w.bytes;
    made->attempt = [w] { return w.attempt(w.arg); };
    if (w.destroy != NULL)
        made->destroy = [w] { w.destroy(w.arg); };
    return call([&] {
        cudaStream_t s = stream_of(stream);

        if (s == NULL)
            return cudaErrorInvalidResourceHandle;
        made->device = s->device;
        return enqueue(s, made);
    });
}

void standin_note(const char *kind, const char *name, size_t bytes)
{
    std::unique_lock<std::mutex> guard(lock());

    note(kind, name, bytes);
}

long standin_operations(void)
{
    std::unique_lock<std::mutex> guard(lock());

    return executed();
}
}
