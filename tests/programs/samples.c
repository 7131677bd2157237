/* Keeps the device busy for a moment, then says whom NVML's samples of utilisation name, by both layouts. */
#include <nvml.h>
#include "common.h"

int main(void)
{
    CUmodule module;
    CUfunction kernel;
    nvmlDevice_t card;
    nvmlProcessUtilizationSample_t samples[16];
    nvmlProcessUtilizationInfo_v1_t entries[16];
    nvmlProcessesUtilizationInfo_t info = { .version = nvmlProcessesUtilizationInfo_v1, .processSamplesCount = 16,
                                            .procUtilArray = entries };
    unsigned count = 16;

    open_device();
    must(cuModuleLoadData(&module, ".version 7.0\n.target sm_50\n.address_size 64\n"
                                   ".visible .entry busy_5ms()\n{\n    ret;\n}\n"));
    must(cuModuleGetFunction(&kernel, module, "busy_5ms"));
    must(nvmlInit_v2());
    must(nvmlDeviceGetHandleByIndex_v2(0, &card));
    say("pid", getpid());
    wait_for_test();
    say("idle", nvmlDeviceGetProcessUtilization(card, samples, &count, 0));
    for (double until = seconds() + 0.5; seconds() < until;) {
        must(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
        must(cuCtxSynchronize());
    }
    count = 16;
    must(nvmlDeviceGetProcessUtilization(card, samples, &count, 0));
    for (unsigned i = 0; i < count; i++)
        say("sample", samples[i].pid);
    must(nvmlDeviceGetProcessesUtilizationInfo(card, &info));
    for (unsigned i = 0; i < info.processSamplesCount; i++)
        say("info", entries[i].pid);
    return 0;
}
