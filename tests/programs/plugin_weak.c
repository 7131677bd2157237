/* A plugin that asks by weak references whether there is a driver. */
#include <cuda.h>

#pragma weak cuInit
#pragma weak cuMemAlloc_v2

int has_driver(void)
{
    return cuInit != NULL || cuMemAlloc_v2 != NULL;
}
