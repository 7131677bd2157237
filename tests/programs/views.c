/* Every view of device 0's memory that a program can ask for, in one process. */
#include <nvml.h>
#include "common.h"

int main(void)
{
    CUdevice device = open_device();
    CUdeviceptr memory;
    nvmlDevice_t card;
    nvmlMemory_t plain;
    nvmlMemory_v2_t wide = { .version = nvmlMemory_v2 };
    size_t total;

    must(cuMemAlloc(&memory, 64 * MIB));
    say_memory();
    must(cuDeviceTotalMem(&total, device));
    say("device_total", (long long)total);
    must(nvmlInit_v2());
    must(nvmlDeviceGetHandleByIndex_v2(0, &card));
    must(nvmlDeviceGetMemoryInfo(card, &plain));
    say("nvml_total", (long long)plain.total);
    say("nvml_free", (long long)plain.free);
    say("nvml_used", (long long)plain.used);
    must(nvmlDeviceGetMemoryInfo_v2(card, &wide));
    say("nvml2_total", (long long)wide.total);
    say("nvml2_free", (long long)wide.free);
    say("nvml2_used", (long long)wide.used);
    must(nvmlShutdown());
    return 0;
}
