/* NVML for other.c: as little of it as tells a process what it holds. The environment says how: OTHER_FIGURE is "zero",
 * "unknown" or "nobody" for drivers that do not tell, OTHER_VERSION the driver's version, OTHER_PID the pid of the only
 * client instead of the caller's, OTHER_UUID the device's name. With -DSILENT, for a driver that tells next to nothing, it
 * has neither clients nor versions. */
#define _GNU_SOURCE
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <dlfcn.h>
#include <nvml.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char device;

static const char *told(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value ? value : otherwise;
}

nvmlReturn_t nvmlInit_v2(void)
{
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *out)
{
    *out = (nvmlDevice_t)&device;
    return index ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t handle, char *uuid, unsigned length)
{
    const char *name = told("OTHER_UUID", NULL);
    if (handle != (nvmlDevice_t)&device || !name)
        return NVML_ERROR_NOT_SUPPORTED;
    strncpy(uuid, name, length);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, nvmlMemory_t *memory)
{
    *memory = (nvmlMemory_t){ .total = 16ull << 30, .free = 12ull << 30, .used = 4ull << 30 };
    return handle == (nvmlDevice_t)&device ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

#ifndef SILENT
nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    strncpy(version, told("OTHER_VERSION", "580.65.06"), length);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out)
{
    *out = (nvmlDevice_t)&device;
    return strcmp(uuid, "GPU-0d0d0d0d-0d0d-0d0d-0d0d-0d0d0d0d0d0d") ? NVML_ERROR_NOT_FOUND : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t handle, unsigned *count, nvmlProcessInfo_t *infos)
{
    size_t (*figure)(void) = (size_t(*)(void))dlsym(RTLD_DEFAULT, "other_figure");
    const char *how = told("OTHER_FIGURE", "own");
    unsigned room = *count;
    size_t bytes = figure ? figure() : 0;

    if (handle != (nvmlDevice_t)&device)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = bytes && strcmp(how, "nobody") ? 1 : 0;
    if (*count > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    if (*count)
        infos[0] = (nvmlProcessInfo_t){
            .pid = (unsigned)atoi(told("OTHER_PID", "0")) ? (unsigned)atoi(told("OTHER_PID", "0")) : (unsigned)getpid(),
            .usedGpuMemory = !strcmp(how, "zero") ? 0 : !strcmp(how, "unknown") ? (unsigned long long)-1 : bytes,
        };
    return NVML_SUCCESS;
}
#endif
