/* Calls what the test tells it to, on the device that its argument names, and says what came of it. */
#include <nvml.h>
#include "common.h"

int main(int argc, char **argv)
{
    CUdevice device;
    CUcontext context;
    CUdeviceptr memory;
    char line[64];

    must(cuInit(0));
    must(cuDeviceGet(&device, (int)number(argc, argv, 1, 0)));
    must(cuDevicePrimaryCtxRetain(&context, device));
    must(cuCtxSetCurrent(context));
    must(nvmlInit_v2());
    say("pid", getpid());
    while (next_line(line, sizeof line)) {
        unsigned card;
        double from = seconds();
        if (strncmp(line, "alloc", 5) == 0) {
            say("rc", cuMemAlloc(&memory, MIB));
        } else if (strncmp(line, "sync", 4) == 0) {
            CUresult rc = cuCtxSynchronize();
            say("took_ms", (long long)((seconds() - from) * 1e3));
            say("rc", rc);
        } else if (sscanf(line, "card %u", &card) == 1) {
            nvmlDevice_t handle;
            nvmlMemory_t info;
            nvmlReturn_t rc = nvmlDeviceGetHandleByIndex_v2(card, &handle);
            say("rc", rc != NVML_SUCCESS ? rc : nvmlDeviceGetMemoryInfo(handle, &info));
        }
    }
    return 0;
}
