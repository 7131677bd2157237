/* How long NVML takes: its start, and a list of processes beside a context of this one's. */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>
#include "common.h"

static int order(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

int main(void)
{
    enum { ROUNDS = 41 };
    static nvmlProcessInfo_t all[64];
    nvmlDevice_t card;
    double took[ROUNDS];
    unsigned count;

    open_device();
    double from = seconds();
    must(nvmlInit_v2());
    say("init_us", (long long)((seconds() - from) * 1e6));
    must(nvmlDeviceGetHandleByIndex_v2(0, &card));
    for (int i = 0; i < ROUNDS; i++) {
        count = 64;
        from = seconds();
        must(nvmlDeviceGetComputeRunningProcesses_v3(card, &count, all));
        took[i] = seconds() - from;
    }
    qsort(took, ROUNDS, sizeof *took, order);
    say("processes", count);
    say("list_us", (long long)(took[ROUNDS / 2] * 1e6));
    return 0;
}
