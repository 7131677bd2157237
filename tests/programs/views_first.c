/* A program that asks before it has a context, as monitors and schedulers of work do: NVML before cuInit,
 * the total before any memory call; and once more when it holds something. */
#include <nvml.h>
#include "common.h"

int main(void)
{
    nvmlDevice_t card;
    nvmlMemory_t plain;
    CUdevice device;
    size_t total;

    must(nvmlInit_v2());
    must(nvmlDeviceGetHandleByIndex_v2(0, &card));
    must(nvmlDeviceGetMemoryInfo(card, &plain));
    say("nvml_total", (long long)plain.total);
    must(cuInit(0));
    must(cuDeviceGet(&device, 0));
    must(cuDeviceTotalMem(&total, device));
    say("device_total", (long long)total);

    CUcontext context;
    CUdeviceptr memory;
    must(cuDevicePrimaryCtxRetain(&context, device));
    must(cuCtxSetCurrent(context));
    must(nvmlDeviceGetMemoryInfo(card, &plain));
    unsigned long long before = plain.used;
    must(cuMemAlloc(&memory, 64 * MIB));
    must(nvmlDeviceGetMemoryInfo(card, &plain));
    say("nvml_grown", (long long)(plain.used - before));
    return 0;
}
