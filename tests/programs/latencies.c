/* What each call takes on each device of the machine, in microseconds, and how far apart kernels begin whose streams lie on
 * different devices. With an argument the context of the first device is current in whatever calls that allow it. */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>
#include "common.h"

enum { MOST = 8, KERNELS = 5 };

static struct card {
    CUcontext context;
    CUmodule module;
    CUfunction kernel;
    CUstream stream;
    CUevent event;
    CUdeviceptr memory;
    nvmlDevice_t card;
} all[MOST];

static const char image[] = ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry busy_1ms()\n{\n    ret;\n}\n";

#define TAKES(key, i, call)                                                            \
    do {                                                                               \
        char name_[64];                                                                \
        double from_ = seconds();                                                      \
        must(call);                                                                    \
        snprintf(name_, sizeof name_, "%s_%d", key, i);                                \
        say(name_, (long long)((seconds() - from_) * 1e6));                            \
    } while (0)

static CUkernel of_library;

static CUresult launch_of(CUfunction kernel, CUstream stream) { return cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL); }
static CUresult launch(const struct card *it) { return launch_of(it->kernel, it->stream); }

static void calls(int i, struct card *it, int elsewhere)
{
    nvmlProcessInfo_t processes[MOST];
    unsigned listed = MOST;
    size_t free, total;
    TAKES("context", i, cuDevicePrimaryCtxRetain(&it->context, i));
    must(cuCtxSetCurrent(it->context));
    TAKES("module", i, cuModuleLoadData(&it->module, image));
    must(cuModuleGetFunction(&it->kernel, it->module, "busy_1ms"));
    must(cuStreamCreate(&it->stream, CU_STREAM_NON_BLOCKING));
    must(cuEventCreate(&it->event, CU_EVENT_DEFAULT));
    TAKES("allocate", i, cuMemAlloc(&it->memory, MIB));
    TAKES("memory_info", i, cuMemGetInfo(&free, &total));
    if (elsewhere)
        must(cuCtxSetCurrent(all[0].context));
    TAKES("first_launch", i, launch(it));
    TAKES("launch", i, launch(it));
    TAKES("library_launch", i, launch_of((CUfunction)of_library, it->stream));
    TAKES("wait", i, cuStreamSynchronize(it->stream));
    TAKES("synchronize", i, cuStreamSynchronize(it->stream));
    TAKES("record", i, cuEventRecord(it->event, it->stream));
    must(cuStreamSynchronize(it->stream));
    TAKES("query", i, cuEventQuery(it->event));
    TAKES("stream_query", i, cuStreamQuery(it->stream));
    TAKES("free", i, cuMemFree(it->memory));
    CUgraph graph;
    CUgraphExec exec;
    must(cuStreamBeginCapture(it->stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    for (int k = 0; k < KERNELS; k++)
        must(launch(it));
    must(cuStreamEndCapture(it->stream, &graph));
    must(cuGraphInstantiateWithFlags(&exec, graph, 0));
    TAKES("graph", i, cuGraphLaunch(exec, it->stream) || cuStreamSynchronize(it->stream));
    must(nvmlDeviceGetHandleByIndex_v2(i, &it->card));
    TAKES("processes", i, nvmlDeviceGetComputeRunningProcesses_v3(it->card, &listed, processes));
}

int main(int argc, char **argv)
{
    int count;
    CUlibrary library;
    (void)argv;
    must(cuInit(0));
    must(nvmlInit_v2());
    must(cuLibraryLoadData(&library, image, NULL, NULL, 0, NULL, NULL, 0));
    must(cuLibraryGetKernel(&of_library, library, "busy_1ms"));
    must(cuDeviceGetCount(&count));
    for (int i = 0; i < count && i < MOST; i++)
        calls(i, &all[i], argc > 1);
    /* All devices have their kernels at once; the last one is waited for first. */
    double from = seconds();
    for (int i = 0; i < count; i++) {
        must(cuCtxSetCurrent(all[i].context));
        for (int k = 0; k < KERNELS; k++)
            must(launch(&all[i]));
    }
    for (int i = count; i-- > 0;) {
        char name[64];
        must(cuStreamSynchronize(all[i].stream));
        snprintf(name, sizeof name, "kernels_%d", i);
        say(name, (long long)((seconds() - from) * 1e6));
    }
    return 0;
}
