/* A driver unlike the simulated one: as little of a driver as `walk.h` asks for, written apart from it, in variants that
 * differ where drivers may differ: with -DOLD as of CUDA 8, without cuGetProcAddress, else with it; with -DSILENT it does
 * not tell what is current, with -DIMPLICIT nothing ever is; with -DHIDDEN cuGetProcAddress answers with what is not exported; rows padded to -DPITCH bytes; the rest of the variants are in
 * how it is linked (programs/Makefile). It keeps its own books, and says at the end what reached it. */
#define _GNU_SOURCE
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#undef cuGetProcAddress

enum { MOST = 4096 };

static const size_t total = 16ull << 30;
static size_t held, peak, sizes[MOST], context_held, code_held;
static long inits, allocations, frees, infos;
static CUcontext owners[MOST];
static _Thread_local CUcontext current;
#ifdef IMPLICIT
#define WORKS 1
#else
#define WORKS (current != NULL)
#endif
#ifndef LIFE
static char context;
#endif
static char module;

/* Tests have the driver stop in the middle of a call, after the call has done its work: `other_hold` names the call, and
 * the first thread in it waits for `other_let_go`. */
static const char *volatile held_call;
static int volatile holds;

void other_hold(const char *call)
{
    holds = 0;
    held_call = call;
}

int other_holds(void)
{
    return holds;
}

void other_let_go(void)
{
    held_call = NULL;
}

void other_returns(const char *call)
{
    if (held_call && !strcmp(held_call, call) && !__sync_lock_test_and_set(&holds, 1))
        while (held_call)
            usleep(100);
}

/* Or the driver calls the program back in the middle of an allocation, before it has given anything. */
static void (*call_back)(void);

void other_calls_back(void (*program)(void))
{
    call_back = program;
}

/* What contexts and code take, in MiB, is told by the environment; also how long a context takes to make, OTHER_CONTEXT_MS: such
 * a one is announced. */
static size_t cost(const char *name)
{
    const char *mib = getenv(name);
    return mib ? strtoull(mib, NULL, 10) << 20 : 0;
}

/* For other_ml.c: what this process holds in all. */
size_t other_figure(void)
{
    return held + context_held + code_held;
}

__attribute__((destructor)) static void report(void)
{
    if (inits)
        printf("driver_inits=%ld\ndriver_allocations=%ld\ndriver_frees=%ld\ndriver_infos=%ld\n"
               "driver_peak=%zu\ndriver_held=%zu\n", inits, allocations, frees, infos, peak, held);
}

CUresult cuInit(unsigned flags)
{
    inits++;
    return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *version)
{
    *version = 8000;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count)
{
    *count = 1;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return ordinal ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    *bytes = total;
    return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

#ifndef LIFE
CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
    const char *ms = getenv("OTHER_CONTEXT_MS");

    *out = (CUcontext)&context;
    context_held = cost("OTHER_CONTEXT_MIB");
    if (ms) {
        printf("makes_context=1\n");
        fflush(stdout);
        usleep((unsigned)atoi(ms) * 1000);
    }
    return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active)
{
    *flags = 0;
    *active = context_held != 0;
    return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    memset(sizes, 0, sizeof sizes);
    held = context_held = code_held = 0;
    return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}
#endif

CUresult cuModuleLoadData(CUmodule *out, const void *image)
{
    *out = (CUmodule)&module;
    code_held += cost("OTHER_CODE_MIB");
    return image ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuModuleUnload(CUmodule loaded)
{
    code_held -= cost("OTHER_CODE_MIB");
    return loaded ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* A launch that waits takes a MiB as soon as it may; the other limits take nothing. */
static size_t limits[CU_LIMIT_MAX];

CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    if (limit >= CU_LIMIT_MAX)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    if (limit == CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT)
        code_held += (value << 20) - (limits[limit] << 20);
    limits[limit] = value;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetLimit(size_t *value, CUlimit limit)
{
    if (limit >= CU_LIMIT_MAX)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    *value = limits[limit];
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext to)
{
#ifdef IMPLICIT
    to = NULL;
#endif
    current = to;
    return CUDA_SUCCESS;
}

#ifndef SILENT
CUresult cuCtxGetCurrent(CUcontext *out)
{
    *out = current;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device)
{
    *device = 0;
    return current ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}
#endif

CUresult cuMemAlloc_v2(CUdeviceptr *memory, size_t bytes)
{
    allocations++;
    if (!WORKS)
        return CUDA_ERROR_INVALID_CONTEXT;
    void (*program)(void) = call_back;
    if (program)
        program();
    for (int i = 0; i < MOST; i++)
        if (!sizes[i] && held + bytes <= total) {
            sizes[i] = bytes;
            owners[i] = current;
            held += bytes;
            peak = held > peak ? held : peak;
            *memory = (CUdeviceptr)(i + 1) << 40;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_OUT_OF_MEMORY;
}

#ifndef PITCH
#define PITCH 512
#endif

CUresult cuMemAllocPitch_v2(CUdeviceptr *memory, size_t *pitch, size_t width, size_t height, unsigned element)
{
    *pitch = (width + PITCH - 1) / PITCH * PITCH;
    return element ? cuMemAlloc_v2(memory, *pitch * height) : CUDA_ERROR_INVALID_VALUE;
}

/* One export that calls another: whoever counts calls must not count this twice. */
CUresult cuMemAllocManaged(CUdeviceptr *memory, size_t bytes, unsigned flags)
{
    return flags ? cuMemAlloc_v2(memory, bytes) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemFree_v2(CUdeviceptr memory)
{
    size_t at = (memory >> 40) - 1;
    frees++;
    if (at >= MOST || !sizes[at])
        return CUDA_ERROR_INVALID_VALUE;
    held -= sizes[at];
    sizes[at] = 0;
    other_returns("cuMemFree");
    return CUDA_SUCCESS;
}

/* For other_life.c: the memory of a context goes, or gets another owner. */
void other_leaves(CUcontext from, CUcontext to)
{
    for (int i = 0; i < MOST; i++)
        if (sizes[i] && owners[i] == from) {
            owners[i] = to;
            if (!to) {
                held -= sizes[i];
                sizes[i] = 0;
            }
        }
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr memory)
{
    size_t at = (memory >> 40) - 1;
    if (at >= MOST || !sizes[at])
        return CUDA_ERROR_NOT_FOUND;
    *base = memory;
    *bytes = sizes[at];
    return CUDA_SUCCESS;
}

/* No driver has this: memory that goes without a call that anybody could see. */
void other_loses_all(void)
{
    memset(sizes, 0, sizeof sizes);
    held = 0;
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *all)
{
    infos++;
    if (!WORKS)
        return CUDA_ERROR_INVALID_CONTEXT;
    *free_bytes = total - held;
    *all = total;
    return CUDA_SUCCESS;
}

#ifndef OLD
CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
    memset(uuid, 0x0d, sizeof *uuid);
    return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

#ifdef HIDDEN
/* What it hands out is not what it exports, and of some it exports nothing. */
#define OWN(function, arguments, values) static CUresult own_##function arguments { return function values; }
OWN(cuInit, (unsigned flags), (flags))
OWN(cuDeviceGet, (CUdevice *device, int ordinal), (device, ordinal))
OWN(cuDevicePrimaryCtxRetain, (CUcontext *out, CUdevice device), (out, device))
OWN(cuCtxSetCurrent, (CUcontext to), (to))
OWN(cuMemGetInfo_v2, (size_t *left, size_t *all), (left, all))
OWN(cuMemAlloc_v2, (CUdeviceptr *memory, size_t bytes), (memory, bytes))
OWN(cuMemFree_v2, (CUdeviceptr memory), (memory))
#else
#define own_cuInit cuInit
#define own_cuDeviceGet cuDeviceGet
#define own_cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRetain
#define own_cuCtxSetCurrent cuCtxSetCurrent
#define own_cuMemGetInfo_v2 cuMemGetInfo_v2
#define own_cuMemAlloc_v2 cuMemAlloc_v2
#define own_cuMemFree_v2 cuMemFree_v2
#endif

CUresult cuGetProcAddress_v2(const char *name, void **out, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *status)
{
    static const struct { const char *name; void *function; } known[] = {
        { "cuInit", own_cuInit },
        { "cuDeviceGet", own_cuDeviceGet },
        { "cuDevicePrimaryCtxRetain", own_cuDevicePrimaryCtxRetain },
        { "cuCtxSetCurrent", own_cuCtxSetCurrent },
        { "cuMemGetInfo", own_cuMemGetInfo_v2 },
        { "cuMemAlloc", own_cuMemAlloc_v2 },
        { "cuMemFree", own_cuMemFree_v2 },
        { "cuGetProcAddress", cuGetProcAddress_v2 },
    };
    *out = NULL;
    (void)version, (void)flags;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i].name))
            *out = known[i].function;
    if (status)
        *status = *out ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return CUDA_SUCCESS;
}

CUresult cuGetProcAddress(const char *name, void **out, int version, cuuint64_t flags)
{
    cuGetProcAddress_v2(name, out, version, flags, NULL);
    return *out ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
#endif
