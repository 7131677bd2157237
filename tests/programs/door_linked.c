/* The driver's functions as linked symbols. */
#include "walk.h"

int main(void)
{
    struct door driver = { cuInit, cuDeviceGet, cuDevicePrimaryCtxRetain, cuCtxSetCurrent,
                           cuMemGetInfo, cuMemAlloc, cuMemFree };
    return walk(&driver);
}
