/* Holds the MiB of the first argument, then says what NVML's account names: the pids, and of the first one's whether it
 * runs and the most memory that it had. */
#include <nvml.h>
#include "common.h"

int main(int argc, char **argv)
{
    CUdeviceptr memory;
    nvmlDevice_t card;
    nvmlEnableState_t mode;
    nvmlAccountingStats_t stats;
    unsigned pids[64], count = 0;

    open_device();
    must(cuMemAlloc(&memory, (size_t)number(argc, argv, 1, 1) * MIB));
    must(cuMemFree(memory));
    must(nvmlInit_v2());
    must(nvmlDeviceGetHandleByIndex_v2(0, &card));
    say("pid", getpid());
    wait_for_test();
    must(nvmlDeviceGetAccountingMode(card, &mode));
    say("mode", mode);
    say("room", nvmlDeviceGetAccountingPids(card, &count, NULL));
    count = 64;
    must(nvmlDeviceGetAccountingPids(card, &count, pids));
    for (unsigned i = 0; i < count; i++) {
        say("named", pids[i]);
        must(nvmlDeviceGetAccountingStats(card, pids[i], &stats));
        say("runs", stats.isRunning);
        say("most", (long long)stats.maxMemoryUsage);
        say("lived", (long long)stats.time);
    }
    return 0;
}
