/* A primary context that is retained and released again and again while somebody else retains it too, on the driver of
 * `drivers/other_life.c`, with a launch each time.
 *
 *     retains TIMES BUSY    BUSY: nothing completes before the end */
#include "common.h"

int main(int argc, char **argv)
{
    void (*is_busy)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, "other_gpu_is_busy");
    long long times = number(argc, argv, 1, 1000);
    CUcontext context;
    CUdeviceptr memory;
    size_t left, total;
    must(!is_busy);
    open_device();
    must(cuMemAlloc(&memory, 4 * MIB));
    is_busy((int)number(argc, argv, 2, 0));
    for (long long i = 0; i < times; i++) {
        must(cuDevicePrimaryCtxRetain(&context, 0));
        must(cuLaunchKernel((CUfunction)&context, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
        must(cuDevicePrimaryCtxRelease(0));
    }
    is_busy(0);
    must(cuCtxSynchronize());
    must(cuMemGetInfo(&left, &total));
    say("charged", (long long)(total - left));
    return 0;
}
