/* Stream-ordered memory and the memory of graphs, as the test tells it, line by line: "keep" (the pool gives nothing
 * back by itself), "create" (another pool from now on), "destroy" (it), "take BYTES" and "give" (the oldest, in stream
 * order), "sync", "plain BYTES" and "drop" (the newest plain one), "graph BYTES" (makes one that takes as much and gives
 * it back), "launch", "end" (destroys the graph), "trim" (the graphs' memory), "info". */
#include "common.h"

static CUdevice device;
static CUstream stream;
static CUmemoryPool pool;
static CUdeviceptr ordered[64], plain[64];
static int first, last, plains;
static CUgraph drawn;
static CUgraphExec graph;

static CUresult take(size_t bytes)
{
    CUresult rc = pool ? cuMemAllocFromPoolAsync(&ordered[last], bytes, pool, stream)
                       : cuMemAllocAsync(&ordered[last], bytes, stream);
    last += rc == CUDA_SUCCESS;
    return rc;
}

static CUresult draw(size_t bytes)
{
    CUdeviceptr memory;
    must(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    must(cuMemAllocAsync(&memory, bytes, stream));
    must(cuMemsetD8Async(memory, 1, 16, stream));
    must(cuMemFreeAsync(memory, stream));
    must(cuStreamEndCapture(stream, &drawn));
    return cuGraphInstantiateWithFlags(&graph, drawn, 0);
}

static CUresult create(void)
{
    CUmemPoolProps properties = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                  .location.type = CU_MEM_LOCATION_TYPE_DEVICE, .location.id = device };
    return cuMemPoolCreate(&pool, &properties);
}

static CUresult keep(void)
{
    cuuint64_t all = ~0ull;
    CUmemoryPool own;
    must(cuDeviceGetDefaultMemPool(&own, device));
    return cuMemPoolSetAttribute(pool ? pool : own, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all);
}

int main(void)
{
    char line[64], word[16];
    unsigned long long bytes;

    device = open_device();
    must(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    say("pid", getpid());
    while (next_line(line, sizeof line)) {
        int words = sscanf(line, "%15s %llu", word, &bytes);
        CUresult rc;
        if (words == 2 && strcmp(word, "take") == 0)
            rc = take(bytes);
        else if (words == 2 && strcmp(word, "plain") == 0)
            plains += (rc = cuMemAlloc(&plain[plains], bytes)) == CUDA_SUCCESS;
        else if (words == 2 && strcmp(word, "graph") == 0)
            rc = draw(bytes);
        else if (strcmp(word, "keep") == 0)
            rc = keep();
        else if (strcmp(word, "create") == 0)
            rc = create();
        else if (strcmp(word, "destroy") == 0)
            rc = cuMemPoolDestroy(pool);
        else if (strcmp(word, "give") == 0)
            rc = cuMemFreeAsync(ordered[first++], stream);
        else if (strcmp(word, "drop") == 0)
            rc = cuMemFree(plain[--plains]);
        else if (strcmp(word, "sync") == 0)
            rc = cuStreamSynchronize(stream);
        else if (strcmp(word, "launch") == 0)
            rc = cuGraphLaunch(graph, stream);
        else if (strcmp(word, "end") == 0)
            rc = cuGraphExecDestroy(graph) || cuGraphDestroy(drawn);
        else if (strcmp(word, "trim") == 0)
            rc = cuDeviceGraphMemTrim(device);
        else {
            say_memory();
            continue;
        }
        say("rc", rc);
    }
    return 0;
}
