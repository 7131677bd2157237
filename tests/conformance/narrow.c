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
    unsigned total[2] = { 0, BEYOND };
    size_t all;
    ok(cuDeviceTotalMem_v2(&all, device));
    ok(cuDeviceTotalMem(total, device));
    same(total[1], BEYOND);
    same(total[0], all > 0xFFFFFFFFu ? 0xFFFFFFFFu : (unsigned)all);
}

/* Those that work in a context want one of their time, as a program of today has none. */
static void calls_of_32_bits_want_a_context_of_their_time(void)
{
    CUdeviceptr_v1 memory[2] = { 0, BEYOND };
    unsigned total[2] = { 0, BEYOND }, left[2] = { 0, BEYOND }, pitch[2] = { 0, BEYOND };
    CUDA_ARRAY_DESCRIPTOR_v1 plane = { 1024, 2048, CU_AD_FORMAT_UNSIGNED_INT8, 1 };
    CUDA_ARRAY3D_DESCRIPTOR_v1 box = { 64, 128, 32, CU_AD_FORMAT_FLOAT, 2, 0 };
    CUarray array;
    size_t before = free_bytes();
    same(cuMemGetInfo(left, total), CUDA_ERROR_INVALID_CONTEXT);
    same(cuMemAlloc(memory, 1 << 20), CUDA_ERROR_INVALID_CONTEXT);
    same(cuMemAllocPitch(memory, pitch, 1000, 100, 4), CUDA_ERROR_INVALID_CONTEXT);
    same(cuMemFree(0), CUDA_ERROR_INVALID_CONTEXT);
    same(cuArrayCreate(&array, &plane), CUDA_ERROR_INVALID_CONTEXT);
    same(cuArray3DCreate(&array, &box), CUDA_ERROR_INVALID_CONTEXT);
    same(total[1], BEYOND);
    same(left[1], BEYOND);
    same(memory[1], BEYOND);
    same(pitch[1], BEYOND);
    same(free_bytes(), before);
}

const struct promise narrow[] = {
    PROMISE(sizes_of_32_bits_are_written_as_such),
    PROMISE(calls_of_32_bits_want_a_context_of_their_time),
    { 0 },
};
