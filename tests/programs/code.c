/* Loads code until it is refused, unloads one and loads it again, and then takes what is left. */
#include "common.h"

int main(void)
{
    CUmodule module[16];
    CUdeviceptr memory;
    size_t left, total;
    int loaded = 0;
    CUresult rc = CUDA_SUCCESS;

    open_device();
    while (loaded < 16 && (rc = cuModuleLoadData(&module[loaded], "code")) == CUDA_SUCCESS)
        loaded++;
    say("loaded", loaded);
    say("refused", rc);
    must(cuMemGetInfo(&left, &total));
    say("left", (long long)left);
    if (loaded) {
        must(cuModuleUnload(module[loaded - 1]));
        say("again", cuModuleLoadData(&module[loaded - 1], "code"));
    }
    must(cuMemGetInfo(&left, &total));
    must(cuMemAlloc(&memory, left));
    say("over", cuMemAlloc(&memory, 4096));
    say("small", cuModuleLoadData(&module[15], "code"));
    return 0;
}
