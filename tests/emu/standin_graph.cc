/* The stand-in CUDA runtime: capture and graphs. A capture collects nodes; what a stream does next
 * comes after the nodes it is at, and events carry these to other streams. A launch makes an
 * operation of every node, so that branches run in any order that the graph allows. */
#include "tests/emu/standin_private.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

struct CUgraph_st {
    std::vector<standin::Node> nodes;
    bool alive = true;
};

struct CUgraphExec_st {
    std::vector<standin::Node> nodes;
    standin::OpPtr last; /* of the launch before: launches do not overlap */
    bool alive = true;
};

namespace standin
{

struct Graphs {
    std::vector<CapturePtr> captures; /* that go on */
    std::vector<cudaGraph_t> graphs;
    std::vector<cudaGraphExec_t> execs;
    unsigned long long count = 0;
    long instantiated = 0;
};

static thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

static Graphs &state()
{
    static Graphs *g = new Graphs;

    return *g;
}

template <class Handle> static bool is_one_of(const std::vector<Handle> &all, Handle handle)
{
    return std::find(all.begin(), all.end(), handle) != all.end() && handle->alive;
}

cudaError_t spoil(const CapturePtr &capture, cudaError_t why)
{
    capture->broken = true;
    return why;
}

cudaError_t refuse_unsafe()
{
    cudaError_t result = cudaSuccess;

    if (thread_mode == cudaStreamCaptureModeRelaxed)
        return cudaSuccess;
    for (const CapturePtr &c : state().captures) {
        bool own = c->thread == std::this_thread::get_id();
        bool global = c->mode == cudaStreamCaptureModeGlobal;
        if (c->mode == cudaStreamCaptureModeRelaxed)
            continue;
        if (own || (global && thread_mode == cudaStreamCaptureModeGlobal))
            result = spoil(c, cudaErrorStreamCaptureUnsupported);
    }
    return result;
}

cudaError_t refuse_implicit(cudaStream_t stream)
{
    cudaError_t result = cudaSuccess;

    if (stream == NULL || !stream->legacy)
        return cudaSuccess;
    for (cudaStream_t s : streams())
        if (s->capture != nullptr && s->blocking && s->device == stream->device)
            result = spoil(s->capture, cudaErrorStreamCaptureImplicit);
    return result;
}

cudaError_t capture_work(cudaStream_t stream, const WorkPtr &work)
{
    Capture &c = *stream->capture;

    if (c.broken)
        return cudaErrorStreamCaptureInvalidated;
    c.nodes.push_back({work, stream->at, stream->number});
    stream->at = {(int)c.nodes.size() - 1};
    return cudaSuccess;
}

cudaError_t capture_wait(cudaStream_t stream, const CapturePtr &from, const std::vector<int> &at)
{
    if (stream->capture != nullptr && stream->capture != from) {
        if (!from->ended)
            spoil(from, cudaErrorStreamCaptureMerge);
        return spoil(stream->capture,
                     from->ended ? cudaErrorCapturedEvent : cudaErrorStreamCaptureMerge);
    }
    if (from->ended)
        return cudaErrorCapturedEvent;
    if (from->broken)
        return cudaErrorStreamCaptureInvalidated;
    if (stream->legacy)
        return spoil(from, cudaErrorStreamCaptureImplicit);
    stream->capture = from;
    for (int node : at)
        if (std::find(stream->at.begin(), stream->at.end(), node) == stream->at.end())
            stream->at.push_back(node);
    return cudaSuccess;
}

/* Whether the origin comes after everything that was captured. */
static bool is_joined(const Capture &c)
{
    std::vector<bool> reached(c.nodes.size());
    std::vector<int> at = c.origin->at;

    while (!at.empty()) {
        size_t node = (size_t)at.back();
        at.pop_back();
        if (reached[node])
            continue;
        reached[node] = true;
        at.insert(at.end(), c.nodes[node].after.begin(), c.nodes[node].after.end());
    }
    return std::find(reached.begin(), reached.end(), false) == reached.end();
}

static cudaError_t begin(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    if (stream == NULL)
        return cudaErrorInvalidResourceHandle;
    if ((unsigned)mode > cudaStreamCaptureModeRelaxed)
        return cudaErrorInvalidValue;
    if (stream->legacy)
        return cudaErrorStreamCaptureUnsupported;
    if (stream->capture != nullptr)
        return spoil(stream->capture, cudaErrorIllegalState);
    CapturePtr c = std::make_shared<Capture>();
    c->mode = mode;
    c->thread = std::this_thread::get_id();
    c->origin = stream;
    c->number = ++state().count;
    stream->capture = c;
    stream->at.clear();
    state().captures.push_back(c);
    return cudaSuccess;
}

static cudaError_t end(cudaStream_t stream, cudaGraph_t *out)
{
    *out = NULL;
    if (stream == NULL)
        return cudaErrorInvalidResourceHandle;
    CapturePtr c = stream->capture;
    if (c == nullptr)
        return cudaErrorIllegalState;
    if (c->origin != stream)
        return spoil(c, cudaErrorStreamCaptureUnmatched);
    if (c->mode != cudaStreamCaptureModeRelaxed && c->thread != std::this_thread::get_id())
        return cudaErrorStreamCaptureWrongThread;
    bool joined = is_joined(*c);
    for (cudaStream_t s : streams()) {
        if (s->capture == c) {
            s->capture = nullptr;
            s->at.clear();
        }
    }
    c->ended = true;
    state().captures.erase(std::find(state().captures.begin(), state().captures.end(), c));
    if (c->broken)
        return cudaErrorStreamCaptureInvalidated;
    if (!joined)
        return cudaErrorStreamCaptureUnjoined;
    *out = new CUgraph_st;
    (*out)->nodes.swap(c->nodes);
    state().graphs.push_back(*out);
    return cudaSuccess;
}

/* A graph launched into a capture becomes part of the graph that is captured. */
static cudaError_t capture_graph(cudaStream_t stream, const std::vector<Node> &nodes)
{
    Capture &c = *stream->capture;
    int first = (int)c.nodes.size();
    std::vector<int> last;

    if (c.broken)
        return cudaErrorStreamCaptureInvalidated;
    for (const Node &node : nodes) {
        Node copy = node;
        for (int &a : copy.after)
            a += first;
        if (copy.after.empty())
            copy.after = stream->at;
        c.nodes.push_back(copy);
        last.push_back((int)c.nodes.size() - 1);
    }
    if (!last.empty())
        stream->at = last;
    return cudaSuccess;
}

static cudaError_t launch(cudaGraphExec_t exec, cudaStream_t stream)
{
    std::vector<OpPtr> ops;

    if (stream == NULL || !is_one_of(state().execs, exec))
        return cudaErrorInvalidResourceHandle;
    cudaError_t refused = refuse_implicit(stream);
    if (refused != cudaSuccess)
        return refused;
    if (stream->capture != nullptr)
        return capture_graph(stream, exec->nodes);
    OpPtr start = push(stream, nullptr, {exec->last});
    for (const Node &node : exec->nodes) {
        std::vector<OpPtr> after{start};
        for (int a : node.after)
            after.push_back(ops[(size_t)a]);
        ops.push_back(add_op(node.work, after, node.lane));
    }
    exec->last = push(stream, nullptr, ops);
    return cudaSuccess;
}

static bool has_priorities(const std::vector<Node> &nodes)
{
    auto priority = [](const Node &n) { return streams()[(size_t)n.lane]->priority; };

    return std::any_of(nodes.begin(), nodes.end(),
                       [&](const Node &n) { return priority(n) != priority(nodes[0]); });
}

/* The genuine one would run all nodes with the priority of the stream they are launched into. */
static cudaError_t instantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    if (!is_one_of(state().graphs, graph))
        return cudaErrorInvalidResourceHandle;
    if (flags != 0 && flags != cudaGraphInstantiateFlagUseNodePriority)
        return cudaErrorInvalidValue;
    if (flags == 0 && has_priorities(graph->nodes))
        die("a graph of streams with different priorities is to be launched without them");
    if (++state().instantiated == settings().graph_fail)
        return cudaErrorMemoryAllocation;
    *out = new CUgraphExec_st;
    (*out)->nodes = graph->nodes;
    state().execs.push_back(*out);
    return cudaSuccess;
}

static cudaGraphExecUpdateResult difference(const std::vector<Node> &a, const std::vector<Node> &b)
{
    if (a.size() != b.size())
        return cudaGraphExecUpdateErrorTopologyChanged;
    for (size_t i = 0; i < a.size(); i++) {
        if (a[i].after != b[i].after)
            return cudaGraphExecUpdateErrorTopologyChanged;
        if (strcmp(a[i].work->kind, b[i].work->kind) != 0)
            return cudaGraphExecUpdateErrorNodeTypeChanged;
    }
    return cudaGraphExecUpdateSuccess;
}

int report_graphs()
{
    auto alive = [](const auto *x) { return x->alive; };
    const Graphs &g = state();
    long graphs = std::count_if(g.graphs.begin(), g.graphs.end(), alive);
    long execs = std::count_if(g.execs.begin(), g.execs.end(), alive);

    if (graphs > 0)
        fprintf(stderr, "standin: left at exit: %ld graphs\n", graphs);
    if (execs > 0)
        fprintf(stderr, "standin: left at exit: %ld executable graphs\n", execs);
    return (int)(graphs + execs);
}

static cudaError_t capture_info(cudaStream_t stream, cudaStreamCaptureStatus *status,
                                unsigned long long *number)
{
    if (stream == NULL)
        return cudaErrorInvalidResourceHandle;
    cudaError_t refused = refuse_implicit(stream);
    if (refused != cudaSuccess)
        return refused;
    const CapturePtr &c = stream->capture;
    *status = c == nullptr ? cudaStreamCaptureStatusNone
              : c->broken  ? cudaStreamCaptureStatusInvalidated
                           : cudaStreamCaptureStatusActive;
    if (number != NULL && c != nullptr)
        *number = c->number;
    return cudaSuccess;
}

} // namespace standin

using namespace standin;

extern "C" {

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode)
{
    return call([&] {
        std::swap(*mode, thread_mode);
        return cudaSuccess;
    });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    return call([&] { return begin(stream_of(stream), mode); });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    return call([&] { return end(stream_of(stream), out); });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status)
{
    return call([&] { return capture_info(stream_of(stream), status, NULL); });
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status,
                                     unsigned long long *number, cudaGraph_t *graph,
                                     const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                                     size_t *count)
{
    return call([&] {
        if (graph != NULL || nodes != NULL || edges != NULL || count != NULL)
            return cudaErrorNotSupported;
        return capture_info(stream_of(stream), status, number);
    });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    return call([&] { return instantiate(out, graph, flags); });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t graph,
                                          unsigned long long flags)
{
    return call([&] { return instantiate(out, graph, flags); });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    return call([&] {
        return stream_of(stream) != NULL && is_one_of(state().execs, exec)
                   ? cudaSuccess
                   : cudaErrorInvalidResourceHandle;
    });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    return call([&] { return launch(exec, stream_of(stream)); });
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo *info)
{
    return call([&] {
        if (!is_one_of(state().execs, exec) || !is_one_of(state().graphs, graph))
            return cudaErrorInvalidResourceHandle;
        memset(info, 0, sizeof *info);
        info->result = difference(exec->nodes, graph->nodes);
        if (info->result != cudaGraphExecUpdateSuccess)
            return cudaErrorGraphExecUpdateFailure;
        exec->nodes = graph->nodes;
        return cudaSuccess;
    });
}

/* How many; the nodes themselves have no handles here. */
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    return call([&] {
        if (!is_one_of(state().graphs, graph))
            return cudaErrorInvalidResourceHandle;
        if (nodes != NULL)
            return cudaErrorNotSupported;
        *count = graph->nodes.size();
        return cudaSuccess;
    });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    return call([&] {
        if (!is_one_of(state().graphs, graph))
            return cudaErrorInvalidResourceHandle;
        graph->alive = false;
        graph->nodes.clear();
        return cudaSuccess;
    });
}

/* A launch that is under way goes on. */
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return call([&] {
        if (!is_one_of(state().execs, exec))
            return cudaErrorInvalidResourceHandle;
        exec->alive = false;
        exec->nodes.clear();
        exec->last = nullptr;
        return cudaSuccess;
    });
}
}
