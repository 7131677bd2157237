/* Every device of the machine, each with its primary context: its UUID, what it shows, and, after a GiB was taken of
 * the first one (and with an argument of the last one), what each has left. NVML's view of the same device, found by its UUID, must agree. */
#include <nvml.h>
#include "common.h"

static void say_of(const char *key, int ordinal, long long value)
{
    char name[64];
    snprintf(name, sizeof name, "%s_%d", key, ordinal);
    say(name, value);
}

static nvmlDevice_t same_device(CUdevice device)
{
    CUuuid uuid;
    char text[64];
    nvmlDevice_t found;
    const unsigned char *b = (const unsigned char *)uuid.bytes;
    must(cuDeviceGetUuid(&uuid, device));
    snprintf(text, sizeof text, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    must(nvmlDeviceGetHandleByUUID(text, &found));
    return found;
}

int main(int argc, char **argv)
{
    int count;
    (void)argv;
    must(cuInit(0));
    must(nvmlInit_v2());
    must(cuDeviceGetCount(&count));
    say("count", count);
    for (int i = 0; i < count; i++) {
        CUdevice device;
        CUcontext context;
        CUdeviceptr memory;
        size_t total, before, after;
        nvmlMemory_t plain;
        must(cuDeviceGet(&device, i));
        must(cuDeviceTotalMem(&total, device));
        must(cuDevicePrimaryCtxRetain(&context, device));
        must(cuCtxSetCurrent(context));
        must(cuMemGetInfo(&before, &total));
        if (i == 0 || (argc > 1 && i == count - 1))
            must(cuMemAlloc(&memory, 1024 * MIB));
        must(cuMemGetInfo(&after, &total));
        must(nvmlDeviceGetMemoryInfo(same_device(device), &plain));
        say_of("total", i, (long long)total);
        say_of("taken", i, (long long)(before - after));
        say_of("over", i, cuMemAlloc(&memory, after + 1));
        say_of("nvml_total", i, (long long)plain.total);
        say_of("nvml_free_differs", i, (long long)(plain.free - after));
    }
    return 0;
}
