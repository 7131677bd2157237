/* What is left of the slice before there is a context, with one, with code loaded, with memory held, and back again. */
#include "common.h"

static void say_left(void)
{
    size_t left, total;
    must(cuMemGetInfo(&left, &total));
    say("left", (long long)left);
}

int main(void)
{
    CUmodule module;
    CUdeviceptr memory[8];
    CUcontext context;

    open_device();
    say_left();
    must(cuModuleLoadData(&module, "code"));
    say_left();
    for (int i = 0; i < 8; i++)
        must(cuMemAlloc(&memory[i], 1));
    say_left();
    for (int i = 0; i < 8; i++)
        must(cuMemFree(memory[i]));
    usleep(10000); /* longer than two measurements may lie apart */
    must(cuModuleUnload(module));
    say_left();
    must(cuDevicePrimaryCtxReset(0));
    must(cuDevicePrimaryCtxRetain(&context, 0));
    must(cuCtxSetCurrent(context));
    say_left();
    return 0;
}
