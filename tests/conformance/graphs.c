/* Graphs and captures. */
#include "promises.h"

static CUgraph end(CUstream stream)
{
    CUgraph graph;
    ok(cuStreamEndCapture(stream, &graph));
    return graph;
}

/* A graph that allocates `bytes` and keeps them, and where. */
static CUgraph allocating(size_t bytes, CUdeviceptr *memory)
{
    CUstream stream = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL);
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

static cuuint64_t graph_memory(CUgraphMem_attribute which)
{
    cuuint64_t bytes;
    ok(cuDeviceGetGraphMemAttribute(device, which, &bytes));
    return bytes;
}

static void graph_memory_is_kept_for_the_device_until_it_is_trimmed(void)
{
    CUdeviceptr memory;
    CUgraphExec exec;
    CUgraph graph = allocating(64 * MIB, &memory);
    ok(cuGraphInstantiateWithFlags(&exec, graph, 0));
    ok(cuGraphLaunch(exec, NULL));
    ok(cuMemFreeAsync(memory, NULL));
    ok(cuCtxSynchronize());
    /* Used is what a graph has mapped: freed memory stays so, for the next launch. */
    same(graph_memory(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT), 64 * MIB);
    holds(graph_memory(CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT) >= 64 * MIB);
    size_t before = free_bytes();
    ok(cuDeviceGraphMemTrim(device));
    same(graph_memory(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT), 0);
    same(graph_memory(CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT), 0);
    holds(free_bytes() >= before + 64 * MIB);
}

static void graph_memory_stays_used_when_its_executable_graph_is_gone(void)
{
    CUdeviceptr memory;
    CUgraphExec exec;
    CUstream stream = capturing(CU_STREAM_CAPTURE_MODE_GLOBAL);
    ok(cuMemAllocAsync(&memory, 64 * MIB, stream));
    ok(cuMemFreeAsync(memory, stream));
    ok(cuGraphInstantiateWithFlags(&exec, end(stream), 0));
    ok(cuGraphLaunch(exec, NULL));
    ok(cuCtxSynchronize());
    ok(cuGraphExecDestroy(exec));
    same(graph_memory(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT), 64 * MIB);
    holds(graph_memory(CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT) >= 64 * MIB);
    ok(cuDeviceGraphMemTrim(device));
    same(graph_memory(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT), 0);
    same(graph_memory(CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT), 0);
}

static CUgraphNode kernel_node(CUgraph graph, CUfunction kernel, const CUgraphNode *after, size_t count)
{
    static unsigned long long nanoseconds;
    static void *parameters[] = { &nanoseconds };
    CUDA_KERNEL_NODE_PARAMS node = {
        .func = kernel, .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1,
        .blockDimX = 32, .blockDimY = 1, .blockDimZ = 1, .kernelParams = parameters,
    };
    CUgraphNode added;
    /* The kernel spins as long as it is told to by its name on the simulated device, by this on a real one. */
    nanoseconds = 40 * 1000000ull;
    ok(cuGraphAddKernelNode(&added, graph, after, count, &node));
    return added;
}

/* Launches it and answers the milliseconds that the device took. */
static float launched(CUgraphExec exec)
{
    CUevent start, end;
    float ms;
    ok(cuEventCreate(&start, 0));
    ok(cuEventCreate(&end, 0));
    /* While the device is busy nothing of ours lies between the events. */
    ok(launch(kernel_of(200), NULL));
    ok(cuEventRecord(start, NULL));
    ok(cuGraphLaunch(exec, NULL));
    ok(cuEventRecord(end, NULL));
    ok(cuCtxSynchronize());
    ok(cuEventElapsedTime(&ms, start, end));
    return ms;
}

static void branches_run_side_by_side_and_chains_one_after_the_other(void)
{
    CUfunction kernel = kernel_of(40);
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode nodes[3];
    ok(cuGraphCreate(&graph, 0));
    nodes[0] = kernel_node(graph, kernel, NULL, 0);
    nodes[1] = kernel_node(graph, kernel, nodes, 1);
    nodes[2] = kernel_node(graph, kernel, nodes, 1);
    ok(cuGraphInstantiateWithFlags(&exec, graph, 0));
    float took = launched(exec);
    holds(took >= 79 && took < 100);
    ok(cuGraphAddDependencies(graph, &nodes[1], &nodes[2], NULL, 1));
    ok(cuGraphExecDestroy(exec));
    ok(cuGraphInstantiateWithFlags(&exec, graph, 0));
    holds(launched(exec) >= 119);
}

static void an_executable_graph_does_not_change_with_its_graph(void)
{
    CUgraph graph;
    CUgraphExec exec;
    CUfunction slow = kernel_of(40);
    ok(cuGraphCreate(&graph, 0));
    CUgraphNode node = kernel_node(graph, slow, NULL, 0);
    ok(cuGraphInstantiateWithFlags(&exec, graph, 0));
    ok(cuGraphDestroyNode(node));
    holds(launched(exec) >= 39);
    ok(cuGraphDestroy(graph));
    holds(launched(exec) >= 39);
}

static void a_launch_waits_for_the_launch_before_it(void)
{
    CUgraph graph;
    CUgraphExec exec;
    CUstream first, second;
    ok(cuStreamCreate(&first, CU_STREAM_NON_BLOCKING));
    ok(cuStreamCreate(&second, CU_STREAM_NON_BLOCKING));
    ok(cuGraphCreate(&graph, 0));
    kernel_node(graph, kernel_of(40), NULL, 0);
    ok(cuGraphInstantiateWithFlags(&exec, graph, 0));
    double start = seconds();
    ok(cuGraphLaunch(exec, first));
    ok(cuGraphLaunch(exec, second));
    ok(cuStreamSynchronize(second));
    holds(seconds() - start >= 0.079);
}

static volatile int heard;
static void CUDA_CB hears(void *data) { heard = *(volatile unsigned char *)data; }

static void nodes_copy_fill_and_call_in_their_order(void)
{
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode fill, copy, host;
    CUdeviceptr memory;
    CUcontext context;
    void *bytes;
    ok(cuCtxGetCurrent(&context));
    ok(cuMemAlloc(&memory, MIB));
    ok(cuMemHostAlloc(&bytes, MIB, 0));
    CUDA_MEMSET_NODE_PARAMS filling = { .dst = memory, .value = 3, .elementSize = 1, .width = MIB, .height = 1 };
    CUDA_MEMCPY3D copying = {
        .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = memory, .dstMemoryType = CU_MEMORYTYPE_HOST, .dstHost = bytes,
        .WidthInBytes = MIB, .Height = 1, .Depth = 1,
    };
    CUDA_HOST_NODE_PARAMS calling = { .fn = hears, .userData = bytes };
    ok(cuGraphCreate(&graph, 0));
    ok(cuGraphAddMemsetNode(&fill, graph, NULL, 0, &filling, context));
    ok(cuGraphAddMemcpyNode(&copy, graph, &fill, 1, &copying, context));
    ok(cuGraphAddHostNode(&host, graph, &copy, 1, &calling));
    ok(cuGraphInstantiateWithFlags(&exec, graph, 0));
    launched(exec);
    same(heard, 3);
    filling.value = 4;
    ok(cuGraphExecMemsetNodeSetParams(exec, fill, &filling, context));
    launched(exec);
    same(heard, 4);
    ok(cuGraphNodeSetEnabled(exec, fill, 0));
    ok(cuMemsetD8(memory, 9, MIB));
    launched(exec);
    same(heard, 9);
}

static void an_update_takes_new_work_over_and_refuses_another_shape(void)
{
    CUfunction quick = kernel_of(0), slow = kernel_of(40);
    CUgraph first, second, longer;
    CUgraphExec exec;
    CUgraphExecUpdateResultInfo info;
    ok(cuGraphCreate(&first, 0));
    ok(cuGraphCreate(&second, 0));
    ok(cuGraphCreate(&longer, 0));
    kernel_node(first, quick, NULL, 0);
    kernel_node(second, slow, NULL, 0);
    CUgraphNode node = kernel_node(longer, slow, NULL, 0);
    kernel_node(longer, slow, &node, 1);
    ok(cuGraphInstantiateWithFlags(&exec, first, 0));
    ok(cuGraphExecUpdate(exec, second, &info));
    same(info.result, CU_GRAPH_EXEC_UPDATE_SUCCESS);
    holds(launched(exec) >= 39);
    same(cuGraphExecUpdate(exec, longer, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    same(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
}

static void a_graph_within_a_graph_is_a_copy(void)
{
    CUgraph inner, outer;
    CUgraphExec exec;
    CUgraphNode child;
    CUgraphNodeType type;
    ok(cuGraphCreate(&inner, 0));
    ok(cuGraphCreate(&outer, 0));
    kernel_node(inner, kernel_of(40), NULL, 0);
    ok(cuGraphAddChildGraphNode(&child, outer, NULL, 0, inner));
    ok(cuGraphDestroy(inner));
    ok(cuGraphNodeGetType(child, &type));
    same(type, CU_GRAPH_NODE_TYPE_GRAPH);
    ok(cuGraphInstantiateWithFlags(&exec, outer, 0));
    holds(launched(exec) >= 39);
}

static void a_circle_is_no_graph(void)
{
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode nodes[2];
    ok(cuGraphCreate(&graph, 0));
    ok(cuGraphAddEmptyNode(&nodes[0], graph, NULL, 0));
    ok(cuGraphAddEmptyNode(&nodes[1], graph, nodes, 1));
    if (cuGraphAddDependencies(graph, &nodes[1], &nodes[0], NULL, 1) == CUDA_SUCCESS)
        holds(cuGraphInstantiateWithFlags(&exec, graph, 0) != CUDA_SUCCESS);
}

static volatile int destroyed;

static void CUDA_CB destroy(void *object)
{
    *(volatile int *)object += 1;
}

/* Destructors run on a thread of the driver, some time later. */
static int after_a_while(int wanted)
{
    for (int i = 0; i < 1000 && destroyed != wanted; i++)
        usleep(1000);
    return destroyed;
}

static void a_graph_keeps_objects_of_its_caller_alive(void)
{
    CUuserObject object, other;
    CUgraph graph, copy;
    CUgraphExec exec;
    ok(cuGraphCreate(&graph, 0));
    ok(cuUserObjectCreate(&object, (void *)&destroyed, destroy, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    ok(cuGraphRetainUserObject(graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE));
    ok(cuGraphClone(&copy, graph));
    ok(cuGraphInstantiate(&exec, copy, 0));
    ok(cuGraphDestroy(graph));
    ok(cuGraphDestroy(copy));
    ok(cuGraphLaunch(exec, NULL));
    ok(cuCtxSynchronize());
    usleep(5000);
    same(destroyed, 0);
    ok(cuGraphExecDestroy(exec));
    same(after_a_while(1), 1);

    /* References of the caller count as well. */
    ok(cuGraphCreate(&graph, 0));
    ok(cuUserObjectCreate(&other, (void *)&destroyed, destroy, 2, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    ok(cuGraphRetainUserObject(graph, other, 3, 0));
    ok(cuUserObjectRelease(other, 1));
    ok(cuGraphReleaseUserObject(graph, other, 3));
    usleep(5000);
    same(destroyed, 1);
    ok(cuUserObjectRetain(other, 1));
    ok(cuUserObjectRelease(other, 2));
    same(after_a_while(2), 2);
    /* References that nobody has are not asked about: releasing them is undefined. */
    same(cuUserObjectCreate(&other, NULL, NULL, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC), CUDA_ERROR_INVALID_VALUE);
    same(cuUserObjectCreate(&other, NULL, destroy, 1, 0), CUDA_ERROR_INVALID_VALUE);
    same(cuUserObjectCreate(&other, NULL, destroy, 0, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC), CUDA_ERROR_INVALID_VALUE);
}

const struct promise graphs[] = {
    PROMISE(branches_run_side_by_side_and_chains_one_after_the_other),
    PROMISE(an_executable_graph_does_not_change_with_its_graph),
    PROMISE(a_launch_waits_for_the_launch_before_it),
    PROMISE(nodes_copy_fill_and_call_in_their_order),
    PROMISE(an_update_takes_new_work_over_and_refuses_another_shape),
    PROMISE(a_graph_within_a_graph_is_a_copy),
    PROMISE(a_circle_is_no_graph),
    PROMISE(a_graph_keeps_objects_of_its_caller_alive),
    PROMISE(graph_memory_outlives_the_graph_that_it_was_instantiated_from),
    PROMISE(graph_memory_that_was_not_freed_forbids_the_next_launch),
    PROMISE(graph_memory_has_one_executable_graph_at_a_time),
    PROMISE(graph_memory_is_kept_for_the_device_until_it_is_trimmed),
    PROMISE(graph_memory_stays_used_when_its_executable_graph_is_gone),
    { 0 },
};
