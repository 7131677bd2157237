/* What few programs ask of a driver, beside `other.c`: calls of the first driver API with 32-bit sizes, memory of other
 * APIs, and physical memory that mappings and multicast objects keep. Addresses and handles are those of other.c. */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#include <string.h>

CUresult cuMemAlloc_v2(CUdeviceptr *, size_t);
CUresult cuMemFree_v2(CUdeviceptr);
void other_returns(const char *);

enum { MOST = 64 };

/* Physical memory and multicast objects; mappings and bindings refer to them. Number n is handle n + 1. */
static struct { CUdeviceptr memory; int references, lives; } physical[MOST];
static struct { CUmemGenericAllocationHandle object; CUdeviceptr at; int of; } kept[MOST];

static CUresult kept_by(int of, CUmemGenericAllocationHandle object, CUdeviceptr at)
{
    for (int i = 0; i < MOST; i++)
        if (!kept[i].of) {
            kept[i].of = of, kept[i].object = object, kept[i].at = at;
            physical[of - 1].references++;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_OUT_OF_MEMORY;
}

static void drop(int of)
{
    if (--physical[of - 1].references)
        return;
    for (int i = 0; i < MOST; i++)
        if (kept[i].of && kept[i].object == (CUmemGenericAllocationHandle)of) {
            int inner = kept[i].of;
            kept[i].of = 0;
            drop(inner);
        }
    if (physical[of - 1].memory)
        cuMemFree_v2(physical[of - 1].memory);
    memset(&physical[of - 1], 0, sizeof physical[0]);
}

static CUresult no_longer(CUmemGenericAllocationHandle object, CUdeviceptr at)
{
    for (int i = 0; i < MOST; i++)
        if (kept[i].of && kept[i].object == object && kept[i].at == at) {
            int of = kept[i].of;
            kept[i].of = 0;
            drop(of);
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}

static CUresult create(CUmemGenericAllocationHandle *handle, size_t bytes)
{
    for (int i = 0; i < MOST; i++)
        if (!physical[i].lives) {
            CUresult answer = bytes ? cuMemAlloc_v2(&physical[i].memory, bytes) : CUDA_SUCCESS;
            physical[i].lives = physical[i].references = answer == CUDA_SUCCESS;
            *handle = (CUmemGenericAllocationHandle)i + 1;
            return answer;
        }
    return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *how,
                     unsigned long long flags)
{
    return how && !flags ? create(handle, bytes) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    drop((int)handle);
    other_returns("cuMemRelease");
    return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr at, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags)
{
    return bytes && !offset && !flags ? kept_by((int)handle, 0, at) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemUnmap(CUdeviceptr at, size_t bytes)
{
    CUresult answer = bytes ? no_longer(0, at) : CUDA_ERROR_INVALID_VALUE;
    other_returns("cuMemUnmap");
    return answer;
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address)
{
    for (int i = 0; i < MOST; i++)
        if (kept[i].of && !kept[i].object && kept[i].at == (CUdeviceptr)address) {
            *handle = (CUmemGenericAllocationHandle)kept[i].of;
            physical[kept[i].of - 1].references++;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMulticastCreate(CUmemGenericAllocationHandle *object, const CUmulticastObjectProp *how)
{
    return how ? create(object, 0) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMulticastBindMem(CUmemGenericAllocationHandle object, size_t offset, CUmemGenericAllocationHandle memory,
                            size_t from, size_t bytes, unsigned long long flags)
{
    return !from && bytes && !flags ? kept_by((int)memory, object, offset) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMulticastBindAddr(CUmemGenericAllocationHandle object, size_t offset, CUdeviceptr address, size_t bytes,
                             unsigned long long flags)
{
    for (int i = 0; i < MOST; i++)
        if (kept[i].of && !kept[i].object && kept[i].at == address)
            return bytes && !flags ? kept_by(kept[i].of, object, offset) : CUDA_ERROR_INVALID_VALUE;
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMulticastUnbind(CUmemGenericAllocationHandle object, CUdevice device, size_t offset, size_t bytes)
{
    CUresult answer = !device && bytes ? no_longer(object, offset) : CUDA_ERROR_INVALID_VALUE;
    other_returns("cuMulticastUnbind");
    return answer;
}

/* 32-bit sizes and addresses: this driver's addresses do not fit, so it gives their upper half. */
CUresult cuMemAllocPitch(CUdeviceptr_v1 *memory, unsigned *pitch, unsigned width, unsigned height, unsigned element)
{
    CUdeviceptr wide = 0;
    CUresult answer = cuMemAlloc_v2(&wide, (size_t)(*pitch = (width + 511) / 512 * 512) * height);
    *memory = (CUdeviceptr_v1)(wide >> 32);
    return element ? answer : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemFree(CUdeviceptr_v1 memory)
{
    return cuMemFree_v2((CUdeviceptr)memory << 32);
}

CUresult cuArrayCreate(CUarray *array, const CUDA_ARRAY_DESCRIPTOR_v1 *how)
{
    return cuMemAlloc_v2((CUdeviceptr *)array, (size_t)how->Width * how->Height * how->NumChannels);
}

CUresult cuArray3DCreate(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR_v1 *how)
{
    return cuMemAlloc_v2((CUdeviceptr *)array, (size_t)how->Width * how->Height * how->Depth * how->NumChannels);
}

CUresult cuArrayDestroy(CUarray array)
{
    return cuMemFree_v2((CUdeviceptr)array);
}

/* Memory of another API is counted there; here it has a handle. */
CUresult cuImportExternalMemory(CUexternalMemory *memory, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *how)
{
    static char it;
    *memory = (CUexternalMemory)&it;
    return how->size ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDestroyExternalMemory(CUexternalMemory memory)
{
    return memory ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
