/* Tries to change settings of the whole device, and says what NVML answers. */
#include <nvml.h>
#include "common.h"

int main(void)
{
    nvmlDevice_t card;

    must(nvmlInit_v2());
    must(nvmlDeviceGetHandleByIndex_v2(0, &card));
    say("answer", nvmlDeviceSetComputeMode(card, NVML_COMPUTEMODE_EXCLUSIVE_PROCESS));
    say("answer", nvmlDeviceSetPersistenceMode(card, NVML_FEATURE_DISABLED));
    say("answer", nvmlDeviceSetPowerManagementLimit(card, 100000));
    return 0;
}
