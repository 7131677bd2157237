/* What one call costs, in nanoseconds: prints the median over batches for each kind of call. A batch has as many calls as
 * the first argument says, 2,000 if not given. Kernels are
 * named so that the simulated device is done with them at once. Not a test: `make bench` runs it. */
#include "common.h"

enum { BATCHES = 41, LIVE = 10000 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static CUfunction kernel;
static CUdeviceptr live[LIVE];

static void pair(int calls)
{
    CUdeviceptr memory;
    for (int i = 0; i < calls; i++) {
        must(cuMemAlloc(&memory, 4096));
        must(cuMemFree(memory));
    }
}

static void any_pair(int calls)
{
    static unsigned seed = 1;
    for (int i = 0; i < calls; i++) {
        int which = rand_r(&seed) % LIVE;
        must(cuMemFree(live[which]));
        must(cuMemAlloc(&live[which], 4096));
    }
}

static void launch(int calls)
{
    for (int i = 0; i < calls; i++)
        must(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
}

static void info(int calls)
{
    size_t free_bytes, total;
    for (int i = 0; i < calls; i++)
        must(cuMemGetInfo(&free_bytes, &total));
}

static void measure(const char *name, void (*work)(int), int calls, int synchronize)
{
    double ns[BATCHES];
    work(calls);
    for (int i = 0; i < BATCHES; i++) {
        if (synchronize)
            must(cuCtxSynchronize());
        double start = seconds();
        work(calls);
        ns[i] = (seconds() - start) / calls * 1e9;
    }
    qsort(ns, BATCHES, sizeof *ns, by_value);
    printf("%s=%.2f\n", name, ns[BATCHES / 2]);
}

int main(int argc, char **argv)
{
    int calls = (int)number(argc, argv, 1, 2000);
    static const char image[] =
        ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry gate_0us()\n{\n    ret;\n}\n";
    CUdevice device;
    CUcontext context;
    CUmodule module;

    double start = seconds();
    must(cuInit(0));
    printf("init=%.2f\n", (seconds() - start) * 1e9);
    must(cuDeviceGet(&device, 0));
    must(cuDevicePrimaryCtxRetain(&context, device));
    must(cuCtxSetCurrent(context));
    must(cuModuleLoadData(&module, image));
    must(cuModuleGetFunction(&kernel, module, "gate_0us"));
    measure("pair", pair, calls, 0);
    measure("info", info, calls, 0);
    /* Fewer than a driver's queue holds, so that nobody waits for the device. */
    measure("launch", launch, 200, 1);
    for (int i = 0; i < LIVE; i++)
        must(cuMemAlloc(&live[i], 4096));
    measure("pair_live", pair, calls, 0);
    measure("any_pair_live", any_pair, calls, 0);
    return 0;
}
