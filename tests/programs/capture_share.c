/* Captures a stream while this thread and another one launch into other streams: MODE is 0 global, 1 thread-local,
 * 2 relaxed, as in CUstreamCaptureMode. Says how each call of the capture ended, how many nodes the graph has, and that
 * it can be launched. */
#include "common.h"

enum { NODES = 20 };

static CUfunction kernel;
static CUcontext context;
static volatile int over;
static volatile long beside;

static CUresult launch(CUstream stream) { return cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL); }

static void *other(void *unused)
{
    CUstream stream;
    must(cuCtxSetCurrent(context));
    must(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    while (!over) {
        must(launch(stream));
        beside++;
    }
    return unused;
}

int main(int argc, char **argv)
{
    CUmodule module;
    CUstream captured, free_stream;
    CUgraph graph;
    CUgraphExec replay;
    size_t nodes = 0;
    pthread_t thread;

    open_device();
    must(cuCtxGetCurrent(&context));
    must(cuModuleLoadData(&module, ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry busy_2ms()\n{\n    ret;\n}\n"));
    must(cuModuleGetFunction(&kernel, module, "busy_2ms"));
    must(cuStreamCreate(&captured, CU_STREAM_DEFAULT));
    must(cuStreamCreate(&free_stream, CU_STREAM_NON_BLOCKING));
    must(pthread_create(&thread, NULL, other, NULL));
    while (beside < 10)
        usleep(1000);
    must(cuStreamBeginCapture(captured, (CUstreamCaptureMode)number(argc, argv, 1, 0)));
    for (int i = 0; i < NODES; i++) {
        long before = beside;
        must(launch(captured));
        must(launch(free_stream));
        while (beside < before + 2)
            usleep(1000);
    }
    say("end", cuStreamEndCapture(captured, &graph));
    must(cuGraphGetNodes(graph, NULL, &nodes));
    say("nodes", (long long)nodes);
    must(cuGraphInstantiateWithFlags(&replay, graph, 0));
    over = 1;
    must(pthread_join(thread, NULL));
    must(cuGraphLaunch(replay, captured));
    must(cuCtxSynchronize());
    say("replayed", 1);
    return 0;
}
