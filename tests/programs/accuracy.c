/* A load for the accuracy bench: KERNELS SECONDS WAY AHEAD. KERNELS are names, separated by commas; each launch takes
 * one of them at random. WAY is sync (waits for each), async, streams (four of them) or graph (of AHEAD kernels).
 * AHEAD is how many launches it makes before it waits for them. SECONDS is a number, or "told": until the test writes a line
 * or closes the pipe. Says its pid, and at the end how many launches it made
 * and the 99th percentile of how long a launch call took. */
#include "common.h"

enum { KERNELS = 64, STREAMS = 4, SAMPLES = 1 << 16, BLOCKS = 1 << 14 /* some libraries charge by these */ };

static CUfunction kernel[KERNELS];
static CUstream streams[STREAMS];
static int kernels;
static long long samples[SAMPLES];
static unsigned long long dice = 88172645463325252ull;

static unsigned long long throw(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    return dice ^= dice << 17;
}

static CUresult launch(CUstream stream)
{
    return cuLaunchKernel(kernel[throw() % kernels], BLOCKS, 1, 1, 256, 1, 1, 0, stream, NULL, NULL);
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
    must(cuStreamBeginCapture(streams[0], CU_STREAM_CAPTURE_MODE_GLOBAL));
    for (long i = 0; i < count; i++)
        must(launch(streams[0]));
    must(cuStreamEndCapture(streams[0], &graph));
    must(cuGraphInstantiateWithFlags(&ready, graph, 0));
    return ready;
}

static int ascending(const void *a, const void *b)
{
    long long difference = *(const long long *)a - *(const long long *)b;
    return (difference > 0) - (difference < 0);
}

int main(int argc, char **argv)
{
    const char *way = argc > 3 ? argv[3] : "sync";
    long ahead = number(argc, argv, 4, 8), launches = 0;
    int lanes = strcmp(way, "streams") == 0 ? STREAMS : 1;
    CUgraphExec graph = NULL;

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
    double until = seconds() + atof(argv[2]);
    for (double now = seconds(); listens ? !told_to_end : now < until;) {
        double before = now;
        must(graph ? cuGraphLaunch(graph, streams[0]) : launch(streams[launches % lanes]));
        now = seconds();
        samples[launches < SAMPLES ? (unsigned long long)launches : throw() % SAMPLES] = (long long)((now - before) * 1e9);
        if (++launches % ahead == 0) {
            must(cuCtxSynchronize());
            now = seconds();
        }
    }
    must(cuCtxSynchronize());
    long known = launches < SAMPLES ? launches : SAMPLES;
    qsort(samples, known, sizeof *samples, ascending);
    say("p99_ns", samples[known * 99 / 100]);
    say("launches", launches);
    return 0;
}
