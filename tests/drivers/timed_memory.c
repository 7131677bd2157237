/* The timed driver's memory and code (timed.h). Memory of the device lies in the process. */
#include "timed_host.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MODULES = 4096, MEMORIES = 65536 };

static const size_t total = 64ull << 30;
static struct module modules[MODULES];
static struct { char *at; size_t bytes; } memories[MEMORIES];
static size_t held;
static int known; /* memories */
static pthread_mutex_t memory = PTHREAD_MUTEX_INITIALIZER;

bool timed_has_memory(uint64_t address, uint64_t bytes)
{
    bool has = false;
    pthread_mutex_lock(&memory);
    for (int i = 0; i < known; i++)
        has |= memories[i].at && address >= (uint64_t)(uintptr_t)memories[i].at &&
               address + bytes >= address && address + bytes <= (uint64_t)(uintptr_t)memories[i].at + memories[i].bytes;
    pthread_mutex_unlock(&memory);
    return has;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    DEVICE(device);
    *bytes = total;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes)
{
    CURRENT;
    NEED(out && bytes, CUDA_ERROR_INVALID_VALUE);
    CUresult answer = timed_unsafe();
    NEED(answer == CUDA_SUCCESS, answer);
    answer = CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&memory);
    int at = 0;
    while (at < known && memories[at].at)
        at++;
    char *pages = at < MEMORIES && bytes <= total - held
                      ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                      : MAP_FAILED;
    if (pages != MAP_FAILED) {
        memories[at].at = pages;
        memories[at].bytes = bytes;
        known += at == known;
        held += bytes;
        *out = (CUdeviceptr)(uintptr_t)pages;
        answer = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&memory);
    return answer;
}

CUresult cuMemFree_v2(CUdeviceptr address)
{
    CURRENT;
    NEED(address, CUDA_SUCCESS);
    CUresult answer = CUDA_ERROR_INVALID_VALUE;
    timed_drain(NULL);
    pthread_mutex_lock(&memory);
    for (int i = 0; i < known; i++)
        if (memories[i].at == (char *)(uintptr_t)address) {
            munmap(memories[i].at, memories[i].bytes);
            held -= memories[i].bytes;
            memories[i].at = NULL;
            answer = CUDA_SUCCESS;
        }
    pthread_mutex_unlock(&memory);
    return answer;
}

CUresult cuMemGetInfo_v2(size_t *left, size_t *all)
{
    CURRENT;
    *left = total - held;
    *all = total;
    return CUDA_SUCCESS;
}

/* Copies by the legacy stream: they wait for the work before them, and are over when they return. */
static CUresult copy(void *to, const void *from, size_t bytes)
{
    CURRENT;
    timed_drain(timed_current());
    memcpy(to, from, bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes)
{
    NEED(timed_has_memory(to, bytes), CUDA_ERROR_INVALID_VALUE);
    return copy((void *)(uintptr_t)to, from, bytes);
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
    NEED(timed_has_memory(from, bytes), CUDA_ERROR_INVALID_VALUE);
    return copy(to, (const void *)(uintptr_t)from, bytes);
}

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count)
{
    CURRENT;
    NEED(timed_has_memory(to, count), CUDA_ERROR_INVALID_VALUE);
    timed_drain(timed_current());
    memset((void *)(uintptr_t)to, value, count);
    return CUDA_SUCCESS;
}

/* Code. What an image contains does not matter: it has each function that is asked for. */

static CUresult load(CUmodule *out)
{
    CURRENT;
    NEED(out, CUDA_ERROR_INVALID_VALUE);
    timed_passes(host.LOAD);
    timed_lock();
    struct module *one = FREE(modules, MODULES);
    *one = (struct module){ .lives = 1 };
    timed_unlock();
    *out = (CUmodule)one;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoad(CUmodule *out, const char *path) { return path ? load(out) : CUDA_ERROR_INVALID_VALUE; }
CUresult cuModuleLoadData(CUmodule *out, const void *image) { return image ? load(out) : CUDA_ERROR_INVALID_VALUE; }

CUresult cuModuleLoadDataEx(CUmodule *out, const void *image, unsigned count, CUjit_option *options, void **values)
{
    (void)count, (void)options, (void)values;
    return cuModuleLoadData(out, image);
}

CUresult cuModuleLoadFatBinary(CUmodule *out, const void *image) { return cuModuleLoadData(out, image); }

CUresult cuModuleUnload(CUmodule handle)
{
    struct module *one = (struct module *)handle;
    CURRENT;
    NEED(one >= modules && one < modules + MODULES && one->lives, CUDA_ERROR_INVALID_HANDLE);
    timed_drain(NULL);
    one->lives = 0;
    return CUDA_SUCCESS;
}

/* How long the function takes that is named like busy_50us; 0 if the name does not say. */
static uint64_t ns_of_name(const char *name)
{
    const char *digits = strrchr(name, '_');
    char *unit;
    unsigned long long number = digits ? strtoull(digits + 1, &unit, 10) : 0;
    if (!number)
        return 0;
    return !strcmp(unit, "ns") ? number : !strcmp(unit, "us") ? number * 1000 : !strcmp(unit, "ms") ? number * 1000000 : 0;
}

CUresult cuModuleGetFunction(CUfunction *out, CUmodule handle, const char *name)
{
    struct module *of = (struct module *)handle;
    CURRENT;
    NEED(of >= modules && of < modules + MODULES && of->lives, CUDA_ERROR_INVALID_HANDLE);
    timed_lock();
    struct function *one = of->functions;
    while (one && strcmp(one->name, name))
        one = one->next;
    if (!one) {
        one = calloc(1, sizeof *one);
        strncpy(one->name, name, sizeof one->name - 1);
        one->of = of;
        one->next = of->functions;
        one->told = !strncmp(name, "timed_", 6) || !strncmp(name, "work_", 5);
        one->ns = ns_of_name(name);
        of->functions = one;
    }
    timed_unlock();
    *out = (CUfunction)one;
    return CUDA_SUCCESS;
}

CUresult cuFuncGetModule(CUmodule *out, CUfunction function)
{
    STARTED;
    NEED(function, CUDA_ERROR_INVALID_HANDLE);
    *out = (CUmodule)((struct function *)function)->of;
    return CUDA_SUCCESS;
}
