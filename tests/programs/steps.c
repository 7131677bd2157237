/* Takes device memory of every kind, waits for a line, gives it back, waits for another line, and ends. A call that fails is
 * counted, and the program goes on: what the driver gave is given back. "held" and "given" are the numbers of failures so far. */
#include "common.h"

enum { SMALL = 4096 };

static CUdeviceptr plain, small[3], managed, pitched, ordered, pooled;
static CUarray array;
static CUmemGenericAllocationHandle physical;
static CUmemoryPool pool;
static CUcontext second;
static long failed;

/* Whether a call succeeded; a failure is counted. */
static int ok(CUresult answer)
{
    failed += answer != CUDA_SUCCESS;
    return answer == CUDA_SUCCESS;
}

static void take(CUdevice device)
{
    CUmemAllocationProp where = { .type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                  .location = { CU_MEM_LOCATION_TYPE_DEVICE, device } };
    CUmemPoolProps of_pool = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                               .location = { CU_MEM_LOCATION_TYPE_DEVICE, device } };
    CUDA_ARRAY_DESCRIPTOR shape = { .Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
    size_t row;

    if (!ok(cuMemAlloc(&plain, 5 * MIB)))
        plain = 0;
    for (int i = 0; i < 3; i++)
        if (!ok(cuMemAlloc(&small[i], SMALL)))
            small[i] = 0;
    if (!ok(cuMemAllocManaged(&managed, 4 * MIB, CU_MEM_ATTACH_GLOBAL)))
        managed = 0;
    if (!ok(cuMemAllocPitch(&pitched, &row, 1000, 3000, 4)))
        pitched = 0;
    if (!ok(cuArrayCreate(&array, &shape)))
        array = NULL;
    if (!ok(cuMemCreate(&physical, 4 * MIB, &where, 0)))
        physical = 0;
    if (!ok(cuMemAllocAsync(&ordered, 3 * MIB, NULL)))
        ordered = 0;
    if (!ok(cuMemPoolCreate(&pool, &of_pool)))
        pool = NULL;
    if (!pool || !ok(cuMemAllocFromPoolAsync(&pooled, 3 * MIB, pool, NULL)))
        pooled = 0;
    ok(cuCtxSynchronize());
    if (!ok(cuCtxCreate(&second, NULL, 0, device)))
        second = NULL;
}

static void give(CUcontext own)
{
    if (second)
        ok(cuCtxDestroy(second));
    ok(cuCtxSetCurrent(own));
    if (pooled)
        ok(cuMemFreeAsync(pooled, NULL));
    ok(cuCtxSynchronize());
    if (pool)
        ok(cuMemPoolDestroy(pool));
    if (ordered)
        ok(cuMemFreeAsync(ordered, NULL));
    ok(cuCtxSynchronize());
    if (physical)
        ok(cuMemRelease(physical));
    if (array)
        ok(cuArrayDestroy(array));
    for (int i = 0; i < 3; i++)
        if (small[i])
            ok(cuMemFree(small[i]));
    if (pitched)
        ok(cuMemFree(pitched));
    if (managed)
        ok(cuMemFree(managed));
    if (plain)
        ok(cuMemFree(plain));
    ok(cuCtxSynchronize());
}

/* Until the test writes "on" it may ask for a look at the memory. */
static void wait_and_look(void)
{
    char line[64];
    size_t unused, total;
    while (next_line(line, sizeof line) && strncmp(line, "look", 4) == 0)
        say("looked", cuMemGetInfo(&unused, &total));
}

int main(void)
{
    CUdevice device = 0;
    CUcontext own = NULL;
    unsigned long (*stores)(void) = (unsigned long (*)(void))dlsym(RTLD_DEFAULT, "stores_so_far");

    ok(cuInit(0));
    ok(cuDeviceGet(&device, 0));
    int usable = ok(cuDevicePrimaryCtxRetain(&own, device)) && ok(cuCtxSetCurrent(own));
    if (usable)
        take(device);
    say("held", failed);
    wait_and_look();
    if (usable)
        give(own);
    say("given", failed);
    wait_and_look();
    if (own)
        ok(cuDevicePrimaryCtxRelease(device));
    say("stores", stores ? (long long)stores() : 0);
    return 0;
}
