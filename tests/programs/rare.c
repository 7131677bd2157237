/* Takes and gives memory by calls that few programs use, on the driver of `drivers/other_rare.c`. After each step it
 * says what the driver holds and what is left of the slice. */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#define cuMemGetInfo cuMemGetInfo_v2
CUresult cuMemGetInfo(size_t *, size_t *);
CUresult cuMemAlloc_v2(CUdeviceptr *, size_t);
#include "common.h"

static size_t (*figure)(void);
static size_t all;

static void step(const char *name)
{
    size_t left, total;
    must(cuMemGetInfo(&left, &total));
    printf("step=%s\nheld=%zu\ncharged=%zu\n", name, figure(), total - left);
    fflush(stdout);
}

int main(void)
{
    CUdeviceptr_v1 rows;
    unsigned pitch;
    CUarray flat, deep;
    CUexternalMemory external;
    CUmemGenericAllocationHandle mapped, bound, object;
    CUdeviceptr at = 1ull << 32, over;
    CUmemAllocationProp device = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location.type = CU_MEM_LOCATION_TYPE_DEVICE };
    CUmulticastObjectProp team = { .numDevices = 1, .size = 64 * MIB };
    CUDA_ARRAY_DESCRIPTOR_v1 plane = { 1024, 1024, CU_AD_FORMAT_UNSIGNED_INT8, 1 };
    CUDA_ARRAY3D_DESCRIPTOR_v1 box = { 1024, 1024, 4, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0 };
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC other = { .type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD, .size = 16 * MIB };

    figure = dlsym(RTLD_DEFAULT, "other_figure");
    open_device();
    step("nothing");
    must(cuMemAllocPitch(&rows, &pitch, 1000, 1024, 4));
    step("rows of 32 bits");
    must(cuArrayCreate(&flat, &plane));
    step("an array of 32 bits");
    must(cuArray3DCreate(&deep, &box));
    step("a box of 32 bits");
    must(cuMemFree(rows));
    must(cuArrayDestroy(flat));
    must(cuArrayDestroy(deep));
    step("all given back");

    must(cuMemCreate(&mapped, 8 * MIB, &device, 0));
    must(cuMemMap(at, 8 * MIB, 0, mapped, 0));
    must(cuMemRelease(mapped));
    step("released but mapped");
    must(cuMulticastCreate(&object, &team));
    must(cuMulticastBindAddr(object, 0, at, 8 * MIB, 0));
    must(cuMemUnmap(at, 8 * MIB));
    step("unmapped but bound");
    must(cuMemCreate(&bound, 4 * MIB, &device, 0));
    must(cuMulticastBindMem(object, 8 * MIB, bound, 0, 4 * MIB, 0));
    must(cuMemRelease(bound));
    step("released but bound");
    must(cuMulticastUnbind(object, 0, 8 * MIB, 4 * MIB));
    step("unbound");
    must(cuMemRelease(object));
    step("the object is gone");

    must(cuImportExternalMemory(&external, &other));
    must(cuMemGetInfo(&all, &(size_t){ 0 }));
    say("left", (long long)all);
    say("over", cuMemAlloc_v2(&over, all + 1));
    must(cuDestroyExternalMemory(external));
    step("no more of another API's");
    return 0;
}
