/* Holds a MiB (the first argument: how many), and says whom NVML's lists name, by each of their layouts and by the
 * protocol for too little room. */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>
#include "common.h"

static nvmlDevice_t card;

int main(int argc, char **argv)
{
    CUdeviceptr memory;
    nvmlProcessInfo_v1_t v1[16];
    nvmlProcessInfo_v2_t v2[16];
    nvmlProcessInfo_t v3[16];
    unsigned count;

    open_device();
    must(cuMemAlloc(&memory, (size_t)number(argc, argv, 1, 1) * MIB));
    must(nvmlInit_v2());
    must(nvmlDeviceGetHandleByIndex_v2(0, &card));
    say("pid", getpid());
    wait_for_test();
    count = 0;
    say("room", nvmlDeviceGetComputeRunningProcesses_v3(card, &count, NULL));
    say("count", count);
    count = 1;
    say("room", nvmlDeviceGetComputeRunningProcesses_v3(card, &count, v3));
    say("count", count);
    count = 16;
    must(nvmlDeviceGetComputeRunningProcesses_v3(card, &count, v3));
    for (unsigned i = 0; i < count; i++) {
        say("v3_pid", v3[i].pid);
        say("v3_bytes", (long long)v3[i].usedGpuMemory);
    }
    count = 16;
    must(nvmlDeviceGetComputeRunningProcesses_v2(card, &count, v2));
    for (unsigned i = 0; i < count; i++) {
        say("v2_pid", v2[i].pid);
        say("v2_bytes", (long long)v2[i].usedGpuMemory);
    }
    count = 16;
    must(nvmlDeviceGetComputeRunningProcesses(card, &count, v1));
    for (unsigned i = 0; i < count; i++) {
        say("v1_pid", v1[i].pid);
        say("v1_bytes", (long long)v1[i].usedGpuMemory);
    }
    count = 16;
    must(nvmlDeviceGetGraphicsRunningProcesses_v3(card, &count, v3));
    say("graphics", count);
    wait_for_test();
    return 0;
}
