/* The timed driver's start, devices and contexts (timed.h). */
#include "timed_host.h"
#include <stdlib.h>
#include <string.h>

#undef cuGetProcAddress
#undef cuDeviceGetUuid
#undef cuCtxCreate

enum { CONTEXTS = 64, DEEP = 64 };

static struct context contexts[CONTEXTS];
static long primary_uses;
static unsigned primary_flags;
static struct context *primary;
static _Thread_local struct context *stack[DEEP];
static _Thread_local int depth;
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;

void timed_lock(void) { pthread_mutex_lock(&table); }
void timed_unlock(void) { pthread_mutex_unlock(&table); }

void *timed_free(void *from, size_t size, int most)
{
    for (int i = 0; i < most; i++)
        if (!*(long *)((char *)from + i * size))
            return (char *)from + i * size;
    abort();
}

void timed_passes(uint64_t ns) { host_until(host_ns() + ns); }

CUresult cuInit(unsigned flags)
{
    NEED(!flags, CUDA_ERROR_INVALID_VALUE);
    timed_lock();
    if (!device_is_mine()) {
        device_open(timed_has_memory);
        timed_passes(host.INIT);
    }
    timed_unlock();
    return CUDA_SUCCESS;
}

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
    timed_passes(host.CONTEXT);
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
