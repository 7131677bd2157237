/* What comes and goes, beside `other.c` and `other_rare.c`: contexts, green contexts, pools, executable graphs, events. A
 * handle that was given back is the first one to be given out again. */
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef cuEventElapsedTime

void other_returns(const char *);
void other_leaves(CUcontext, CUcontext);
CUresult cuCtxGetCurrent(CUcontext *);
CUresult cuMemAlloc_v2(CUdeviceptr *, size_t);
CUresult cuMemFree_v2(CUdeviceptr);
CUresult cuMemGetAddressRange_v2(CUdeviceptr *, size_t *, CUdeviceptr);

enum { MOST = 64 };

static struct { long uses; } contexts[MOST], greens[MOST];
static struct { long lives; size_t held; } pools[MOST];
static struct { long lives; } execs[MOST], events[4096], streams[MOST];
static int of_memory[4096], context_of_green[MOST], primary = -1;
static long events_now, events_peak, streams_now, streams_peak, launches;
static int gpu_is_busy;

__attribute__((destructor)) static void report(void)
{
    printf("driver_events_peak=%ld\ndriver_streams_peak=%ld\ndriver_events=%ld\ndriver_launches=%ld\n", events_peak,
           streams_peak, events_now, launches);
}

/* The first free one of a table of structures that begin with a long. */
static int first_free(void *table, size_t size, int most)
{
    for (int i = 0; i < most; i++)
        if (!*(long *)((char *)table + i * size))
            return i;
    abort();
}

#define FREE(table) first_free(table, sizeof table[0], (int)(sizeof table / sizeof table[0]))
#define INDEX(table, handle) (int)(((char *)(handle) - (char *)table) / sizeof table[0])

static CUcontext new_context(void)
{
    int i = FREE(contexts);
    contexts[i].uses = 1;
    return (CUcontext)&contexts[i];
}

static CUresult leave(CUcontext context, const char *call)
{
    if (!context || !contexts[INDEX(contexts, context)].uses)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!--contexts[INDEX(contexts, context)].uses) {
        other_leaves(context, NULL);
        if (primary == INDEX(contexts, context))
            primary = -1;
    }
    other_returns(call);
    return CUDA_SUCCESS;
}

CUresult cuCtxCreate_v2(CUcontext *out, unsigned flags, CUdevice device)
{
    *out = new_context();
    return flags || device ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuCtxDestroy_v2(CUcontext context)
{
    return leave(context, "cuCtxDestroy");
}

CUresult cuCtxDetach(CUcontext context)
{
    return leave(context, "cuCtxDetach");
}

CUresult cuCtxAttach(CUcontext *out, unsigned flags)
{
    cuCtxGetCurrent(out);
    contexts[INDEX(contexts, *out)].uses++;
    return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version)
{
    *version = 12000;
    return contexts[INDEX(contexts, context)].uses ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
    if (primary < 0) {
        *out = new_context();
        primary = INDEX(contexts, *out);
    } else {
        *out = (CUcontext)&contexts[primary];
        contexts[primary].uses++;
    }
    return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    if (device || primary < 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    return leave((CUcontext)&contexts[primary], "cuDevicePrimaryCtxRelease");
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active)
{
    *flags = 0;
    *active = primary >= 0;
    return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

/* A green context is not the context that one makes current. Its memory goes with it, or stays with the device. */
CUresult cuGreenCtxCreate(CUgreenCtx *out, CUdevResourceDesc how, CUdevice device, unsigned flags)
{
    CUcontext ignored;
    int i = FREE(greens);
    greens[i].uses = 1;
    context_of_green[i] = INDEX(contexts, new_context());
    *out = (CUgreenCtx)&greens[i];
    cuDevicePrimaryCtxRetain(&ignored, device);
    (void)how;
    return flags == CU_GREEN_CTX_DEFAULT_STREAM ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuCtxFromGreenCtx(CUcontext *out, CUgreenCtx green)
{
    *out = (CUcontext)&contexts[context_of_green[INDEX(greens, green)]];
    return greens[INDEX(greens, green)].uses ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuGreenCtxDestroy(CUgreenCtx green)
{
    int i = INDEX(greens, green);
    if (!greens[i].uses)
        return CUDA_ERROR_INVALID_HANDLE;
    greens[i].uses = 0;
    CUcontext context = (CUcontext)&contexts[context_of_green[i]];
    if (getenv("OTHER_GREEN_KEEPS"))
        other_leaves(context, (CUcontext)&contexts[primary]);
    leave(context, "none");
    leave((CUcontext)&contexts[primary], "none");
    other_returns("cuGreenCtxDestroy");
    return CUDA_SUCCESS;
}

CUresult cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *how)
{
    int i = FREE(pools);
    pools[i].lives = 1;
    pools[i].held = 0;
    *out = (CUmemoryPool)&pools[i];
    return how ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    int i = INDEX(pools, pool);
    if (!pools[i].lives)
        return CUDA_ERROR_INVALID_VALUE;
    pools[i].lives = 0;
    for (int at = 0; at < 4096; at++)
        if (of_memory[at] == i + 1)
            of_memory[at] = 0;
    other_returns("cuMemPoolDestroy");
    return CUDA_SUCCESS;
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    (void)keep;
    return pools[INDEX(pools, pool)].lives ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
    (void)attribute;
    *(cuuint64_t *)value = pools[INDEX(pools, pool)].held;
    return pools[INDEX(pools, pool)].lives ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr *memory, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    int i = INDEX(pools, pool);
    CUresult answer = pools[i].lives && !stream ? cuMemAlloc_v2(memory, bytes) : CUDA_ERROR_INVALID_VALUE;
    if (answer == CUDA_SUCCESS) {
        pools[i].held += bytes;
        of_memory[(*memory >> 40) - 1] = i + 1;
    }
    return answer;
}

CUresult cuMemFreeAsync(CUdeviceptr memory, CUstream stream)
{
    CUdeviceptr base;
    size_t bytes, at = (memory >> 40) - 1;
    if (stream || cuMemGetAddressRange_v2(&base, &bytes, memory) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_VALUE;
    if (of_memory[at])
        pools[of_memory[at] - 1].held -= bytes;
    of_memory[at] = 0;
    return cuMemFree_v2(memory);
}

/* A graph is a number of bytes that its one allocation node takes at every launch; the device keeps them. */
static size_t graph_held;

CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    if (nodes)
        nodes[0] = (CUgraphNode)graph;
    *count = 1;
    return CUDA_SUCCESS;
}

CUresult cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType *type)
{
    *type = CU_GRAPH_NODE_TYPE_MEM_ALLOC;
    return node ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *out)
{
    memset(out, 0, sizeof *out);
    out->poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    out->bytesize = (size_t)node;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph, unsigned long long flags)
{
    int i = FREE(execs);
    execs[i].lives = (long)(size_t)graph;
    *out = (CUgraphExec)&execs[i];
    return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    execs[INDEX(execs, exec)].lives = 0;
    other_returns("cuGraphExecDestroy");
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    CUdeviceptr memory;
    size_t bytes = (size_t)execs[INDEX(execs, exec)].lives;
    if (stream || cuMemAlloc_v2(&memory, bytes) != CUDA_SUCCESS)
        return CUDA_ERROR_OUT_OF_MEMORY;
    graph_held += bytes;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attribute, void *value)
{
    (void)attribute;
    *(cuuint64_t *)value = graph_held;
    return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

/* Every kernel takes 2 ms by its events, or what the environment says, and runs until the program says that the device is
 * idle. */
void other_gpu_is_busy(int busy)
{
    gpu_is_busy = busy;
}

CUresult cuEventCreate(CUevent *out, unsigned flags)
{
    int i = FREE(events);
    events[i].lives = 1;
    *out = (CUevent)&events[i];
    events_peak = ++events_now > events_peak ? events_now : events_peak;
    return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent event)
{
    events_now--;
    events[INDEX(events, event)].lives = 0;
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    (void)stream;
    return event ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuEventQuery(CUevent event)
{
    return !event ? CUDA_ERROR_INVALID_HANDLE : gpu_is_busy ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent from, CUevent to)
{
    const char *given = getenv("OTHER_KERNEL_MS");
    *milliseconds = given ? strtof(given, NULL) : 2;
    return from && to ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuStreamCreate(CUstream *out, unsigned flags)
{
    int i = FREE(streams);
    streams[i].lives = 1;
    *out = (CUstream)&streams[i];
    streams_peak = ++streams_now > streams_peak ? streams_now : streams_peak;
    return flags == CU_STREAM_NON_BLOCKING ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuStreamQuery(CUstream stream)
{
    (void)stream;
    return gpu_is_busy ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    return stream && event && !flags ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status)
{
    (void)stream;
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void)
{
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                        unsigned bz, unsigned shared, CUstream stream, void **parameters, void **extra)
{
    launches++;
    (void)shared, (void)stream, (void)parameters, (void)extra;
    return function && gx * gy * gz * bx * by * bz != 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
