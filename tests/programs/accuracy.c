/* A load for the accuracy bench: KERNELS SECONDS WAY AHEAD BLOCKS. KERNELS are names, separated by commas; each launch takes
 * one of them at random. WAY is sync (waits for each), async, streams (four of them) or graph (of AHEAD kernels).
 * AHEAD is how many launches it makes before it waits for them. SECONDS is a number, or "told": until the test writes a line
 * or closes the pipe. BLOCKS is the grid, because some libraries charge by it; the device knows a kernel's length by its
 * name. Says its pid, and at the end how many launches it made, the 99th percentile of how long a launch call took, and
 * that of a request: from the first of AHEAD launches until all are done. */
#include "common.h"

enum { KERNELS = 64, STREAMS = 4, SAMPLES = 1 << 16 };

static CUfunction kernel[KERNELS];
static CUstream streams[STREAMS];
static int kernels;
static unsigned blocks;
static unsigned long long dice = 88172645463325252ull;

static unsigned long long throw(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    return dice ^= dice << 17;
}

static CUresult launch(CUstream stream)
{
    return cuLaunchKernel(kernel[throw() % kernels], blocks, 1, 1, 256, 1, 1, 0, stream, NULL, NULL);
}

static void load(char *names)
{
    static char image[KERNELS * 80] = ".version 7.0\n.target sm_50\n.address_size 64\n";
    char *all[KERNELS], *rest = names;
    CUmodule module;
    for (char *name; kernels < KERNELS && (name = strsep(&rest, ",")); kernels++) {
        size_t end = strlen(image);
        snprintf(image + end, sizeof image - end, ".visible .entry %s()\n{\n    ret;\n}\n", name);
        all[kernels] = name;
    }
    must(cuModuleLoadData(&module, image));
    for (int i = 0; i < kernels; i++)
        must(cuModuleGetFunction(&kernel[i], module, all[i]));
}

static CUgraphExec draw(long count)
{
    CUgraph graph;
    CUgraphExec ready;
    /* Frameworks run what they capture once before. */
    must(launch(streams[0]));
    must(cuCtxSynchronize());
    must(cuStreamBeginCapture(streams[0], CU_STREAM_CAPTURE_MODE_GLOBAL));
    for (long i = 0; i < count; i++)
        must(launch(streams[0]));
    must(cuStreamEndCapture(streams[0], &graph));
    must(cuGraphInstantiateWithFlags(&ready, graph, 0));
    return ready;
}

/* Times, of which a random part is kept. */
struct times {
    long long kept[SAMPLES];
    unsigned long long seen;
};

static struct times launching, asking;

static void add(struct times *times, double took)
{
    unsigned long long place = times->seen < SAMPLES ? times->seen : throw() % SAMPLES;
    times->kept[place] = (long long)(took * 1e9);
    times->seen++;
}

static int ascending(const void *a, const void *b)
{
    long long difference = *(const long long *)a - *(const long long *)b;
    return (difference > 0) - (difference < 0);
}

static long long p99(struct times *times)
{
    unsigned long long known = times->seen < SAMPLES ? times->seen : SAMPLES;
    qsort(times->kept, known, sizeof *times->kept, ascending);
    return times->kept[known * 99 / 100];
}

int main(int argc, char **argv)
{
    const char *way = argc > 3 ? argv[3] : "sync";
    long ahead = number(argc, argv, 4, 8), launches = 0;
    int lanes = strcmp(way, "streams") == 0 ? STREAMS : 1;
    CUgraphExec graph = NULL;

    blocks = (unsigned)number(argc, argv, 5, 1 << 14);
    must(argc < 3);
    open_device();
    dice += (unsigned long long)getpid();
    load(argv[1]);
    for (int i = 0; i < STREAMS; i++)
        must(cuStreamCreate(&streams[i], CU_STREAM_NON_BLOCKING));
    if (strcmp(way, "graph") == 0)
        graph = draw(ahead);
    if (strcmp(way, "sync") == 0 || graph)
        ahead = 1;
    say("ready", getpid());
    int listens = strcmp(argv[2], "told") == 0;
    if (listens)
        listen_for_end();
    double until = seconds() + atof(argv[2]), first = 0;
    for (double now = seconds(); listens ? !told_to_end : now < until;) {
        double before = now;
        if (launches % ahead == 0)
            first = before;
        must(graph ? cuGraphLaunch(graph, streams[0]) : launch(streams[launches % lanes]));
        now = seconds();
        add(&launching, now - before);
        if (++launches % ahead == 0) {
            must(cuCtxSynchronize());
            now = seconds();
            add(&asking, now - first);
        }
    }
    must(cuCtxSynchronize());
    say("p99_ns", p99(&launching));
    say("p99_request_ns", p99(&asking));
    say("launches", launches);
    return 0;
}
