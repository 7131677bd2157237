/* The timed driver's start, contexts, memory and code (timed.h). */
#include "timed_host.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#undef cuGetProcAddress
#undef cuDeviceGetUuid
#undef cuCtxCreate

enum { CONTEXTS = 64, MODULES = 4096, DEEP = 64, MEMORIES = 65536 };

static const size_t total = 64ull << 30;
static struct context contexts[CONTEXTS];
static struct module modules[MODULES];
static struct { char *at; size_t bytes; } memories[MEMORIES];
static size_t held;
static int known; /* memories */
static long primary_uses;
static unsigned primary_flags;
static struct context *primary;
static _Thread_local struct context *stack[DEEP];
static _Thread_local int depth;
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER, memory = PTHREAD_MUTEX_INITIALIZER;

void timed_lock(void) { pthread_mutex_lock(&table); }
void timed_unlock(void) { pthread_mutex_unlock(&table); }

void *timed_free(void *from, size_t size, int most)
{
    for (int i = 0; i < most; i++)
        if (!*(long *)((char *)from + i * size))
            return (char *)from + i * size;
    abort();
}

static bool has_memory(uint64_t address, uint64_t bytes)
{
    bool has = false;
    pthread_mutex_lock(&memory);
    for (int i = 0; i < known; i++)
        has |= memories[i].at && address >= (uint64_t)(uintptr_t)memories[i].at &&
               address + bytes >= address && address + bytes <= (uint64_t)(uintptr_t)memories[i].at + memories[i].bytes;
    pthread_mutex_unlock(&memory);
    return has;
}

static void host_passes(uint64_t ns) { host_until(host_ns() + ns); }

CUresult cuInit(unsigned flags)
{
    NEED(!flags, CUDA_ERROR_INVALID_VALUE);
    timed_lock();
    if (!device_is_mine()) {
        device_open(has_memory);
        host_passes(host.INIT);
    }
    timed_unlock();
    return CUDA_SUCCESS;
}

#define STARTED NEED(device_is_mine(), CUDA_ERROR_NOT_INITIALIZED)
#define DEVICE(device)                                                                                        \
    STARTED;                                                                                                    \
    NEED((device) == 0, CUDA_ERROR_INVALID_DEVICE)
#define CURRENT                                                                                               \
    STARTED;                                                                                                    \
    NEED(timed_current(), CUDA_ERROR_INVALID_CONTEXT)

CUresult cuDriverGetVersion(int *version)
{
    NEED(version, CUDA_ERROR_INVALID_VALUE);
    *version = 13000;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count)
{
    STARTED;
    NEED(count, CUDA_ERROR_INVALID_VALUE);
    *count = 1;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    DEVICE(ordinal);
    NEED(device, CUDA_ERROR_INVALID_VALUE);
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    DEVICE(device);
    NEED(name && length > 0, CUDA_ERROR_INVALID_VALUE);
    strncpy(name, "Timed", (size_t)length);
    name[length - 1] = 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    DEVICE(device);
    *bytes = total;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
    DEVICE(device);
    memset(uuid, 0x0d, sizeof *uuid);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) { return cuDeviceGetUuid(uuid, device); }

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute of, CUdevice device)
{
    DEVICE(device);
    NEED(value, CUDA_ERROR_INVALID_VALUE);
    switch (of) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS: *value = 1; break;
    default: *value = 0;
    }
    return CUDA_SUCCESS;
}

/* Contexts. */

bool timed_is_context(struct context *one)
{
    return one >= contexts && one < contexts + CONTEXTS && one->lives;
}

struct context *timed_current(void)
{
    struct context *top = depth ? stack[depth - 1] : NULL;
    return timed_is_context(top) ? top : NULL;
}

static struct context *new_context(unsigned flags)
{
    static unsigned long long ids;
    host_passes(host.CONTEXT);
    timed_lock();
    struct context *one = FREE(contexts, CONTEXTS);
    *one = (struct context){ .lives = 1, .id = ++ids, .flags = flags };
    one->legacy = (struct stream){ .lives = 1, .of = one, .blocking = true, .legacy = true };
    timed_unlock();
    return one;
}

static void end_context(struct context *one)
{
    timed_drain(one);
    timed_lock();
    one->lives = 0;
    for (int i = 0; i < STREAMS; i++)
        streams[i].lives = streams[i].lives && streams[i].of != one;
    timed_unlock();
}

CUresult cuCtxCreate_v2(CUcontext *out, unsigned flags, CUdevice device)
{
    DEVICE(device);
    NEED(out && depth < DEEP, CUDA_ERROR_INVALID_VALUE);
    struct context *one = new_context(flags);
    stack[depth++] = one;
    *out = (CUcontext)one;
    return CUDA_SUCCESS;
}

CUresult cuCtxCreate_v4(CUcontext *out, CUctxCreateParams *how, unsigned flags, CUdevice device)
{
    (void)how;
    return cuCtxCreate_v2(out, flags, device);
}

CUresult cuCtxDestroy_v2(CUcontext context)
{
    struct context *one = (struct context *)context;
    STARTED;
    NEED(timed_is_context(one) && one != primary, CUDA_ERROR_INVALID_CONTEXT);
    end_context(one);
    depth -= depth && stack[depth - 1] == one;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
    static pthread_mutex_t first = PTHREAD_MUTEX_INITIALIZER;
    DEVICE(device);
    NEED(out, CUDA_ERROR_INVALID_VALUE);
    pthread_mutex_lock(&first);
    if (!primary_uses++)
        primary = new_context(primary_flags);
    pthread_mutex_unlock(&first);
    *out = (CUcontext)primary;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    DEVICE(device);
    NEED(primary_uses, CUDA_ERROR_INVALID_CONTEXT);
    if (--primary_uses == 0)
        end_context(primary);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active)
{
    DEVICE(device);
    *flags = primary_flags;
    *active = primary_uses > 0;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags)
{
    DEVICE(device);
    primary_flags = flags;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    STARTED;
    NEED(!context || timed_is_context((struct context *)context), CUDA_ERROR_INVALID_CONTEXT);
    depth += !depth;
    stack[depth - 1] = (struct context *)context;
    depth -= !context;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *out)
{
    STARTED;
    *out = (CUcontext)timed_current();
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    STARTED;
    NEED(timed_is_context((struct context *)context) && depth < DEEP, CUDA_ERROR_INVALID_CONTEXT);
    stack[depth++] = (struct context *)context;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext *out)
{
    STARTED;
    NEED(depth, CUDA_ERROR_INVALID_CONTEXT);
    depth--;
    if (out)
        *out = (CUcontext)stack[depth];
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device)
{
    CURRENT;
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetId(CUcontext context, unsigned long long *id)
{
    struct context *one = context ? (struct context *)context : timed_current();
    STARTED;
    NEED(timed_is_context(one), CUDA_ERROR_INVALID_CONTEXT);
    *id = one->id;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version)
{
    struct context *one = context ? (struct context *)context : timed_current();
    STARTED;
    NEED(timed_is_context(one), CUDA_ERROR_INVALID_CONTEXT);
    *version = 13000;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetFlags(unsigned *flags)
{
    CURRENT;
    *flags = timed_current()->flags;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    CURRENT;
    *least = 0;
    *greatest = -5;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void)
{
    CURRENT;
    CUresult answer = timed_unsafe();
    if (answer == CUDA_SUCCESS)
        timed_drain(timed_current());
    return answer;
}

/* Memory of the device lies in the process. */

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
    NEED(has_memory(to, bytes), CUDA_ERROR_INVALID_VALUE);
    return copy((void *)(uintptr_t)to, from, bytes);
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
    NEED(has_memory(from, bytes), CUDA_ERROR_INVALID_VALUE);
    return copy(to, (const void *)(uintptr_t)from, bytes);
}

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count)
{
    CURRENT;
    NEED(has_memory(to, count), CUDA_ERROR_INVALID_VALUE);
    timed_drain(timed_current());
    memset((void *)(uintptr_t)to, value, count);
    return CUDA_SUCCESS;
}

/* Code. What an image contains does not matter: it has each function that is asked for. */

static CUresult load(CUmodule *out)
{
    CURRENT;
    NEED(out, CUDA_ERROR_INVALID_VALUE);
    host_passes(host.LOAD);
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

CUresult cuGetProcAddress_v2(const char *name, void **out, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *status)
{
    static const char *const own[] = { "_v3_ptsz", "_v2_ptsz", "_ptsz" }, *const all[] = { "_v4", "_v3", "_v2", "" };
    (void)version;
    NEED(name && out, CUDA_ERROR_INVALID_VALUE);
    *out = NULL;
    for (int i = 0; i < 3 && !*out && flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM; i++)
        *out = timed_find(name, own[i]);
    for (int i = 0; i < 4 && !*out; i++)
        *out = timed_find(name, all[i]);
    if (status)
        *status = *out ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *out ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetProcAddress(const char *name, void **out, int version, cuuint64_t flags)
{
    return cuGetProcAddress_v2(name, out, version, flags, NULL);
}
