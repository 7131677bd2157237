/* A load that times itself on the device, told line by line what to do:
 *
 *   rate KERNEL                                         how many rounds of a work kernel take a millisecond
 *   cell KERNEL VALUE WAY AHEAD GAP_US SECONDS LOG      launches for so long, then writes the stamps to LOG ("-": nowhere)
 *
 * VALUE is the kernel's argument: nanoseconds of a spin kernel, rounds of a work kernel. WAY is async, streams (four in turn)
 * or graphN, a graph of N kernels that is one launch. After AHEAD launches it waits for them, and then GAP_US more on the
 * host; AHEAD 1 is a program that waits for each. Says how many launches it made, how long a launch call took (p50_ns,
 * p99_ns), how long a step from its first launch to the end of its wait (step_p50_ns, step_p99_ns), and "done=1". */
#include "kit.h"

enum { STREAMS = 4, SAMPLES = 1 << 16, ENTRIES = 1 << 20 };

static CUmodule module;
static CUstream streams[STREAMS];
static CUdeviceptr stamps;
static unsigned long long dice = 88172645463325252ull;

struct samples {
    long long all[SAMPLES];
    long seen;
};

static struct samples calls, steps;

/* Keeps a fair choice of all samples. */
static void keep(struct samples *of, long long value)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    unsigned long long at = of->seen < SAMPLES ? (unsigned long long)of->seen : dice % (of->seen + 1);
    if (at < SAMPLES)
        of->all[at] = value;
    of->seen++;
}

static void say_samples(const char *p50, const char *p99, struct samples *of)
{
    long count = of->seen < SAMPLES ? of->seen : SAMPLES;
    say(p50, per_mille(of->all, count, 500));
    say(p99, per_mille(of->all, count, 990));
    of->seen = 0;
}

static CUgraphExec graph_of(CUfunction kernel, unsigned long long value, long count)
{
    CUgraph graph;
    CUgraphExec ready;
    must(cuStreamBeginCapture(streams[0], CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    for (long i = 0; i < count; i++)
        must(launch_stamped(kernel, value, stamps, streams[0]));
    must(cuStreamEndCapture(streams[0], &graph));
    must(cuGraphInstantiateWithFlags(&ready, graph, 0));
    must(cuGraphDestroy(graph));
    return ready;
}

static void write_stamps(const char *path)
{
    unsigned long long count = entries_of(stamps);
    struct entry *entries = calloc(count + 1, sizeof *entries);
    FILE *file = fopen(path, "w");
    must(entries == NULL || file == NULL);
    read_entries(stamps, entries, count);
    must(fwrite(entries, sizeof *entries, count, file) != count || fclose(file));
    free(entries);
}

static void cell(const char *name, unsigned long long value, const char *way, long ahead, long gap_us, double lasts,
                 const char *log)
{
    CUfunction kernel = function_of(module, name);
    long in_graph = strncmp(way, "graph", 5) == 0 ? atol(way + 5) : 0, launches = 0;
    int lanes = strcmp(way, "streams") == 0 ? STREAMS : 1;
    CUgraphExec graph = in_graph ? graph_of(kernel, value, in_graph) : NULL;

    clear_log(stamps);
    long long start = nanoseconds(), until = start + (long long)(lasts * 1e9), step = start;
    for (long long now = start; now < until;) {
        long long before = now;
        must(graph ? cuGraphLaunch(graph, streams[0]) : launch_stamped(kernel, value, stamps, streams[launches % lanes]));
        now = nanoseconds();
        keep(&calls, now - before);
        if (++launches % ahead)
            continue;
        must(cuCtxSynchronize());
        now = nanoseconds();
        keep(&steps, now - step);
        for (long long end = now + gap_us * 1000; gap_us && now < end;)
            now = nanoseconds();
        step = now;
    }
    must(cuCtxSynchronize());
    say("host_ns", nanoseconds() - start);
    say("launches", launches);
    say("kernels", launches * (graph ? in_graph : 1));
    say_samples("p50_ns", "p99_ns", &calls);
    say_samples("step_p50_ns", "step_p99_ns", &steps);
    if (strcmp(log, "-") != 0)
        write_stamps(log);
    if (graph)
        must(cuGraphExecDestroy(graph));
    say("done", 1);
}

/* Rounds of a kernel of at least five milliseconds, per millisecond of the device's clock. */
static void rate(const char *name)
{
    CUfunction kernel = function_of(module, name);
    struct entry took = { 0, 0 };
    unsigned long long rounds = 1 << 16;
    /* The first ones may find a card that saves power, and code that is not there yet. */
    for (int more = 3; more > 0;) {
        clear_log(stamps);
        must(launch_stamped(kernel, rounds, stamps, streams[0]));
        must(cuCtxSynchronize());
        read_entries(stamps, &took, 1);
        if (took.end - took.begin < 5000000 && rounds < 1ull << 40)
            rounds *= 2;
        else
            more--;
    }
    say("rounds_per_ms", (long long)(rounds * 1e6 / (double)(took.end - took.begin)));
    say("done", 1);
}

int main(void)
{
    char line[8192], name[64], way[64], log[4096];
    unsigned long long value;
    long ahead, gap_us;
    double lasts;

    open_device();
    module = module_of("stamped");
    stamps = log_of(ENTRIES);
    for (int i = 0; i < STREAMS; i++)
        must(cuStreamCreate(&streams[i], CU_STREAM_NON_BLOCKING));
    say("ready", getpid());
    while (next_line(line, sizeof line)) {
        if (sscanf(line, "rate %63s", name) == 1)
            rate(name);
        else if (sscanf(line, "cell %63s %llu %63s %ld %ld %lf %4095s", name, &value, way, &ahead, &gap_us, &lasts, log) == 7
                 && ahead > 0)
            cell(name, value, way, ahead, gap_us, lasts, log);
        else
            must(puts(line) >= 0);
    }
    return 0;
}
