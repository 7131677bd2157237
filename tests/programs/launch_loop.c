/* Launches one kernel (name, first argument) for some seconds (second), by the driver API alone, a few
 * ahead of the device as real programs are. Third argument: "plain", "ex", "graph" or "thread" (the
 * per-thread stream's variant); fourth: how many blocks a plain launch has. Says how many launches it made. */
#include "common.h"

enum { AHEAD = 4 };

static CUfunction kernel;
static CUstream stream;
static CUgraphExec graph;
static unsigned blocks;

static CUresult plain(void) { return cuLaunchKernel(kernel, blocks, 1, 1, 32, 1, 1, 0, stream, NULL, NULL); }
static CUresult thread(void) { return cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, CU_STREAM_PER_THREAD, NULL, NULL); }
static CUresult replay(void) { return cuGraphLaunch(graph, stream); }

static CUresult ex(void)
{
    CUlaunchConfig shape = { .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 32, .blockDimY = 1, .blockDimZ = 1, .hStream = stream };
    return cuLaunchKernelEx(&shape, kernel, NULL, NULL);
}

/* One graph of one kernel, captured from the stream. */
static void capture(void)
{
    CUgraph drawn;
    must(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    must(plain());
    must(cuStreamEndCapture(stream, &drawn));
    must(cuGraphInstantiateWithFlags(&graph, drawn, 0));
    must(cuGraphDestroy(drawn));
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "busy_5ms", *way = argc > 3 ? argv[3] : "plain";
    double until = seconds() + (argc > 2 ? atof(argv[2]) : 1.0);
    char image[512];
    CUmodule module;
    long launches = 0;

    blocks = (unsigned)number(argc, argv, 4, 1);
    snprintf(image, sizeof image,
             ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry %s()\n{\n    ret;\n}\n", name);
    open_device();
    must(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    must(cuModuleLoadData(&module, image));
    must(cuModuleGetFunction(&kernel, module, name));
    CUresult (*launch)(void) = strcmp(way, "ex") == 0 ? ex : strcmp(way, "graph") == 0 ? replay
                             : strcmp(way, "thread") == 0 ? thread : plain;
    if (launch == replay)
        capture();
    say("ready", getpid());
    while (seconds() < until) {
        must(launch());
        if (++launches % AHEAD == 0)
            must(cuCtxSynchronize());
    }
    must(cuCtxSynchronize());
    say("launches", launches);
    return 0;
}
