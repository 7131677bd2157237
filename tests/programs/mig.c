/* What NVML tells of device 0 and its instances, and CUDA of the device that it gives: before and after the MiB of the
 * first argument were taken of it. Ends when the pipe is closed. */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>
#include "common.h"

static nvmlDevice_t whole;

static void say_of(const char *key, unsigned instance, long long value)
{
    char name[64];
    snprintf(name, sizeof name, "%s_%u", key, instance);
    say(name, value);
}

static void say_memory_of(nvmlDevice_t card, const char *key, unsigned instance)
{
    nvmlMemory_v2_t memory = { .version = nvmlMemory_v2 };
    char name[64];
    must(nvmlDeviceGetMemoryInfo_v2(card, &memory));
    snprintf(name, sizeof name, "%s_total", key);
    say_of(name, instance, (long long)memory.total);
    snprintf(name, sizeof name, "%s_used", key);
    say_of(name, instance, (long long)memory.used);
}

/* Every process of a list, with its instance. */
static void say_processes(nvmlDevice_t card, const char *key, unsigned instance)
{
    nvmlProcessInfo_t infos[16];
    unsigned count = 16;
    char name[64];
    must(nvmlDeviceGetComputeRunningProcesses_v3(card, &count, infos));
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s_pid", key);
        say_of(name, instance, infos[i].pid);
        snprintf(name, sizeof name, "%s_bytes", key);
        say_of(name, instance, (long long)infos[i].usedGpuMemory);
        snprintf(name, sizeof name, "%s_gi", key);
        say_of(name, instance, (int)infos[i].gpuInstanceId);
    }
}

static void say_instance(unsigned place)
{
    nvmlDevice_t card, parent;
    unsigned value;
    char text[96];
    nvmlReturn_t rc = nvmlDeviceGetMigDeviceHandleByIndex(whole, place, &card);
    if (rc != NVML_SUCCESS) {
        say("none", rc);
        return;
    }
    must(nvmlDeviceIsMigDeviceHandle(card, &value));
    say("is_instance", value);
    must(nvmlDeviceGetDeviceHandleFromMigDeviceHandle(card, &parent));
    say("of_the_whole", parent == whole);
    must(nvmlDeviceGetIndex(card, &value));
    say_of("index", place, value);
    must(nvmlDeviceGetGpuInstanceId(card, &value));
    say_of("gi", place, value);
    must(nvmlDeviceGetComputeInstanceId(card, &value));
    say_of("ci", place, value);
    must(nvmlDeviceGetUUID(card, text, sizeof text));
    printf("uuid_%u=%s\n", place, text);
    must(nvmlDeviceGetHandleByUUID(text, &parent));
    say("found_by_uuid", parent == card);
    say_memory_of(card, "nvml", place);
    say_processes(card, "listed", place);
    say("pci_of_instance", nvmlDeviceGetPciInfo_v3(card, &(nvmlPciInfo_t){ .domain = 0 }));
    say("utilisation_of_instance", nvmlDeviceGetUtilizationRates(card, &(nvmlUtilization_t){ .gpu = 0 }));
}

int main(int argc, char **argv)
{
    unsigned mode, pending, most, count;
    int devices;
    CUdevice device;
    CUdeviceptr memory;
    CUuuid uuid;
    size_t total;
    char name[96];

    device = open_device();
    must(nvmlInit_v2());
    must(nvmlDeviceGetCount_v2(&count));
    say("count", count);
    must(nvmlDeviceGetHandleByIndex_v2(0, &whole));
    must(nvmlDeviceGetMigMode(whole, &mode, &pending));
    say("mode", mode);
    must(nvmlDeviceGetMaxMigDeviceCount(whole, &most));
    say("most", most);
    must(cuDeviceGetCount(&devices));
    say("devices", devices);
    must(cuDeviceGetName(name, sizeof name, device));
    printf("name=%s\n", name);
    must(cuDeviceTotalMem(&total, device));
    say("cuda_total", (long long)total);
    must(cuDeviceGetUuid(&uuid, device));
    say("cuda_instance", uuid.bytes[10]);
    must(cuDeviceGetAttribute(&devices, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device));
    say("sms", devices);
    must(cuMemAlloc(&memory, (size_t)number(argc, argv, 1, 1) * MIB));
    say_memory();
    say("over", cuMemAlloc(&memory, total));
    say("pid", getpid());
    wait_for_test();
    for (unsigned place = 0; place < most; place++)
        say_instance(place);
    say_memory_of(whole, "nvml_whole", 0);
    say_processes(whole, "listed_whole", 0);
    say("utilisation", nvmlDeviceGetUtilizationRates(whole, &(nvmlUtilization_t){ .gpu = 0 }));
    say("done", 1);
    wait_for_test();
    return 0;
}
