/* What the card and its driver themselves take: SUBJECT is start, calls, events, streams, memory, blocks, footprint or clock.
 * Times are nanoseconds, sizes bytes. */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>
#include "kit.h"

enum { ROUNDS = 2000 };

static long long samples[ROUNDS];
static CUmodule module;
static CUstream stream;

static void say_both(const char *name, long count)
{
    char key[64];
    snprintf(key, sizeof key, "%s_p50_ns", name);
    say(key, per_mille(samples, count, 500));
    snprintf(key, sizeof key, "%s_p99_ns", name);
    say(key, per_mille(samples, count, 990));
}

/* Measures a statement so many times; `before` and `behind` stand outside of what is measured. */
#define measure(name, count, before, statement, behind)             \
    do {                                                            \
        for (long round_ = 0; round_ < (count); round_++) {         \
            before;                                                 \
            long long start_ = nanoseconds();                       \
            must(statement);                                        \
            samples[round_] = nanoseconds() - start_;               \
            behind;                                                 \
        }                                                           \
        say_both(name, count);                                      \
    } while (0)

#define nothing_before ((void)0)
#define idle must(cuStreamSynchronize(stream))

static void ready(void)
{
    open_device();
    module = module_of("stamped");
    must(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
}

/* The way of a process from nothing to its second kernel. */
static void start(void)
{
    CUdevice device;
    CUcontext context;
    CUfunction kernel;
    long long last = nanoseconds(), now;
#define step(name, statement)                                       \
    do {                                                            \
        must(statement);                                            \
        now = nanoseconds();                                        \
        say(name, now - last);                                      \
        last = now;                                                 \
    } while (0)
    step("init_ns", cuInit(0));
    must(cuDeviceGet(&device, 0));
    step("context_ns", cuDevicePrimaryCtxRetain(&context, device));
    must(cuCtxSetCurrent(context));
    step("module_load_ns", (module = module_of("stamped"), 0));
    step("get_function_ns", cuModuleGetFunction(&kernel, module, "nothing"));
    step("first_launch_ns", cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
    step("first_synchronize_ns", cuCtxSynchronize());
    step("second_launch_ns", cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
    step("second_synchronize_ns", cuCtxSynchronize());
    step("other_function_ns", cuModuleGetFunction(&kernel, module, "timed_10us"));
    step("other_first_launch_ns", launch_stamped(kernel, 0, 0, NULL));
    must(cuCtxSynchronize());
}

static CUresult launch_nothing(CUfunction kernel)
{
    return cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL);
}

static void calls(void)
{
    CUfunction nothing, spin;
    CUevent event, earlier;
    CUcontext context;
    CUdevice device;
    CUstreamCaptureStatus status;
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    size_t left, total;
    float ms;

    ready();
    nothing = function_of(module, "nothing");
    spin = function_of(module, "timed_20us");
    must(cuEventCreate(&event, CU_EVENT_DEFAULT));
    must(cuEventCreate(&earlier, CU_EVENT_DEFAULT));
    for (int i = 0; i < 200; i++)
        must(launch_nothing(nothing));
    measure("launch_idle", ROUNDS, idle, launch_nothing(nothing), nothing_before);
    /* Fewer in flight than a queue holds. */
    measure("launch_queued", ROUNDS, if (round_ % 200 == 0) idle, launch_nothing(nothing), nothing_before);
    measure("launch_and_wait", ROUNDS, nothing_before, launch_nothing(nothing) || cuStreamSynchronize(stream), nothing_before);
    measure("timed_20us_and_wait", ROUNDS, nothing_before,
            launch_stamped(spin, 20000, 0, stream) || cuStreamSynchronize(stream), nothing_before);
    measure("event_record", ROUNDS, if (round_ % 200 == 0) idle, cuEventRecord(event, stream), nothing_before);
    must(cuEventRecord(earlier, stream) || cuEventRecord(event, stream));
    idle;
    measure("event_query", ROUNDS, nothing_before, cuEventQuery(event), nothing_before);
    measure("event_elapsed", ROUNDS, nothing_before, cuEventElapsedTime(&ms, earlier, event), nothing_before);
    measure("event_synchronize", ROUNDS, nothing_before, cuEventSynchronize(event), nothing_before);
    measure("event_query_pending", 200, must(launch_stamped(spin, 20000, 0, stream) || cuEventRecord(event, stream)),
            cuEventQuery(event) == CUDA_ERROR_INVALID_VALUE, idle);
    measure("stream_query", ROUNDS, nothing_before, cuStreamQuery(stream), nothing_before);
    measure("is_capturing", ROUNDS, nothing_before, cuStreamIsCapturing(stream, &status), nothing_before);
    measure("exchange_capture_mode", ROUNDS, nothing_before, cuThreadExchangeStreamCaptureMode(&mode), nothing_before);
    measure("ctx_get_current", ROUNDS, nothing_before, cuCtxGetCurrent(&context), nothing_before);
    measure("ctx_get_device", ROUNDS, nothing_before, cuCtxGetDevice(&device), nothing_before);
    measure("ctx_synchronize_idle", ROUNDS, nothing_before, cuCtxSynchronize(), nothing_before);
    measure("mem_get_info", 200, nothing_before, cuMemGetInfo(&left, &total), nothing_before);
    measure("clock_gettime", ROUNDS, nothing_before, 0, nothing_before);
}

enum { QUEUED = 100 };

static CUevent before[QUEUED], behind[QUEUED];
static struct entry entries[2 * QUEUED];
static CUdeviceptr stamps;
static CUfunction head;

static long long interval(int i)
{
    float ms;
    must(cuEventElapsedTime(&ms, before[i], behind[i]));
    return (long long)(ms * 1e6);
}

static void say_of(const char *what, const char *kernel, long count)
{
    char key[64];
    snprintf(key, sizeof key, "%s_%s", what, kernel);
    say_both(key, count);
}

/* Work that keeps the stream busy while what is measured is launched behind it. */
static void queue(void)
{
    clear_log(stamps);
    must(launch_stamped(head, 5000000, 0, stream));
}

static long long ran(int first, int count)
{
    long long sum = 0;
    for (int i = first; i < first + count; i++)
        sum += (long long)(entries[i].end - entries[i].begin);
    return sum;
}

/* By how much the interval between two events is longer than the kernels that lie between them: one on an idle stream, less
 * the time that the host's launch took as well, and launches that are queued, one and two between the events. And how far
 * kernels lie apart that are queued. */
static void round_kernels_of(const char *name, unsigned long long ns)
{
    CUfunction kernel = function_of(module, name);
    static long long call[QUEUED];

    must(launch_stamped(kernel, ns, 0, stream));
    idle;
    clear_log(stamps);
    for (int i = 0; i < QUEUED; i++) {
        must(cuEventRecord(before[i], stream));
        call[i] = nanoseconds();
        must(launch_stamped(kernel, ns, stamps, stream));
        call[i] = nanoseconds() - call[i];
        must(cuEventRecord(behind[i], stream));
        idle;
    }
    read_entries(stamps, entries, QUEUED);
    for (int i = 0; i < QUEUED; i++)
        samples[i] = interval(i) - ran(i, 1);
    say_of("alone", name, QUEUED);
    for (int i = 0; i < QUEUED; i++)
        samples[i] = interval(i) - ran(i, 1) - call[i];
    say_of("alone_less_call", name, QUEUED);

    for (int between = 1; between <= 2; between++) {
        int count = QUEUED / between;
        queue();
        for (int i = 0; i < count; i++) {
            must(cuEventRecord(before[i], stream));
            for (int j = 0; j < between; j++)
                must(launch_stamped(kernel, ns, stamps, stream));
            must(cuEventRecord(behind[i], stream));
        }
        idle;
        read_entries(stamps, entries, QUEUED);
        for (int i = 0; i < count; i++)
            samples[i] = interval(i) - ran(between * i, between);
        say_of(between == 1 ? "queued" : "queued_two", name, count);
        for (int i = 1; i < count; i++)
            samples[i - 1] = (long long)(entries[between * i].begin - entries[between * i - 1].end);
        say_of(between == 1 ? "gap_with_events" : "gap_between_twos", name, count - 1);
    }

    queue();
    for (int i = 0; i < QUEUED; i++)
        must(launch_stamped(kernel, ns, stamps, stream));
    idle;
    read_entries(stamps, entries, QUEUED);
    for (int i = 1; i < QUEUED; i++)
        samples[i - 1] = (long long)(entries[i].begin - entries[i - 1].end);
    say_of("gap", name, QUEUED - 1);
}

/* The interval round what takes next to no time. */
static void round_little(const char *name, CUresult (*between)(void), int queued)
{
    if (queued)
        queue();
    for (int i = 0; i < QUEUED; i++) {
        must(cuEventRecord(before[i], stream) || between() || cuEventRecord(behind[i], stream));
        if (!queued)
            idle;
    }
    idle;
    for (int i = 0; i < QUEUED; i++)
        samples[i] = interval(i);
    say_of(queued ? "queued" : "alone", name, QUEUED);
}

static CUfunction empty;
static CUdeviceptr word;

static CUresult no_work(void) { return CUDA_SUCCESS; }
static CUresult empty_kernel(void) { return launch_nothing(empty); }
static CUresult small_set(void) { return cuMemsetD32Async(word, 0, 1, stream); }

static void events(void)
{
    ready();
    stamps = log_of(2 * QUEUED);
    head = function_of(module, "timed_5ms");
    empty = function_of(module, "nothing");
    must(cuMemAlloc(&word, 4));
    for (int i = 0; i < QUEUED; i++)
        must(cuEventCreate(&before[i], CU_EVENT_DEFAULT) || cuEventCreate(&behind[i], CU_EVENT_DEFAULT));
    must(launch_stamped(head, 5000000, 0, stream) || empty_kernel() || small_set());
    idle;
    round_kernels_of("timed_5us", 5000);
    round_kernels_of("timed_20us", 20000);
    round_kernels_of("timed_100us", 100000);
    round_kernels_of("timed_1ms", 1000000);
    for (int queued = 0; queued < 2; queued++) {
        round_little("no_work", no_work, queued);
        round_little("empty_kernel", empty_kernel, queued);
        round_little("small_set", small_set, queued);
    }
}

/* How many kernels of as many streams run at once, which is how many hardware queues there are for them. */
static void streams(void)
{
    enum { STREAMS = 40 };
    CUstream all[STREAMS];
    struct entry entries[STREAMS];
    CUfunction kernel;
    CUdeviceptr log;
    int most = 0;

    ready();
    kernel = function_of(module, "timed_20ms");
    log = log_of(STREAMS);
    for (int i = 0; i < STREAMS; i++) {
        must(cuStreamCreate(&all[i], CU_STREAM_NON_BLOCKING));
        must(launch_stamped(kernel, 0, 0, all[i]));
    }
    must(cuCtxSynchronize());
    for (int i = 0; i < STREAMS; i++)
        must(launch_stamped(kernel, 20000000, log, all[i]));
    must(cuCtxSynchronize());
    read_entries(log, entries, STREAMS);
    for (int i = 0; i < STREAMS; i++) {
        int beside = 0;
        for (int j = 0; j < STREAMS; j++)
            beside += entries[j].begin <= entries[i].begin && entries[i].begin < entries[j].end;
        most = beside > most ? beside : most;
    }
    say("streams", STREAMS);
    say("concurrent", most);
}

static void memory(void)
{
    static const struct { const char *name; size_t bytes; } sizes[] = {
        { "4KiB", 4096 }, { "64KiB", 65536 }, { "1MiB", MIB }, { "2MiB", 2 * MIB }, { "64MiB", 64 * MIB }, { "1GiB", 1024 * MIB },
    };
    CUdeviceptr taken;
    char key[64];

    ready();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        long rounds = sizes[i].bytes > MIB ? 60 : 400;
        snprintf(key, sizeof key, "alloc_%s", sizes[i].name);
        measure(key, rounds, nothing_before, cuMemAlloc(&taken, sizes[i].bytes), must(cuMemFree(taken)));
        snprintf(key, sizeof key, "free_%s", sizes[i].name);
        measure(key, rounds, must(cuMemAlloc(&taken, sizes[i].bytes)), cuMemFree(taken), nothing_before);
    }
    must(cuMemAllocAsync(&taken, MIB, stream) || cuMemFreeAsync(taken, stream));
    measure("alloc_async_1MiB", 400, nothing_before, cuMemAllocAsync(&taken, MIB, stream), must(cuMemFreeAsync(taken, stream)));
    idle;
}

static nvmlDevice_t card;

static void open_nvml(void)
{
    must(nvmlInit_v2());
    must(nvmlDeviceGetHandleByIndex_v2(0, &card));
}

static long long nvml_used(void)
{
    nvmlMemory_t told;
    must(nvmlDeviceGetMemoryInfo(card, &told));
    return (long long)told.used;
}

static long long cuda_used(void)
{
    size_t left, total;
    must(cuMemGetInfo(&left, &total));
    return (long long)(total - left);
}

/* What NVML says that this process holds; in a PID namespace it is not found. */
static long long nvml_process(void)
{
    nvmlProcessInfo_t all[128];
    unsigned count = 128;
    if (nvmlDeviceGetComputeRunningProcesses_v3(card, &count, all) != NVML_SUCCESS)
        return -1;
    for (unsigned i = 0; i < count; i++)
        if (all[i].pid == (unsigned)getpid())
            return (long long)all[i].usedGpuMemory;
    return count == 1 ? (long long)all[0].usedGpuMemory : -1;
}

/* How much of the card N allocations take, by CUDA's figure and by NVML's. */
static void blocks(void)
{
    static const struct { const char *name; size_t bytes; int count; } sizes[] = {
        { "4KiB", 4096, 1024 }, { "64KiB", 65536, 256 }, { "1MiB-1", MIB - 1, 64 }, { "1MiB", MIB, 64 },
        { "1MiB+1", MIB + 1, 64 }, { "1MiB+4KiB", MIB + 4096, 64 }, { "2MiB", 2 * MIB, 64 }, { "2MiB+1", 2 * MIB + 1, 64 },
        { "3MiB", 3 * MIB, 64 }, { "5MiB", 5 * MIB, 64 }, { "33MiB", 33 * MIB, 8 },
    };
    static CUdeviceptr taken[1024];
    char key[64];

    ready();
    open_nvml();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        long long cuda = cuda_used(), nvml = nvml_used();
        for (int j = 0; j < sizes[i].count; j++)
            must(cuMemAlloc(&taken[j], sizes[i].bytes));
        snprintf(key, sizeof key, "asked_%s", sizes[i].name);
        say(key, (long long)sizes[i].bytes * sizes[i].count);
        snprintf(key, sizeof key, "cuda_%s", sizes[i].name);
        say(key, cuda_used() - cuda);
        snprintf(key, sizeof key, "nvml_%s", sizes[i].name);
        say(key, nvml_used() - nvml);
        for (int j = 0; j < sizes[i].count; j++)
            must(cuMemFree(taken[j]));
    }
}

static void say_footprint(const char *name)
{
    char key[64];
    long long figures[] = { cuda_used(), nvml_used(), nvml_process() };
    static const char *const sources[] = { "cuda", "nvml", "process" };
    for (int i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "%s_%s_bytes", name, sources[i]);
        say(key, figures[i]);
    }
}

/* What contexts, code, streams and heaps take. */
static void footprint(void)
{
    CUcontext second;
    CUfunction kernel;
    CUdeviceptr out;
    CUevent event;

    must(cuInit(0));
    open_nvml();
    long long before = nvml_used();
    say("before_nvml_bytes", before);
    open_device();
    say_footprint("context");
    ready();
    say_footprint("module");
    kernel = function_of(module, "nothing");
    must(launch_nothing(kernel));
    idle;
    say_footprint("launched");
    CUmodule heavy = module_of("heavy");
    kernel = function_of(heavy, "local_memory");
    say_footprint("heavy_loaded");
    unsigned seed = 7;
    must(cuMemAlloc(&out, 4));
    void *parameters[] = { &out, &seed };
    must(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL));
    idle;
    say_footprint("local_memory_launched");
    must(cuModuleUnload(heavy));
    say_footprint("heavy_unloaded");
    must(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, 256 * MIB));
    say_footprint("heap_256MiB");
    for (int i = 0; i < 64; i++)
        must(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    say_footprint("streams_64");
    for (int i = 0; i < 1000; i++)
        must(cuEventCreate(&event, CU_EVENT_DEFAULT));
    say_footprint("events_1000");
    CUctxCreateParams plain = { 0 };
    must(cuCtxCreate(&second, &plain, 0, 0));
    say_footprint("second_context");
    must(cuCtxDestroy(second));
    say_footprint("second_context_destroyed");
}

static void clock_of_device(void)
{
    CUdeviceptr step;
    unsigned long long least;

    ready();
    CUfunction kernel = function_of(module, "clock_step");
    void *parameters[] = { &step };
    must(cuMemAlloc(&step, sizeof least));
    must(cuMemsetD8(step, 0, sizeof least));
    must(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL));
    idle;
    must(cuMemcpyDtoH(&least, step, sizeof least));
    say("globaltimer_step_ns", (long long)least);
}

static const struct { const char *name; void (*take)(void); } subjects[] = {
    { "start", start }, { "calls", calls }, { "events", events }, { "streams", streams }, { "memory", memory },
    { "blocks", blocks }, { "footprint", footprint }, { "clock", clock_of_device },
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof subjects / sizeof *subjects; i++)
        if (strcmp(argv[1], subjects[i].name) == 0) {
            subjects[i].take();
            return 0;
        }
    fprintf(stderr, "costs: no subject %s\n", argc > 1 ? argv[1] : "");
    return 2;
}
