/* The first versions of calls, which the libraries of CUDA 3.1 and before know: sizes and addresses have 32 bits, whatever
 * lies beyond them is not touched. */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
/* What the other files mean by these names. */
#define cuMemGetInfo cuMemGetInfo_v2
CUresult cuMemGetInfo(size_t *, size_t *);
#include "promises.h"
#undef cuMemGetInfo

#define BEYOND 0xA5A5A5A5u

static void sizes_of_32_bits_are_written_as_such(void)
{
    unsigned total[2] = { 0, BEYOND }, left[2] = { 0, BEYOND };
    size_t all;
    ok(cuDeviceTotalMem_v2(&all, device));
    ok(cuDeviceTotalMem(total, device));
    same(total[1], BEYOND);
    same(total[0], all > 0xFFFFFFFFu ? 0xFFFFFFFFu : (unsigned)all);
    ok(cuMemGetInfo(left, total));
    same(total[1], BEYOND);
    same(left[1], BEYOND);
    holds(left[0] <= total[0] && total[0] > 0);
}

static void memory_has_an_address_of_32_bits_or_is_refused(void)
{
    CUdeviceptr_v1 memory[2] = { 0, BEYOND };
    unsigned pitch[2] = { 0, BEYOND };
    size_t before = free_bytes();
    CUresult rc = cuMemAlloc(memory, 1 << 20);
    if (rc == CUDA_SUCCESS)
        ok(cuMemFree(memory[0]));
    else
        same(rc, CUDA_ERROR_OUT_OF_MEMORY);
    same(memory[1], BEYOND);
    rc = cuMemAllocPitch(memory, pitch, 1000, 100, 4);
    if (rc == CUDA_SUCCESS)
        ok(cuMemFree(memory[0]));
    else
        same(rc, CUDA_ERROR_OUT_OF_MEMORY);
    same(memory[1], BEYOND);
    same(pitch[1], BEYOND);
    same(free_bytes(), before);
    same(cuMemAlloc(memory, 0), CUDA_ERROR_INVALID_VALUE);
    same(cuMemAlloc(NULL, 1), CUDA_ERROR_INVALID_VALUE);
    same(cuMemAllocPitch(memory, pitch, 1000, 100, 5), CUDA_ERROR_INVALID_VALUE);
    same(cuMemFree(4096), CUDA_ERROR_INVALID_VALUE);
}

static void arrays_are_described_by_either_version(void)
{
    struct {
        CUDA_ARRAY_DESCRIPTOR_v1 told;
        unsigned beyond;
    } flat = { .beyond = BEYOND };
    struct {
        CUDA_ARRAY3D_DESCRIPTOR_v1 told;
        unsigned beyond;
    } deep = { .beyond = BEYOND };
    CUDA_ARRAY_DESCRIPTOR_v1 plane = { 1024, 2048, CU_AD_FORMAT_UNSIGNED_INT8, 1 };
    CUDA_ARRAY3D_DESCRIPTOR_v1 box = { 64, 128, 32, CU_AD_FORMAT_FLOAT, 2, 0 };
    CUDA_ARRAY3D_DESCRIPTOR wide;
    CUarray array;
    size_t before = free_bytes();

    ok(cuArrayCreate(&array, &plane));
    holds(before - free_bytes() >= 1024 * 2048);
    ok(cuArrayGetDescriptor(&flat.told, array));
    same(flat.told.Width, 1024);
    same(flat.told.Height, 2048);
    same(flat.told.Format, CU_AD_FORMAT_UNSIGNED_INT8);
    same(flat.told.NumChannels, 1);
    same(flat.beyond, BEYOND);
    ok(cuArrayDestroy(array));

    ok(cuArray3DCreate(&array, &box));
    ok(cuArray3DGetDescriptor(&deep.told, array));
    same(deep.told.Depth, 32);
    same(deep.told.NumChannels, 2);
    same(deep.beyond, BEYOND);
    ok(cuArray3DGetDescriptor_v2(&wide, array));
    same(wide.Width, 64);
    same(wide.Height, 128);
    same(wide.Depth, 32);
    ok(cuArrayDestroy(array));
    same(free_bytes(), before);
}

const struct promise narrow[] = {
    PROMISE(sizes_of_32_bits_are_written_as_such),
    PROMISE(memory_has_an_address_of_32_bits_or_is_refused),
    PROMISE(arrays_are_described_by_either_version),
    { 0 },
};
