/* Graphs and captures. */
#include "promises.h"

static CUstream capture(CUstreamCaptureMode mode)
{
    CUstream stream;
    ok(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    ok(cuStreamBeginCapture(stream, mode));
    return stream;
}

static CUgraph end(CUstream stream)
{
    CUgraph graph;
    ok(cuStreamEndCapture(stream, &graph));
    return graph;
}

/* A graph that allocates `bytes` and keeps them, and where. */
static CUgraph allocating(size_t bytes, CUdeviceptr *memory)
{
    CUstream stream = capture(CU_STREAM_CAPTURE_MODE_GLOBAL);
    ok(cuMemAllocAsync(memory, bytes, stream));
    return end(stream);
}

static void graph_memory_outlives_the_graph_that_it_was_instantiated_from(void)
{
    CUdeviceptr memory;
    CUgraphExec exec;
    CUgraph graph = allocating(4 * MIB, &memory);
    ok(cuGraphInstantiateWithFlags(&exec, graph, 0));
    ok(cuGraphDestroy(graph));
    ok(cuGraphLaunch(exec, NULL));
    ok(cuMemsetD8(memory, 1, 4 * MIB));
    ok(cuMemFreeAsync(memory, NULL));
    ok(cuGraphLaunch(exec, NULL));
    ok(cuMemFreeAsync(memory, NULL));
    ok(cuGraphExecDestroy(exec));
}

static void graph_memory_that_was_not_freed_forbids_the_next_launch(void)
{
    CUdeviceptr memory;
    CUgraphExec exec;
    CUgraph graph = allocating(4 * MIB, &memory);
    ok(cuGraphInstantiateWithFlags(&exec, graph, 0));
    ok(cuGraphLaunch(exec, NULL));
    same(cuGraphLaunch(exec, NULL), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemFreeAsync(memory, NULL));
    ok(cuGraphLaunch(exec, NULL));
    ok(cuGraphExecDestroy(exec));
    ok(cuGraphInstantiateWithFlags(&exec, graph, CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH));
    ok(cuMemFreeAsync(memory, NULL));
    ok(cuGraphLaunch(exec, NULL));
    ok(cuGraphLaunch(exec, NULL));
}

static void graph_memory_has_one_executable_graph_at_a_time(void)
{
    CUdeviceptr memory;
    CUgraphExec first, second;
    CUgraph graph = allocating(4 * MIB, &memory), clone;
    ok(cuGraphInstantiateWithFlags(&first, graph, 0));
    holds(cuGraphInstantiateWithFlags(&second, graph, 0) != CUDA_SUCCESS);
    ok(cuGraphExecDestroy(first));
    ok(cuGraphInstantiateWithFlags(&second, graph, 0));
    holds(cuGraphClone(&clone, graph) != CUDA_SUCCESS);
}

static void graph_memory_is_kept_for_the_device_until_it_is_trimmed(void)
{
    CUdeviceptr memory;
    CUgraphExec exec;
    cuuint64_t used, reserved;
    CUgraph graph = allocating(64 * MIB, &memory);
    ok(cuGraphInstantiateWithFlags(&exec, graph, 0));
    ok(cuGraphLaunch(exec, NULL));
    ok(cuMemFreeAsync(memory, NULL));
    ok(cuCtxSynchronize());
    ok(cuDeviceGetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &used));
    ok(cuDeviceGetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &reserved));
    same(used, 0);
    holds(reserved >= 64 * MIB);
    size_t before = free_bytes();
    ok(cuDeviceGraphMemTrim(device));
    ok(cuDeviceGetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &reserved));
    same(reserved, 0);
    holds(free_bytes() >= before + 64 * MIB);
}

const struct promise graphs[] = {
    PROMISE(graph_memory_outlives_the_graph_that_it_was_instantiated_from),
    PROMISE(graph_memory_that_was_not_freed_forbids_the_next_launch),
    PROMISE(graph_memory_has_one_executable_graph_at_a_time),
    PROMISE(graph_memory_is_kept_for_the_device_until_it_is_trimmed),
    { 0 },
};
