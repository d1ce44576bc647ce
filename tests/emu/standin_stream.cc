/* The stand-in CUDA runtime: streams and events. A stream is its last operation; an event is a
 * point behind what was on the stream when it was recorded. Handles are never used twice, so one
 * that was destroyed is known as such. */
#include "tests/emu/standin_private.h"

#include <algorithm>
#include <cstdio>

namespace standin
{

struct Streams {
    std::vector<cudaStream_t> all; /* the legacy streams, one a device, come first */
    std::vector<cudaEvent_t> events;
    long waits = 0;
};

static cudaStream_t new_stream(int number, int device, bool legacy, bool blocking, int priority)
{
    cudaStream_t s = new CUstream_st;

    s->number = number;
    s->device = device;
    s->legacy = legacy;
    s->blocking = blocking;
    s->priority = priority;
    return s;
}

static Streams &state()
{
    static Streams *s;

    if (s == NULL) {
        s = new Streams;
        for (int d = 0; d < settings().devices; d++)
            s->all.push_back(new_stream(d, d, true, false, 0));
    }
    return *s;
}

const std::vector<cudaStream_t> &streams()
{
    return state().all;
}

cudaStream_t stream_of(cudaStream_t handle)
{
    const std::vector<cudaStream_t> &all = streams();

    if (handle == NULL || handle == cudaStreamLegacy)
        return all[(size_t)current_device()];
    auto i = std::find(all.begin(), all.end(), handle);
    return i == all.end() || !handle->alive ? NULL : handle;
}

static cudaEvent_t event_of(cudaEvent_t handle)
{
    const std::vector<cudaEvent_t> &all = state().events;
    auto i = std::find(all.begin(), all.end(), handle);

    return i == all.end() || !handle->alive ? NULL : handle;
}

OpPtr push(cudaStream_t stream, const WorkPtr &work, std::vector<OpPtr> after)
{
    after.push_back(stream->tail);
    if (stream->legacy) {
        for (cudaStream_t s : streams())
            if (s->blocking && s->device == stream->device)
                after.push_back(s->tail);
    } else if (stream->blocking) {
        after.push_back(streams()[(size_t)stream->device]->tail);
    }
    stream->tail = add_op(work, after, stream->number);
    return stream->tail;
}

cudaError_t enqueue(cudaStream_t stream, const WorkPtr &work)
{
    cudaError_t refused = refuse_implicit(stream);

    if (refused != cudaSuccess)
        return refused;
    if (stream->capture != nullptr)
        return capture_work(stream, work);
    push(stream, work, {});
    return cudaSuccess;
}

void drain_device(int device)
{
    for (size_t i = 0; i < streams().size(); i++) /* by index: the lock opens on the way */
        if (device < 0 || streams()[i]->device == device)
            drain(streams()[i]->tail);
}

int report_streams()
{
    auto alive = [](const auto *x) { return x->alive; };
    const Streams &s = state();
    long left = std::count_if(s.all.begin() + settings().devices, s.all.end(), alive);
    long events = std::count_if(s.events.begin(), s.events.end(), alive);

    if (left > 0)
        fprintf(stderr, "standin: left at exit: %ld streams\n", left);
    if (events > 0)
        fprintf(stderr, "standin: left at exit: %ld events\n", events);
    return (int)(left + events);
}

static cudaError_t make_stream(cudaStream_t *out, unsigned flags, int priority)
{
    if (flags > cudaStreamNonBlocking)
        return cudaErrorInvalidValue;
    *out = new_stream((int)streams().size(), current_device(), false,
                      (flags & cudaStreamNonBlocking) == 0, priority);
    state().all.push_back(*out);
    return cudaSuccess;
}

/* What every call that waits or asks is subject to. */
static cudaError_t may_wait(cudaStream_t stream)
{
    if (stream == NULL)
        return cudaErrorInvalidResourceHandle;
    if (stream->capture != nullptr)
        return spoil(stream->capture, cudaErrorStreamCaptureUnsupported);
    cudaError_t refused = refuse_implicit(stream);
    return refused != cudaSuccess ? refused : refuse_unsafe();
}

static cudaError_t may_wait(cudaEvent_t event)
{
    if (event == NULL)
        return cudaErrorInvalidResourceHandle;
    if (event->capture != nullptr)
        return event->capture->ended ? cudaErrorCapturedEvent
                                     : spoil(event->capture, cudaErrorCapturedEvent);
    return refuse_unsafe();
}

/* The legacy stream stands for all blocking ones too. */
static OpPtr end_of(cudaStream_t stream)
{
    return stream->legacy ? push(stream, nullptr, {}) : stream->tail;
}

static cudaError_t record(cudaEvent_t event, cudaStream_t stream)
{
    if (event == NULL || stream == NULL || event->device != stream->device)
        return cudaErrorInvalidResourceHandle;
    cudaError_t refused = refuse_implicit(stream);
    if (refused != cudaSuccess)
        return refused;
    if (stream->capture != nullptr && stream->capture->broken)
        return cudaErrorStreamCaptureInvalidated;
    event->recorded_on = stream->number;
    event->capture = stream->capture;
    event->at = stream->at;
    event->mark = stream->capture != nullptr ? nullptr : push(stream, nullptr, {});
    return cudaSuccess;
}

static cudaError_t wait_event(cudaStream_t stream, cudaEvent_t event)
{
    if (event == NULL || stream == NULL)
        return cudaErrorInvalidResourceHandle;
    if (++state().waits == settings().ignore_wait)
        return cudaSuccess;
    if (stream->number == settings().ignore_of && event->recorded_on == settings().ignore_for)
        return cudaSuccess;
    if (event->capture != nullptr)
        return capture_wait(stream, event->capture, event->at);
    if (event->mark == nullptr && !settings().unrecorded)
        die("stream %d waits for an event that nobody recorded", stream->number);
    if (stream->capture != nullptr)
        return spoil(stream->capture, cudaErrorStreamCaptureIsolation);
    push(stream, nullptr, {event->mark});
    return cudaSuccess;
}

} // namespace standin

using namespace standin;

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t *out)
{
    return call([&] { return make_stream(out, cudaStreamDefault, 0); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    return call([&] { return make_stream(out, flags, 0); });
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority)
{
    return call([&] { return make_stream(out, flags, std::max(-5, std::min(priority, 0))); });
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority)
{
    return call([&] {
        cudaStream_t s = stream_of(stream);

        if (s == NULL)
            return cudaErrorInvalidResourceHandle;
        *priority = s->priority;
        return cudaSuccess;
    });
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned *flags)
{
    return call([&] {
        cudaStream_t s = stream_of(stream);

        if (s == NULL)
            return cudaErrorInvalidResourceHandle;
        *flags = s->legacy || s->blocking ? cudaStreamDefault : cudaStreamNonBlocking;
        return cudaSuccess;
    });
}

/* The genuine one returns at once and work goes on; here it is done by then. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    return call([&] {
        cudaStream_t s = stream_of(stream);

        if (s == NULL || s->legacy)
            return cudaErrorInvalidResourceHandle;
        if (s->capture != nullptr)
            return spoil(s->capture, cudaErrorStreamCaptureUnsupported);
        drain(s->tail);
        s->alive = false;
        return cudaSuccess;
    });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return call([&] {
        cudaStream_t s = stream_of(stream);
        cudaError_t refused = may_wait(s);

        if (refused == cudaSuccess)
            drain(end_of(s));
        return refused;
    });
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    return call([&] {
        cudaStream_t s = stream_of(stream);
        cudaError_t refused = may_wait(s);

        if (refused != cudaSuccess)
            return refused;
        OpPtr end = end_of(s);
        advance();
        return is_done(end) ? cudaSuccess : cudaErrorNotReady;
    });
}

cudaError_t cudaDeviceSynchronize(void)
{
    return call([] {
        cudaError_t refused = refuse_unsafe();

        if (refused == cudaSuccess)
            drain_device(current_device());
        return refused;
    });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    return call([&] {
        *out = new CUevent_st;
        (*out)->device = current_device();
        (*out)->timing = (flags & cudaEventDisableTiming) == 0;
        state().events.push_back(*out);
        return cudaSuccess;
    });
}

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    return cudaEventCreateWithFlags(out, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return call([&] {
        if (event_of(event) == NULL)
            return cudaErrorInvalidResourceHandle;
        event->alive = false;
        event->mark = nullptr;
        event->capture = nullptr;
        return cudaSuccess;
    });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return call([&] { return record(event_of(event), stream_of(stream)); });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    return call([&] { return wait_event(stream_of(stream), event_of(event)); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return call([&] {
        cudaError_t refused = may_wait(event_of(event));

        if (refused == cudaSuccess)
            drain(event->mark);
        return refused;
    });
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return call([&] {
        cudaError_t refused = may_wait(event_of(event));

        if (refused != cudaSuccess)
            return refused;
        OpPtr mark = event->mark;
        advance();
        return is_done(mark) ? cudaSuccess : cudaErrorNotReady;
    });
}

/* A thousandth for every operation between. */
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    return call([&] {
        cudaEvent_t a = event_of(start), b = event_of(end);

        if (a == NULL || b == NULL || !a->timing || !b->timing || a->mark == nullptr ||
            b->mark == nullptr)
            return cudaErrorInvalidResourceHandle;
        if (!is_done(a->mark) || !is_done(b->mark))
            return cudaErrorNotReady;
        *ms = (float)(b->mark->when - a->mark->when) * 1e-3f;
        return cudaSuccess;
    });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *arg)
{
    return call([&] {
        cudaStream_t s = stream_of(stream);
        WorkPtr work = std::make_shared<Work>();

        if (s == NULL)
            return cudaErrorInvalidResourceHandle;
        work->kind = "host";
        work->on_host = true;
        work->attempt = [=] {
            function(arg);
            return 1;
        };
        return enqueue(s, work);
    });
}
}
