/* Launches one kernel for some seconds, by the driver API alone: KERNEL SECONDS WAY AHEAD BLOCKS NODES.
 * SECONDS is a number, or "told": until the test writes a line, or closes the pipe.
 * WAY is the call: plain, ex, cooperative, graph, each of them with _ptsz for the per-thread variant, thread (the
 * per-thread stream by its handle), the old old, grid and grid_async, or all (cooperative on several devices).
 * AHEAD is how many launches it makes before it waits for them, 4 if not given; below 0 it uses as many streams.
 * BLOCKS is the grid of all but the old ways, 1 if not given. NODES is how many kernels a graph has, 1 if not given.
 * Says how many launches it made.
 *
 * Kernels named like work_50us are told by a parameter how long they take, and write down when they ran. Afterwards the
 * program answers lines "FROM TO DEVICE" with how long at least one of its kernels ran then, from what they wrote. A kernel
 * that was stopped for another process may not see it: then it took longer than it was told, and it is not known how much of
 * it ran before FROM or behind TO. */
#include "common.h"
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* the old ways are meant */

enum { MOST = 16, ENTRIES = 1 << 20 };

static CUfunction kernel[MOST];
static CUstream streams[MOST], stream;
static CUgraphExec graph;
static int devices = 1;

typedef unsigned long long word;
static struct log {
    word next, capacity;
    struct entry { word begin, end; } entries[ENTRIES];
} seen;
static word lasts; /* how long a kernel is told to take, if it is told */
static CUdeviceptr logs[MOST];
static void *parameters[MOST][2], **told; /* those of the first device */

CUresult cuLaunchKernel_ptsz(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **, void **);
CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *, CUfunction, void **, void **);
CUresult cuLaunchCooperativeKernel_ptsz(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **);
CUresult cuGraphLaunch_ptsz(CUgraphExec, CUstream);

static unsigned blocks;

#define SHAPE blocks, 1, 1, 32, 1, 1, 0
#define CONFIGURATION(where) { .gridDimX = blocks, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 32, .blockDimY = 1, .blockDimZ = 1, .hStream = where }

static CUresult plain(void) { return cuLaunchKernel(*kernel, SHAPE, stream, told, NULL); }
static CUresult plain_ptsz(void) { return cuLaunchKernel_ptsz(*kernel, SHAPE, NULL, told, NULL); }
static CUresult thread(void) { return cuLaunchKernel(*kernel, SHAPE, CU_STREAM_PER_THREAD, told, NULL); }
static CUresult cooperative(void) { return cuLaunchCooperativeKernel(*kernel, SHAPE, stream, told); }
static CUresult cooperative_ptsz(void) { return cuLaunchCooperativeKernel_ptsz(*kernel, SHAPE, NULL, told); }
static CUresult replay(void) { return cuGraphLaunch(graph, stream); }
static CUresult replay_ptsz(void) { return cuGraphLaunch_ptsz(graph, NULL); }
static CUresult old(void) { return cuLaunch(*kernel); }
static CUresult grid(void) { return cuLaunchGrid(*kernel, 1, 1); }
static CUresult grid_async(void) { return cuLaunchGridAsync(*kernel, 1, 1, stream); }

static CUresult ex(void)
{
    CUlaunchConfig shape = CONFIGURATION(stream);
    return cuLaunchKernelEx(&shape, *kernel, told, NULL);
}

static CUresult ex_ptsz(void)
{
    CUlaunchConfig shape = CONFIGURATION(NULL);
    return cuLaunchKernelEx_ptsz(&shape, *kernel, told, NULL);
}

static CUresult all(void)
{
    CUDA_LAUNCH_PARAMS list[MOST];
    for (int i = 0; i < devices; i++)
        list[i] = (CUDA_LAUNCH_PARAMS){ kernel[i], SHAPE, streams[i], told ? parameters[i] : NULL };
    return cuLaunchCooperativeKernelMultiDevice(list, devices, 0);
}

static const struct { const char *name; CUresult (*launch)(void); } ways[] = {
    { "plain", plain }, { "plain_ptsz", plain_ptsz }, { "thread", thread }, { "ex", ex }, { "ex_ptsz", ex_ptsz },
    { "cooperative", cooperative }, { "cooperative_ptsz", cooperative_ptsz }, { "graph", replay },
    { "graph_ptsz", replay_ptsz }, { "old", old }, { "grid", grid }, { "grid_async", grid_async }, { "all", all },
};

/* One graph, captured from the stream. */
static void capture(long long nodes)
{
    CUgraph drawn;
    must(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    for (long long i = 0; i < nodes; i++)
        must(plain());
    must(cuStreamEndCapture(stream, &drawn));
    must(cuGraphInstantiateWithFlags(&graph, drawn, 0));
    must(cuGraphDestroy(drawn));
}

/* The kernel on one device, in its primary context, and a stream there. */
static void load(const char *name, int device)
{
    char image[512];
    CUcontext context;
    CUmodule module;
    snprintf(image, sizeof image,
             ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry %s(%s)\n{\n    ret;\n}\n", name,
             lasts ? ".param .u64 ns, .param .u64 log" : "");
    must(cuDevicePrimaryCtxRetain(&context, device));
    must(cuCtxSetCurrent(context));
    must(cuStreamCreate(&streams[device], CU_STREAM_NON_BLOCKING));
    must(cuModuleLoadData(&module, image));
    must(cuModuleGetFunction(&kernel[device], module, name));
    must(cuFuncSetBlockShape(kernel[device], 32, 1, 1));
    if (lasts) {
        word head[] = { 0, ENTRIES };
        must(cuMemAlloc(&logs[device], sizeof seen));
        must(cuMemcpyHtoD(logs[device], head, sizeof head));
        must(cuParamSetSize(kernel[device], sizeof lasts + sizeof *logs));
        must(cuParamSetv(kernel[device], 0, &lasts, sizeof lasts));
        must(cuParamSetv(kernel[device], sizeof lasts, &logs[device], sizeof *logs));
        parameters[device][0] = &lasts;
        parameters[device][1] = &logs[device];
        told = *parameters;
    }
}

/* How long a kernel takes that is told so, by its name. */
static word told_by(const char *name)
{
    char *unit;
    word number = strncmp(name, "work_", 5) ? 0 : strtoull(name + 5, &unit, 10);
    return number ? number * (*unit == 'm' ? 1000000 : *unit == 'u' ? 1000 : 1) : 0;
}

static int by_begin(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* What the kernels of a device have written, in the order of their begins. */
static word written(int device)
{
    CUcontext context;
    must(cuDevicePrimaryCtxRetain(&context, device));
    must(cuCtxSetCurrent(context));
    must(cuMemcpyDtoH(&seen, logs[device], sizeof seen));
    must(seen.next > ENTRIES);
    qsort(seen.entries, seen.next, sizeof *seen.entries, by_begin);
    return seen.next;
}

static void answer(void)
{
    char line[128];
    word from, to, count = 0;
    int device, of = -1;
    while (next_line(line, sizeof line)) {
        must(sscanf(line, "%llu %llu %d", &from, &to, &device) != 3);
        if (device != of)
            count = written(of = device);
        word sum = 0, until = from, unsure = 0;
        for (word i = 0; i < count; i++) {
            struct entry *one = &seen.entries[i];
            word took = one->end - one->begin, begin = one->begin > from ? one->begin : from;
            word end = one->end < to ? one->end : to;
            if (end <= begin)
                continue;
            if (took > lasts + 100) {
                sum += (word)((double)(end - begin) / took * lasts);
                unsure += end - begin < took ? lasts : 0;
            } else if (end > until) {
                sum += end - (begin > until ? begin : until);
                until = end;
            }
        }
        say("unsure_ns", (long long)unsure);
        say("wrote_ns", (long long)sum);
    }
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "busy_5ms", *way = argc > 3 ? argv[3] : "plain";
    long ahead = number(argc, argv, 4, 4), lanes = ahead < 0 ? -ahead : 1, launches = 0;
    CUresult (*launch)(void) = NULL;
    blocks = (unsigned)number(argc, argv, 5, 1);
    lasts = told_by(name);

    must(cuInit(0));
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(way, ways[i].name) == 0)
            launch = ways[i].launch;
    must(launch == NULL || lanes > MOST);
    if (launch == all)
        must(cuDeviceGetCount(&devices));
    for (int device = devices - 1; device >= 0; device--)
        load(name, device);
    for (int lane = 1; lane < lanes; lane++)
        must(cuStreamCreate(&streams[lane], CU_STREAM_NON_BLOCKING));
    stream = streams[0];
    if (launch == replay || launch == replay_ptsz)
        capture(number(argc, argv, 6, 1));
    say("ready", getpid());
    int listens = argc > 2 && strcmp(argv[2], "told") == 0;
    pthread_t listener = listens ? listen_for_end() : pthread_self();
    double until = seconds() + (argc > 2 ? atof(argv[2]) : 1.0);
    while (listens ? !told_to_end : seconds() < until) {
        stream = streams[launches % lanes];
        must(launch());
        if (++launches % (ahead < 0 ? 4 * lanes : ahead) == 0)
            must(cuCtxSynchronize());
    }
    must(cuCtxSynchronize());
    if (listens)
        must(pthread_join(listener, NULL));
    say("launches", launches);
    if (lasts)
        answer();
    return 0;
}
