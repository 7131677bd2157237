/* One walk through the driver by pointers that came in by some door: what each door program does.
 * The view must be the slice's, the charge must be taken once, the cap must hold. */
#pragma once
#include "common.h"

#define WALK_BYTES (64 * MIB)

struct door {
    CUresult (*init)(unsigned);
    CUresult (*device_get)(CUdevice *, int);
    CUresult (*retain)(CUcontext *, CUdevice);
    CUresult (*set_current)(CUcontext);
    CUresult (*mem_info)(size_t *, size_t *);
    CUresult (*mem_alloc)(CUdeviceptr *, size_t);
    CUresult (*mem_free)(CUdeviceptr);
};

/* Fills a door by asking `find(name)` for each function. */
#define open_door(find)                                                                                   \
    ((struct door){ (void *)find("cuInit"), (void *)find("cuDeviceGet"),                                  \
                    (void *)find("cuDevicePrimaryCtxRetain"), (void *)find("cuCtxSetCurrent"),            \
                    (void *)find("cuMemGetInfo_v2"), (void *)find("cuMemAlloc_v2"),                       \
                    (void *)find("cuMemFree_v2") })

static inline int walk(const struct door *driver)
{
    CUdevice device;
    CUcontext context;
    CUdeviceptr memory, more;
    size_t total, before, after, again;

    must(driver->init(0));
    must(driver->device_get(&device, 0));
    must(driver->retain(&context, device));
    must(driver->set_current(context));
    must(driver->mem_info(&before, &total));
    must(driver->mem_alloc(&memory, WALK_BYTES));
    must(driver->mem_info(&after, &total));
    say("total", (long long)total);
    say("charged", (long long)(before - after));
    say("over", driver->mem_alloc(&more, after + 1));
    must(driver->mem_free(memory));
    must(driver->mem_info(&again, &total));
    say("returned", (long long)(again - after));
    return 0;
}
