/* A preloaded tool of somebody else's: wraps cuMemAlloc_v2 and goes on by RTLD_NEXT, counting. Whichever
 * of the two libraries comes first, the program's call must reach each once. */
#include "common.h"

static int calls;

CUresult cuMemAlloc_v2(CUdeviceptr *memory, size_t bytes)
{
    static CUresult (*next)(CUdeviceptr *, size_t);
    if (!next)
        next = (CUresult(*)(CUdeviceptr *, size_t))dlsym(RTLD_NEXT, "cuMemAlloc_v2");
    calls++;
    return next(memory, bytes);
}

__attribute__((destructor)) static void report(void)
{
    if (calls)
        printf("tool=%d\n", calls);
}
