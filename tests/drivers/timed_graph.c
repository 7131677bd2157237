/* The timed driver's captures and graphs (timed.h). The nodes of a graph run one after the other in the order in which they
 * were added, which is one of the orders that any graph allows. */
#include "timed_host.h"
#include <stdlib.h>
#include <string.h>

#undef cuStreamBeginCapture

struct node {
    struct node *next;
    struct work work;
    struct function *function;
};

struct graph {
    long lives;
    struct node *nodes;
    unsigned count;
};

/* What is launched: a copy of the graph. */
struct exec {
    long lives;
    struct graph graph;
    struct graph *from;
    uint64_t last;
};

struct capture {
    struct graph *graph;
    struct stream *origin;
    CUstreamCaptureMode mode;
    pthread_t thread;
    bool invalid;
    struct capture *next;
};

enum { GRAPHS = 1024, NODES = 4096 };

static struct graph graphs[GRAPHS];
static struct exec execs[GRAPHS];
static struct capture *captures; /* those that are open */
static _Thread_local CUstreamCaptureMode mode_of_thread = CU_STREAM_CAPTURE_MODE_GLOBAL;

static struct node *add(struct graph *to, const struct work *work, struct function *function)
{
    struct node **end = &to->nodes, *one = malloc(sizeof *one);
    while (*end)
        end = &(*end)->next;
    *one = (struct node){ NULL, *work, function };
    to->count++;
    return *end = one;
}

static void copy_nodes(struct graph *to, const struct graph *from)
{
    *to = (struct graph){ .lives = 1 };
    for (const struct node *one = from->nodes; one; one = one->next)
        add(to, &one->work, one->function);
}

static void drop_nodes(struct graph *of)
{
    for (struct node *one = of->nodes, *next; one; one = next) {
        next = one->next;
        free(one);
    }
    of->nodes = NULL;
}

/* Captures. */

bool timed_is_capturing(struct stream *one) { return __atomic_load_n(&captures, __ATOMIC_ACQUIRE) && one->capture; }

CUresult timed_unsafe(void)
{
    CUresult answer = CUDA_SUCCESS;
    if (!__atomic_load_n(&captures, __ATOMIC_ACQUIRE) || mode_of_thread == CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_SUCCESS;
    timed_lock();
    for (struct capture *one = captures; one; one = one->next) {
        bool own = pthread_equal(one->thread, pthread_self());
        if ((own && one->mode != CU_STREAM_CAPTURE_MODE_RELAXED) ||
            (one->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && mode_of_thread == CU_STREAM_CAPTURE_MODE_GLOBAL)) {
            one->invalid = true;
            answer = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
    }
    timed_unlock();
    return answer;
}

bool timed_legacy_forbidden(struct context *of)
{
    bool forbidden = false;
    if (!__atomic_load_n(&captures, __ATOMIC_ACQUIRE))
        return false;
    timed_lock();
    for (int i = 0; i < STREAMS; i++)
        if (streams[i].lives && streams[i].of == of && streams[i].blocking && streams[i].capture)
            forbidden = streams[i].capture->invalid = true;
    timed_unlock();
    return forbidden;
}

CUresult timed_captures(struct stream *to, const struct work *work, struct function *function)
{
    NEED(!to->capture->invalid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    timed_lock();
    add(to->capture->graph, work, function);
    timed_unlock();
    return CUDA_SUCCESS;
}

void timed_capture_event(struct stream *from, struct event *event) { event->capture = from->capture; }

CUresult timed_capture_wait(struct stream *to, struct event *event)
{
    struct capture *open = captures;
    while (open && open != event->capture)
        open = open->next;
    NEED(open, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    NEED(!to->capture || to->capture == open, CUDA_ERROR_STREAM_CAPTURE_MERGE);
    to->capture = open;
    return CUDA_SUCCESS;
}

static CUresult begin(CUstream stream, CUstreamCaptureMode mode, bool per_thread)
{
    NEED(timed_current(), CUDA_ERROR_INVALID_CONTEXT);
    struct stream *origin = timed_stream(stream, per_thread);
    NEED(origin, CUDA_ERROR_INVALID_HANDLE);
    NEED(!origin->legacy, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    NEED(!origin->capture, CUDA_ERROR_ILLEGAL_STATE);
    struct capture *one = malloc(sizeof *one);
    timed_lock();
    struct graph *graph = FREE(graphs, GRAPHS);
    *graph = (struct graph){ .lives = 1 };
    *one = (struct capture){ graph, origin, mode, pthread_self(), false, captures };
    origin->capture = one;
    __atomic_store_n(&captures, one, __ATOMIC_RELEASE);
    timed_unlock();
    return CUDA_SUCCESS;
}

static CUresult end(CUstream stream, CUgraph *out, bool per_thread)
{
    NEED(timed_current(), CUDA_ERROR_INVALID_CONTEXT);
    struct stream *origin = timed_stream(stream, per_thread);
    NEED(origin, CUDA_ERROR_INVALID_HANDLE);
    struct capture *one = origin->capture;
    NEED(one, CUDA_ERROR_ILLEGAL_STATE);
    NEED(one->origin == origin, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    NEED(one->mode == CU_STREAM_CAPTURE_MODE_RELAXED || pthread_equal(one->thread, pthread_self()),
         CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    timed_lock();
    for (int i = 0; i < STREAMS; i++)
        streams[i].capture = streams[i].capture == one ? NULL : streams[i].capture;
    for (struct capture **at = &captures; *at; at = &(*at)->next)
        if (*at == one) {
            __atomic_store_n(at, one->next, __ATOMIC_RELEASE);
            break;
        }
    timed_unlock();
    bool invalid = one->invalid;
    *out = (CUgraph)one->graph;
    if (invalid) {
        drop_nodes(one->graph);
        one->graph->lives = 0;
        *out = NULL;
    }
    free(one);
    return invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
}

static CUresult is_capturing(CUstream stream, CUstreamCaptureStatus *status, bool per_thread)
{
    NEED(timed_current(), CUDA_ERROR_INVALID_CONTEXT);
    struct stream *one = timed_stream(stream, per_thread);
    NEED(one, CUDA_ERROR_INVALID_HANDLE);
    NEED(!one->legacy || !timed_legacy_forbidden(one->of), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    *status = !timed_is_capturing(one) ? CU_STREAM_CAPTURE_STATUS_NONE
              : one->capture->invalid  ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                       : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

TWICE(cuStreamBeginCapture_v2, (CUstream stream, CUstreamCaptureMode mode), begin(stream, mode, OWN))
TWICE(cuStreamEndCapture, (CUstream stream, CUgraph *out), end(stream, out, OWN))
TWICE(cuStreamIsCapturing, (CUstream stream, CUstreamCaptureStatus *status), is_capturing(stream, status, OWN))

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    NEED(mode && *mode <= CU_STREAM_CAPTURE_MODE_RELAXED, CUDA_ERROR_INVALID_VALUE);
    CUstreamCaptureMode before = mode_of_thread;
    mode_of_thread = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

/* Graphs. */

static struct graph *graph_of(CUgraph handle)
{
    struct graph *one = (struct graph *)handle;
    return one >= graphs && one < graphs + GRAPHS && one->lives ? one : NULL;
}

static struct exec *exec_of(CUgraphExec handle)
{
    struct exec *one = (struct exec *)handle;
    return one >= execs && one < execs + GRAPHS && one->lives ? one : NULL;
}

CUresult cuGraphCreate(CUgraph *out, unsigned flags)
{
    NEED(device_is_mine(), CUDA_ERROR_NOT_INITIALIZED);
    NEED(out && !flags, CUDA_ERROR_INVALID_VALUE);
    timed_lock();
    struct graph *one = FREE(graphs, GRAPHS);
    *one = (struct graph){ .lives = 1 };
    timed_unlock();
    *out = (CUgraph)one;
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph handle)
{
    struct graph *one = graph_of(handle);
    NEED(one, CUDA_ERROR_INVALID_VALUE);
    drop_nodes(one);
    one->lives = 0;
    return CUDA_SUCCESS;
}

static CUresult of_parameters(const CUDA_KERNEL_NODE_PARAMS *how, struct work *work)
{
    return timed_kernel((struct function *)how->func, (uint64_t)how->gridDimX * how->gridDimY * how->gridDimZ,
                        how->kernelParams, how->extra, work);
}

CUresult cuGraphAddKernelNode_v2(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                 const CUDA_KERNEL_NODE_PARAMS *how)
{
    struct graph *to = graph_of(graph);
    struct work work;
    NEED(to && out && how && (dependencies || !count), CUDA_ERROR_INVALID_VALUE);
    CUresult answer = of_parameters(how, &work);
    NEED(answer == CUDA_SUCCESS, answer);
    *out = (CUgraphNode)add(to, &work, (struct function *)how->func);
    return CUDA_SUCCESS;
}

CUresult cuGraphAddEmptyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *dependencies, size_t count)
{
    struct graph *to = graph_of(graph);
    NEED(to && out && (dependencies || !count), CUDA_ERROR_INVALID_VALUE);
    *out = (CUgraphNode)add(to, &(struct work){ .kind = JOIN }, NULL);
    return CUDA_SUCCESS;
}

CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    struct graph *of = graph_of(graph);
    NEED(of && count, CUDA_ERROR_INVALID_VALUE);
    size_t found = 0;
    for (struct node *one = of->nodes; one && nodes && found < *count; one = one->next)
        nodes[found++] = (CUgraphNode)one;
    *count = nodes ? found : of->count;
    return CUDA_SUCCESS;
}

CUresult cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType *type)
{
    NEED(node && type, CUDA_ERROR_INVALID_VALUE);
    *type = ((struct node *)node)->function ? CU_GRAPH_NODE_TYPE_KERNEL : CU_GRAPH_NODE_TYPE_EMPTY;
    return CUDA_SUCCESS;
}

CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *how)
{
    NEED(node && how && ((struct node *)node)->function, CUDA_ERROR_INVALID_VALUE);
    ((struct node *)node)->function = (struct function *)how->func;
    return of_parameters(how, &((struct node *)node)->work);
}

/* A node of an executable graph is named by the node that it was made from. */
CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec handle, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *how)
{
    struct exec *of = exec_of(handle);
    NEED(of && of->from && of->from->lives && node && how, CUDA_ERROR_INVALID_VALUE);
    struct node *copy = of->graph.nodes;
    for (struct node *one = of->from->nodes; one && copy; one = one->next, copy = copy->next)
        if (one == (struct node *)node) {
            copy->function = (struct function *)how->func;
            return of_parameters(how, &copy->work);
        }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph, unsigned long long flags)
{
    struct graph *from = graph_of(graph);
    NEED(from && out, CUDA_ERROR_INVALID_VALUE);
    timed_lock();
    struct exec *one = FREE(execs, GRAPHS);
    *one = (struct exec){ .lives = 1, .from = from };
    timed_unlock();
    copy_nodes(&one->graph, from);
    (void)flags;
    *out = (CUgraphExec)one;
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec handle)
{
    struct exec *one = exec_of(handle);
    NEED(one, CUDA_ERROR_INVALID_VALUE);
    drop_nodes(&one->graph);
    one->lives = 0;
    return CUDA_SUCCESS;
}

static CUresult launch(CUgraphExec handle, CUstream stream, bool per_thread)
{
    uint64_t until = host_ns() + host.GRAPH + host.LAUNCH_SLEEP;
    struct exec *one = exec_of(handle);
    unsigned count = 0;
    NEED(one, CUDA_ERROR_INVALID_VALUE);
    NEED(timed_current(), CUDA_ERROR_INVALID_CONTEXT);
    struct stream *to = timed_stream(stream, per_thread);
    NEED(to, CUDA_ERROR_INVALID_HANDLE);
    if (timed_is_capturing(to)) {
        CUresult answer = CUDA_SUCCESS;
        for (struct node *node = one->graph.nodes; node && answer == CUDA_SUCCESS; node = node->next)
            answer = timed_captures(to, &node->work, node->function);
        return answer;
    }
    NEED(!to->legacy || !timed_legacy_forbidden(to->of), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    struct work *all = calloc(one->graph.count + 1, sizeof *all);
    /* A graph runs once at a time. */
    all[count++] = (struct work){ .kind = JOIN, .waits_for = { one->last } };
    for (struct node *node = one->graph.nodes; node; node = node->next) {
        all[count++] = node->work;
        until += node->function ? timed_first_ns(node->function) : 0;
    }
    host_until(until);
    one->last = timed_submit(to, all, count);
    free(all);
    return CUDA_SUCCESS;
}

/* What is not there yet is loaded by the launch. */
TWICE(cuGraphUpload, (CUgraphExec exec, CUstream stream),
      exec_of(exec) && timed_stream(stream, OWN) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE)
TWICE(cuGraphLaunch, (CUgraphExec exec, CUstream stream), launch(exec, stream, OWN))
