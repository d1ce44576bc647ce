/* What the parts of the stand-in CUDA runtime share. Everything below needs the lock unless said
 * otherwise; call() takes it. */
#ifndef APD_TESTS_EMU_STANDIN_PRIVATE_H
#define APD_TESTS_EMU_STANDIN_PRIVATE_H

#include "tests/emu/standin.h"

#include <cstdarg>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace standin
{

/* ---- settings, errors, devices (standin_device.cc) ---- */

/* From the environment, STANDIN_ and the name in capitals, read once. */
struct Settings {
    int devices = 1;
    int first = 0;               /* of them; STANDIN_BOUND=1: each MPI rank has others */
    size_t memory = 85520809984; /* bytes a device */
    uint64_t seed = 1;           /* of the interleaving; every MPI rank has its own */
    int major = 9, minor = 0;    /* STANDIN_CAPABILITY */
    cudaError_t driver = cudaSuccess;
    int driver_version = 13000;
    bool strict = false;     /* what is left at exit ends the process with LEFT_STATUS */
    bool unrecorded = false; /* waiting for an event that was never recorded is no mistake */
    long ignore_wait = 0;    /* this cudaStreamWaitEvent() does nothing; from 1 */
    int ignore_of = 0;       /* no wait of this stream ... */
    int ignore_for = 0;      /* ... for an event of this one does anything */
    long fault = 0;          /* this operation fails asynchronously; from 1 */
    long graph_fail = 0;  /* this cudaGraphInstantiate() of the MPI rank finds no memory; from 1 */
    double late = 0;      /* seconds that cudaHostRegister() takes on one MPI rank */
    double timeout = 120; /* seconds without any progress while the host waits */
    std::string trace;    /* file; %r: the MPI rank */
};

enum { LEFT_STATUS = 99, MAX_DEVICES = 16 };

const Settings &settings();

[[noreturn]] __attribute__((format(printf, 1, 2))) void die(const char *format, ...);

std::mutex &lock();
int current_device();

/* The asynchronous fault that every call returns once there was one. */
cudaError_t fault();
void set_fault(cudaError_t code);

/* Before the body of a call, without the lock: may this thread call at all? */
cudaError_t enter();
/* After it: keeps what cudaGetLastError() tells. */
cudaError_t leave(cudaError_t result);

template <class Body> cudaError_t call(Body body)
{
    cudaError_t result = enter();

    if (result != cudaSuccess)
        return leave(result);
    std::unique_lock<std::mutex> guard(lock());
    if (fault() == cudaSuccess)
        result = body();
    return leave(fault() != cudaSuccess ? fault() : result);
}

/* This thread is within work of a stream; calls are refused meanwhile. Without the lock. */
void set_within_work(bool within);

/* ---- memory (standin_memory.cc) ---- */

enum class Place { Pageable, Pinned, Device, Invalid };

/* Where [p, p + bytes) lies. Invalid: partly or wholly in device or pinned memory that is not
 * there. */
Place place_of(const void *p, size_t bytes);
/* Device memory can be touched only between these. device < 0: that of all devices. */
void open_memory(int device);
void close_memory();
/* Memory must be open. */
void check_redzones(const char *operation);
void free_device(void *p);
/* Writes what is left to stderr and returns how much. */
int report_memory();

/* ---- operations and their order (standin_schedule.cc) ---- */

struct Work {
    const char *kind;
    std::string name;
    size_t bytes = 0;
    int device = -1;              /* whose memory it may touch; < 0: of all */
    bool on_host = false;         /* runs without the lock and without device memory */
    std::function<int()> attempt; /* as in standin.h */
    std::function<void()> destroy;

    ~Work();
};
using WorkPtr = std::shared_ptr<Work>;

struct Op;
using OpPtr = std::shared_ptr<Op>;

/* One execution of work. No work: a point that is reached when what it waits for is done. */
struct Op {
    WorkPtr work;
    int lane; /* number of the stream, for the order and the trace */
    int waiting = 0;
    bool busy = false, done = false;
    long when = 0; /* operations executed before it was done */
    std::vector<OpPtr> next;
};

/* NULL and finished ones among `after` are ignored. */
OpPtr add_op(const WorkPtr &work, const std::vector<OpPtr> &after, int lane);
/* Until the operation is done; NULL: nothing to wait for. */
void drain(const OpPtr &op);
/* A few operations, as time passing does. */
void advance();
bool is_done(const OpPtr &op);
uint64_t draw();
long executed();
/* A line in the trace for a call that is no operation, as stream -1. */
void note(const char *kind, const char *name, size_t bytes);
int report_operations();
/* The operation that runs now, for messages; NULL: none. */
const Work *running();

/* ---- kernels (standin_launch.cc) ---- */

using Launch = std::function<cudaError_t(dim3 grid, dim3 block, size_t shared_bytes)>;
/* Copies the arguments. */
using Kernel = std::function<Launch(void **args)>;

/* Where kernels are looked up that standin_register_kernel() does not know; empty: no such. */
extern Kernel (*find_emulated)(const char *mangled);

/* ---- streams, capture (standin_stream.cc, standin_graph.cc) ---- */

struct Node {
    WorkPtr work;
    std::vector<int> after;
    int lane;
};

struct Capture {
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    cudaStream_t origin;
    unsigned long long number;
    bool broken = false, ended = false;
    std::vector<Node> nodes;
};
using CapturePtr = std::shared_ptr<Capture>;

/* Looks the handle up; NULL is the legacy stream of the current device. NULL: no such stream. */
cudaStream_t stream_of(cudaStream_t handle);
const std::vector<cudaStream_t> &streams();
/* Puts work, or a point if NULL, behind what is on the stream: runs it or captures it. */
cudaError_t enqueue(cudaStream_t stream, const WorkPtr &work);
/* The same, waiting for more. The stream must not be capturing. */
OpPtr push(cudaStream_t stream, const WorkPtr &work, std::vector<OpPtr> after);
void drain_device(int device);
int report_streams();

/* Breaks captures that a call which may hide a synchronisation would spoil. */
cudaError_t refuse_unsafe();
/* The same for work on `stream` if that is the legacy one. */
cudaError_t refuse_implicit(cudaStream_t stream);
cudaError_t spoil(const CapturePtr &capture, cudaError_t why);
cudaError_t capture_work(cudaStream_t stream, const WorkPtr &work);
cudaError_t capture_wait(cudaStream_t stream, const CapturePtr &from, const std::vector<int> &at);
int report_graphs();

} // namespace standin

struct CUstream_st {
    int number, device;
    bool legacy, blocking;
    int priority;
    bool alive = true;
    standin::OpPtr tail;
    standin::CapturePtr capture; /* NULL: none */
    std::vector<int> at;         /* nodes that the next one comes after */
};

struct CUevent_st {
    int device;
    bool timing;
    bool alive = true;
    int recorded_on = 0;         /* number of the stream */
    standin::OpPtr mark;         /* NULL: never recorded, or in a capture */
    standin::CapturePtr capture; /* of its last recording */
    std::vector<int> at;
};

#endif
