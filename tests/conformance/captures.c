/* Stream capture: what is written down, and what a capture forbids. */
#include "promises.h"

static CUevent event_in(CUstream stream)
{
    CUevent event;
    ok(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    ok(cuEventRecord(event, stream));
    return event;
}

static CUstreamCaptureStatus status_of(CUstream stream)
{
    CUstreamCaptureStatus status;
    ok(cuStreamIsCapturing(stream, &status));
    return status;
}

/* The capture was ended by what was done meanwhile. */
static void is_invalid(CUstream stream)
{
    CUgraph graph = (CUgraph)1;
    same(status_of(stream), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    same(cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    same((long)graph, 0);
    same(status_of(stream), CU_STREAM_CAPTURE_STATUS_NONE);
}

static size_t nodes_of(CUgraph graph)
{
    size_t count;
    ok(cuGraphGetNodes(graph, NULL, &count));
    return count;
}

static void captured_work_is_written_down_and_not_done(void)
{
    CUfunction slow = kernel_of(200);
    CUstream stream = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL);
    CUgraph graph;
    same(status_of(stream), CU_STREAM_CAPTURE_STATUS_ACTIVE);
    ok(launch(slow, stream));
    ok(launch(slow, stream));
    ok(cuStreamEndCapture(stream, &graph));
    ok(cuStreamQuery(stream));
    same(nodes_of(graph), 2);
}

static void waiting_for_a_capturing_stream_ends_its_capture(void)
{
    CUstream stream = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL);
    same(cuStreamSynchronize(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    is_invalid(stream);
    stream = capturing(CU_STREAM_CAPTURE_MODE_RELAXED);
    same(cuStreamQuery(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    is_invalid(stream);
    stream = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL);
    same(cuCtxSynchronize(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    is_invalid(stream);
}

static void asking_for_a_captured_event_ends_the_capture(void)
{
    CUstream stream = capturing(CU_STREAM_CAPTURE_MODE_RELAXED);
    CUevent event = event_in(stream);
    same(cuEventQuery(event), CUDA_ERROR_CAPTURED_EVENT);
    is_invalid(stream);
}

static void unsafe_calls_end_a_global_capture_and_no_relaxed_one(void)
{
    CUdeviceptr memory;
    CUgraph graph;
    CUstream stream = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL);
    same(cuMemAlloc(&memory, MIB), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    is_invalid(stream);
    stream = capturing(CU_STREAM_CAPTURE_MODE_RELAXED);
    ok(cuMemAlloc(&memory, MIB));
    ok(cuStreamEndCapture(stream, &graph));
}

static void a_thread_may_say_that_it_knows_better(void)
{
    CUdeviceptr memory;
    CUgraph graph;
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    CUstream stream = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL);
    ok(cuThreadExchangeStreamCaptureMode(&mode));
    same(mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
    ok(cuMemAlloc(&memory, MIB));
    ok(cuThreadExchangeStreamCaptureMode(&mode));
    same(mode, CU_STREAM_CAPTURE_MODE_RELAXED);
    ok(cuStreamEndCapture(stream, &graph));
}

struct answer {
    CUstream stream;
    CUresult alloc, end;
};

static void *in_another_thread(void *place)
{
    struct answer *answer = place;
    CUcontext context;
    CUdeviceptr memory;
    CUgraph graph;
    ok(cuDevicePrimaryCtxRetain(&context, device));
    ok(cuCtxSetCurrent(context));
    answer->alloc = cuMemAlloc(&memory, MIB);
    answer->end = cuStreamEndCapture(answer->stream, &graph);
    return NULL;
}

static void a_thread_local_capture_is_its_threads_own(void)
{
    struct answer answer = { capturing(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), 0, 0 };
    pthread_t thread;
    CUgraph graph;
    same(pthread_create(&thread, NULL, in_another_thread, &answer), 0);
    same(pthread_join(thread, NULL), 0);
    same(answer.alloc, CUDA_SUCCESS);
    same(answer.end, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    /* That was its end, and nobody has the graph. */
    same(cuStreamEndCapture(answer.stream, &graph), CUDA_ERROR_ILLEGAL_STATE);
}

static void the_legacy_stream_ends_captures_of_blocking_streams(void)
{
    CUfunction kernel = kernel_of(0);
    CUstream stream = stream_of(CU_STREAM_DEFAULT);
    same(cuStreamBeginCapture(NULL, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    ok(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    same(launch(kernel, NULL), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    is_invalid(stream);
}

static void events_bring_other_streams_into_a_capture_and_back(void)
{
    CUfunction kernel = kernel_of(0);
    CUstream first = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL), second = stream_of(CU_STREAM_NON_BLOCKING);
    CUgraph graph;
    size_t edges;
    ok(launch(kernel, first));
    ok(cuStreamWaitEvent(second, event_in(first), 0));
    same(status_of(second), CU_STREAM_CAPTURE_STATUS_ACTIVE);
    ok(launch(kernel, second));
    ok(launch(kernel, first));
    ok(cuStreamWaitEvent(first, event_in(second), 0));
    ok(launch(kernel, first));
    ok(cuStreamEndCapture(first, &graph));
    same(status_of(second), CU_STREAM_CAPTURE_STATUS_NONE);
    same(nodes_of(graph), 4);
    ok(cuGraphGetEdges(graph, NULL, NULL, NULL, &edges));
    same(edges, 4);
}

static void work_that_does_not_come_back_is_an_error(void)
{
    CUfunction kernel = kernel_of(0);
    CUstream first = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL), second = stream_of(CU_STREAM_NON_BLOCKING);
    CUgraph graph;
    ok(launch(kernel, first));
    ok(cuStreamWaitEvent(second, event_in(first), 0));
    ok(launch(kernel, second));
    same(cuStreamEndCapture(first, &graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    same((long)graph, 0);
    same(status_of(second), CU_STREAM_CAPTURE_STATUS_NONE);
}

static void a_capture_ends_where_it_began(void)
{
    CUfunction kernel = kernel_of(0);
    CUstream first = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL), second = stream_of(CU_STREAM_NON_BLOCKING);
    CUgraph graph;
    ok(launch(kernel, first));
    ok(cuStreamWaitEvent(second, event_in(first), 0));
    same(cuStreamEndCapture(second, &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    is_invalid(first);
    holds(cuStreamEndCapture(first, &graph) != CUDA_SUCCESS);
}

static void captures_do_not_mix_with_each_other_or_with_what_is_done(void)
{
    CUfunction kernel = kernel_of(0);
    CUstream first = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL), second = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL);
    CUgraph graph;
    ok(launch(kernel, first));
    ok(launch(kernel, second));
    same(cuStreamWaitEvent(second, event_in(first), 0), CUDA_ERROR_STREAM_CAPTURE_MERGE);
    CUresult one = cuStreamEndCapture(first, &graph), other = cuStreamEndCapture(second, &graph);
    holds(one == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED || other == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    CUevent outside = event_in(NULL);
    first = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL);
    same(cuStreamWaitEvent(first, outside, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    is_invalid(first);
}

static void a_capture_tells_what_the_next_node_will_follow(void)
{
    CUfunction kernel = kernel_of(0);
    CUstream stream = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL);
    CUstreamCaptureStatus status;
    cuuint64_t id, another;
    CUgraph graph, ended;
    const CUgraphNode *follows;
    size_t count;
    ok(launch(kernel, stream));
    ok(cuStreamGetCaptureInfo(stream, &status, &id, &graph, &follows, NULL, &count));
    same(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    same(count, 1);
    same(nodes_of(graph), 1);
    ok(cuStreamEndCapture(stream, &ended));
    same((long)ended, (long)graph);
    stream = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL);
    ok(cuStreamGetCaptureInfo(stream, &status, &another, NULL, NULL, NULL, NULL));
    holds(id != another);
    ok(cuStreamEndCapture(stream, &ended));
}

const struct promise captures[] = {
    PROMISE(captured_work_is_written_down_and_not_done),
    PROMISE(waiting_for_a_capturing_stream_ends_its_capture),
    PROMISE(asking_for_a_captured_event_ends_the_capture),
    PROMISE(unsafe_calls_end_a_global_capture_and_no_relaxed_one),
    PROMISE(a_thread_may_say_that_it_knows_better),
    PROMISE(a_thread_local_capture_is_its_threads_own),
    PROMISE(the_legacy_stream_ends_captures_of_blocking_streams),
    PROMISE(events_bring_other_streams_into_a_capture_and_back),
    PROMISE(work_that_does_not_come_back_is_an_error),
    PROMISE(a_capture_ends_where_it_began),
    PROMISE(captures_do_not_mix_with_each_other_or_with_what_is_done),
    PROMISE(a_capture_tells_what_the_next_node_will_follow),
    { 0 },
};
