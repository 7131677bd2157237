/* Calls whose instructions are counted: counts WORK CALLS [LIVE]. Works: pair, any (of LIVE living allocations another one is
 * freed and allocated), info, launch, teardown (CALLS allocations go with their context), init, threads (eight of them make
 * CALLS pairs each). LIVE allocations live meanwhile. Not a test: `make counts` runs it under callgrind twice, with different
 * CALLS, and the difference is what a call takes. */
#include "common.h"
#include <stdint.h>

enum { THREADS = 8 };

static long calls, live;
static CUdeviceptr *memory;
static CUcontext context;

static void pairs(void)
{
    CUdeviceptr one;
    for (long i = 0; i < calls; i++) {
        must(cuMemAlloc(&one, 4096));
        must(cuMemFree(one));
    }
}

static void any(void)
{
    for (long i = 0; i < calls; i++) {
        long which = i * 7919 % live;
        must(cuMemFree(memory[which]));
        must(cuMemAlloc(&memory[which], 4096));
    }
}

static void info(void)
{
    size_t unused, total;
    for (long i = 0; i < calls; i++)
        must(cuMemGetInfo(&unused, &total));
}

static void launch(void)
{
    static const char image[] =
        ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry gate_0us()\n{\n    ret;\n}\n";
    CUmodule module;
    CUfunction kernel;
    must(cuModuleLoadData(&module, image));
    must(cuModuleGetFunction(&kernel, module, "gate_0us"));
    for (long i = 0; i < calls; i++)
        must(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
    must(cuCtxSynchronize());
}

static void teardown(void)
{
    CUdevice device;
    CUcontext own;
    CUdeviceptr one;
    must(cuDeviceGet(&device, 0));
    must(cuCtxCreate(&own, NULL, 0, device));
    for (long i = 0; i < calls; i++)
        must(cuMemAlloc(&one, 4096));
    must(cuCtxDestroy(own));
}

/* All threads live, and the one whose turn it is works. */
static pthread_mutex_t turns = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_ends = PTHREAD_COND_INITIALIZER;
static intptr_t turn;

static void *thread(void *number)
{
    must(cuCtxSetCurrent(context));
    pthread_mutex_lock(&turns);
    while (turn != (intptr_t)number)
        pthread_cond_wait(&turn_ends, &turns);
    pairs();
    turn++;
    pthread_cond_broadcast(&turn_ends);
    pthread_mutex_unlock(&turns);
    return NULL;
}

static void threads(void)
{
    pthread_t all[THREADS];
    must(cuCtxGetCurrent(&context));
    for (intptr_t i = 0; i < THREADS; i++)
        pthread_create(&all[i], NULL, thread, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(all[i], NULL);
}

int main(int argc, char **argv)
{
    const struct {
        const char *name;
        void (*work)(void);
    } works[] = {{"pair", pairs}, {"any", any}, {"info", info}, {"launch", launch}, {"teardown", teardown}, {"threads", threads}};

    if (argc < 3)
        return 2;
    calls = (long)number(argc, argv, 2, 0);
    live = (long)number(argc, argv, 3, 0);
    open_device();
    memory = malloc((size_t)(live + 1) * sizeof *memory);
    for (long i = 0; i < live; i++)
        must(cuMemAlloc(&memory[i], 4096));
    for (size_t i = 0; i < sizeof works / sizeof *works; i++)
        if (!strcmp(argv[1], works[i].name)) {
            works[i].work();
            return 0;
        }
    return 2;
}
