/* Kernels that take as long as they are told and write down when they ran: WAY COUNT NANOSECONDS.
 * steps: kernels of 1, 2, 3, .. times as long, back to back, with events between; many: kernels without a look between.
 * turns: kernels that the host waits for, and what lies between one and the next;
 * graph: a graph of COUNT kernels, launched three times; ways: every call that launches one;
 * looks: every way to see what was written; refusals: what is no log or no parameter. */
#include "common.h"

enum { MOST = 4096 };
typedef unsigned long long word;

static struct log {
    word next, capacity, entry[MOST][2];
} seen;
static CUfunction kernel;
static CUdeviceptr log_;
static CUstream stream;

CUresult cuLaunchKernel_ptsz(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **, void **);
CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *, CUfunction, void **, void **);
CUresult cuLaunchCooperativeKernel_ptsz(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **);

#define SHAPE 1, 1, 1, 32, 1, 1, 0

static void clear(CUdeviceptr log, word capacity)
{
    must(cuMemsetD8(log, 0, sizeof seen));
    must(cuMemcpyHtoD(log + 8, &capacity, sizeof capacity));
}

static void look(void) { must(cuMemcpyDtoH(&seen, log_, sizeof seen)); }

/* What is passed means nothing any more once the call is back. */
static CUresult launch(word time, CUdeviceptr log)
{
    void *parameters[] = { &time, &log };
    CUresult rc = cuLaunchKernel(kernel, SHAPE, stream, parameters, NULL);
    time = 1000000000, log = 0;
    return rc;
}

static void say_spans(void)
{
    word sum = 0;
    int disorder = 0;
    for (word i = 0; i < seen.next && i < MOST; i++) {
        sum += seen.entry[i][1] - seen.entry[i][0];
        disorder += seen.entry[i][1] < seen.entry[i][0] || (i && seen.entry[i][0] < seen.entry[i - 1][1]);
    }
    say("stamps", seen.next);
    say("sum_ns", sum);
    say("disorder", disorder);
    if (seen.next && seen.next <= MOST) {
        say("first_ns", seen.entry[0][0]);
        say("last_ns", seen.entry[seen.next - 1][1]);
    }
}

static void steps(int count, word unit)
{
    CUevent event[MOST];
    long long wrong = 0, off = 0;
    /* Long enough that even a busy host has submitted all the rest meanwhile. */
    must(launch(200 * unit, log_));
    for (int i = 0; i <= count; i++) {
        must(cuEventCreate(&event[i], CU_EVENT_DEFAULT));
        must(cuEventRecord(event[i], stream));
        if (i < count)
            must(launch((i + 1) * unit, log_));
    }
    must(cuCtxSynchronize());
    look();
    for (int i = 0; i < count; i++) {
        float ms;
        word *entry = seen.entry[i + 1];
        long long took = entry[1] - entry[0];
        must(cuEventElapsedTime(&ms, event[i], event[i + 1]));
        wrong += took != (long long)((i + 1) * unit);
        off = llabs((long long)(ms * 1e6) - took) > off ? llabs((long long)(ms * 1e6) - took) : off;
    }
    say("wrong", wrong);
    say("off_ns", off);
    say_spans();
}

static int order(const void *a, const void *b)
{
    word left = *(const word *)a, right = *(const word *)b;
    return (left > right) - (left < right);
}

/* Half of the pauses between kernels are no longer than gap; half of those of more than 100 us no longer than stop. */
static void say_gaps(void)
{
    static word gaps[MOST];
    int count = (int)seen.next - 1, longer = 0;
    for (int i = 0; i < count; i++)
        gaps[i] = seen.entry[i + 1][0] - seen.entry[i][1];
    qsort(gaps, count, sizeof *gaps, order);
    while (longer < count && gaps[longer] < 100000)
        longer++;
    say("gap_ns", gaps[count / 2]);
    say("stops", count - longer);
    say("stop_ns", longer < count ? gaps[longer + (count - longer) / 2] : 0);
}

static void turns(int count, word unit)
{
    say("ready", getpid());
    wait_for_test();
    for (int i = 0; i < count; i++) {
        must(launch(unit, log_));
        must(cuStreamSynchronize(stream));
    }
    look();
    say_gaps();
}

static void many(int count, word unit)
{
    say("ready", getpid());
    wait_for_test();
    for (int i = 0; i < count; i++)
        must(launch(unit, log_));
    look();
    say_spans();
    if (count > 1)
        say_gaps();
}

static void graph(int count, word unit)
{
    CUgraph drawn;
    CUgraphExec exec;
    CUgraphNode nodes[64];
    size_t found = 64;
    must(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    for (int i = 0; i < count; i++)
        must(launch(unit, log_));
    must(cuStreamEndCapture(stream, &drawn));
    must(cuGraphInstantiateWithFlags(&exec, drawn, 0));
    for (int i = 0; i < 3; i++)
        must(cuGraphLaunch(exec, stream));
    look();
    say_spans();
    must(cuGraphGetNodes(drawn, nodes, &found));
    word twice = 2 * unit;
    void *parameters[] = { &twice, &log_ };
    CUDA_KERNEL_NODE_PARAMS node = { .func = kernel, .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 32, .blockDimY = 1, .blockDimZ = 1, .kernelParams = parameters };
    must(cuGraphExecKernelNodeSetParams(exec, nodes[0], &node));
    twice = 0;
    clear(log_, MOST);
    must(cuGraphLaunch(exec, stream));
    look();
    say("set_ns", seen.entry[0][1] - seen.entry[0][0]);
    say("next_ns", seen.entry[1][1] - seen.entry[1][0]);
    twice = 3 * unit;
    must(cuGraphKernelNodeSetParams(nodes[0], &node));
    twice = 0;
    must(cuGraphExecDestroy(exec));
    must(cuGraphInstantiateWithFlags(&exec, drawn, 0));
    must(cuGraphLaunch(exec, stream));
    look();
    say("set_in_graph_ns", seen.entry[count][1] - seen.entry[count][0]);
    /* A copy of the log within a graph comes after the kernels that write it. */
    must(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    must(launch(unit, log_));
    must(cuMemcpyDtoHAsync(&seen, log_, sizeof seen, stream));
    must(cuStreamEndCapture(stream, &drawn));
    must(cuGraphInstantiateWithFlags(&exec, drawn, 0));
    must(cuGraphLaunch(exec, stream));
    must(cuStreamSynchronize(stream));
    say("copied_by_graph", seen.next == (word)(2 * count + 1));
}

static void ways(word unit)
{
    word packed[] = { unit, log_ };
    size_t size = sizeof packed;
    void *parameters[] = { &packed[0], &packed[1] };
    void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END };
    CUlaunchConfig shape = { .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 32, .blockDimY = 1, .blockDimZ = 1 };
    must(cuLaunchKernel(kernel, SHAPE, NULL, parameters, NULL));
    must(cuLaunchKernel(kernel, SHAPE, NULL, NULL, extra));
    must(cuLaunchKernel_ptsz(kernel, SHAPE, NULL, parameters, NULL));
    must(cuLaunchKernelEx(&shape, kernel, parameters, NULL));
    must(cuLaunchKernelEx_ptsz(&shape, kernel, NULL, extra));
    must(cuLaunchCooperativeKernel(kernel, SHAPE, NULL, parameters));
    must(cuLaunchCooperativeKernel_ptsz(kernel, SHAPE, NULL, parameters));
    look();
    say_spans();
}

static void looks(word unit)
{
    CUevent event;
    CUdeviceptr shared;
    must(cuEventCreate(&event, CU_EVENT_DEFAULT));
    must(cuMemAllocManaged(&shared, sizeof seen, CU_MEM_ATTACH_GLOBAL));
    struct log *volatile host = (struct log *)(uintptr_t)shared;
#define LOOK(key, way)                                                                                                 \
    do {                                                                                                               \
        clear(shared, MOST);                                                                                           \
        must(cuCtxSynchronize());                                                                                      \
        must(launch(unit, shared));                                                                                    \
        must(cuEventRecord(event, stream));                                                                            \
        way;                                                                                                           \
        say(key, host->next);                                                                                          \
    } while (0)
    LOOK("context", must(cuCtxSynchronize()));
    LOOK("stream", must(cuStreamSynchronize(stream)));
    LOOK("event", must(cuEventSynchronize(event)));
    LOOK("stream_query", while (cuStreamQuery(stream)));
    LOOK("event_query", while (cuEventQuery(event)));
    LOOK("copied", must(cuMemcpyDtoH(&seen, shared, sizeof seen)); host->next = seen.next);
    LOOK("copied_later", must(cuMemcpyDtoHAsync(&seen, shared, sizeof seen, stream)); must(cuStreamSynchronize(stream)); host->next = seen.next);
    LOOK("set", must(cuMemsetD8Async(shared, 0, 8, stream)); must(cuStreamSynchronize(stream)));
    LOOK("waited_for", must(cuStreamWaitValue64(stream, shared, 1, CU_STREAM_WAIT_VALUE_GEQ)); must(cuStreamSynchronize(stream)));
    clear(shared, 4);
    for (int i = 0; i < 10; i++)
        must(launch(unit, shared));
    must(cuCtxSynchronize());
    say("round", host->next == 10 && host->entry[1][0] > host->entry[2][0] && host->entry[4][0] == 0);
}

static void refusals(void)
{
    word packed[] = { 1, log_ }, host[8] = { 0, 2 };
    size_t size = 8;
    void *parameters[] = { &packed[0], NULL };
    void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END };
    say("none", cuLaunchKernel(kernel, SHAPE, stream, NULL, NULL));
    say("null", cuLaunchKernel(kernel, SHAPE, stream, parameters, NULL));
    say("short", cuLaunchKernel(kernel, SHAPE, stream, NULL, extra));
    must(launch(1, 0));
    must(launch(1, log_ + 4));
    must(launch(1, (CUdeviceptr)(uintptr_t)host));
    must(launch(1, log_ + sizeof seen - 16));
    clear(log_, 0);
    must(launch(1, log_));
    look();
    say("stamps", seen.next + host[0]);
    clear(log_, ~0ull / 16);
    must(launch(1, log_));
    look();
    say("stamps_too_long", seen.next);
}

int main(int argc, char **argv)
{
    const char *way = argc > 1 ? argv[1] : "steps";
    int count = (int)number(argc, argv, 2, 10);
    word unit = (word)number(argc, argv, 3, 100000);
    CUmodule module;
    open_device();
    must(cuModuleLoadData(&module, ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry work_stamped(.param .u64 a, .param .u64 b)\n{\n    ret;\n}\n"));
    must(cuModuleGetFunction(&kernel, module, "work_stamped"));
    must(cuStreamCreate(&stream, CU_STREAM_DEFAULT));
    must(cuMemAlloc(&log_, sizeof seen));
    clear(log_, MOST);
    switch (*way) {
    case 's': steps(count, unit); break;
    case 'm': many(count, unit); break;
    case 't': turns(count, unit); break;
    case 'g': graph(count, unit); break;
    case 'w': ways(unit); break;
    case 'l': looks(unit); break;
    default: refusals();
    }
    return 0;
}
