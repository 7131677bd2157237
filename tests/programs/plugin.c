/* A plugin that brings its own way to the driver, chosen when it is compiled: linked symbols, dlsym, dlsym with a driver
 * that only the environment names (BY_NAME), or RTLD_NEXT, from an exported function or (CONSTRUCTOR) already while it
 * is being loaded. */
#include "walk.h"

#if defined(BY_LINK)
static struct door enter(void)
{
    return (struct door){ cuInit, cuDeviceGet, cuDevicePrimaryCtxRetain, cuCtxSetCurrent,
                          cuMemGetInfo, cuMemAlloc, cuMemFree };
}
#else
static void *find(const char *name)
{
#if defined(BY_NEXT)
    return dlsym(RTLD_NEXT, name);
#else
    static void *driver;
#if defined(BY_NAME)
    if (!driver)
        driver = dlopen(getenv("DRIVER"), RTLD_NOW);
#else
    if (!driver)
        driver = dlopen("libcuda.so.1", RTLD_NOW);
#endif
    return dlsym(driver, name);
#endif
}

static struct door enter(void)
{
    return open_door(find);
}
#endif

#if defined(CONSTRUCTOR)
__attribute__((constructor))
#endif
int plugin_walk(void)
{
    struct door driver = enter();
    return walk(&driver);
}
