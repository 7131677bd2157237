/* Addresses and physical memory, joined by hand. */
#include "promises.h"

static CUmemAllocationProp pinned(CUmemLocationType where)
{
    return (CUmemAllocationProp){ .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location.type = where };
}

static CUmemAccessDesc access_of(CUmemLocationType who, CUmemAccess_flags what)
{
    return (CUmemAccessDesc){ .location.type = who, .flags = what };
}

static size_t granularity(void)
{
    CUmemAllocationProp where = pinned(CU_MEM_LOCATION_TYPE_DEVICE);
    size_t grain;
    ok(cuMemGetAllocationGranularity(&grain, &where, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    return grain;
}

static CUmemGenericAllocationHandle memory_of(size_t size)
{
    CUmemAllocationProp where = pinned(CU_MEM_LOCATION_TYPE_DEVICE);
    CUmemGenericAllocationHandle handle;
    ok(cuMemCreate(&handle, size, &where, 0));
    return handle;
}

static void one_memory_at_two_addresses_is_one_memory(void)
{
    size_t grain = granularity();
    CUmemGenericAllocationHandle handle = memory_of(4 * grain);
    CUmemAccessDesc all = access_of(CU_MEM_LOCATION_TYPE_DEVICE, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    CUdeviceptr one, other;
    unsigned char byte = 0;
    ok(cuMemAddressReserve(&one, 4 * grain, 0, 0, 0));
    ok(cuMemAddressReserve(&other, 4 * grain, 0, 0, 0));
    ok(cuMemMap(one, 4 * grain, 0, handle, 0));
    /* cuda.h: the offset "currently must be zero". */
    same(cuMemMap(other, grain, 3 * grain, handle, 0), CUDA_ERROR_NOT_SUPPORTED);
    ok(cuMemMap(other, 4 * grain, 0, handle, 0));
    ok(cuMemSetAccess(one, 4 * grain, &all, 1));
    ok(cuMemSetAccess(other, 4 * grain, &all, 1));
    ok(cuMemsetD8(one, 0, 4 * grain));
    ok(cuMemsetD8(other + 3 * grain, 9, grain));
    ok(cuCtxSynchronize());
    ok(cuMemcpyDtoH(&byte, one + 3 * grain, 1));
    same(byte, 9);
    ok(cuMemcpyDtoH(&byte, one + 3 * grain - 1, 1));
    same(byte, 0);
}

static void memory_without_access_cannot_be_touched(void)
{
    size_t grain = granularity();
    CUmemAccessDesc read = access_of(CU_MEM_LOCATION_TYPE_DEVICE, CU_MEM_ACCESS_FLAGS_PROT_READ);
    CUdeviceptr address;
    char byte;
    ok(cuMemAddressReserve(&address, grain, 0, 0, 0));
    holds(cuMemcpyDtoH(&byte, address, 1) != CUDA_SUCCESS);
    ok(cuMemMap(address, grain, 0, memory_of(grain), 0));
    holds(cuMemcpyDtoH(&byte, address, 1) != CUDA_SUCCESS);
    if (cuMemSetAccess(address, grain, &read, 1) != CUDA_SUCCESS)
        cannot("this driver has no read-only mappings");
    ok(cuMemcpyDtoH(&byte, address, 1));
}

static void host_memory_behind_a_handle_is_reached_by_host_and_device(void)
{
    size_t grain = granularity();
    CUmemAllocationProp where = pinned(CU_MEM_LOCATION_TYPE_HOST_NUMA);
    CUmemAccessDesc both[] = {
        access_of(CU_MEM_LOCATION_TYPE_DEVICE, CU_MEM_ACCESS_FLAGS_PROT_READWRITE),
        access_of(CU_MEM_LOCATION_TYPE_HOST_NUMA, CU_MEM_ACCESS_FLAGS_PROT_READWRITE),
    };
    CUmemGenericAllocationHandle handle;
    CUdeviceptr address;
    if (cuMemCreate(&handle, grain, &where, 0) != CUDA_SUCCESS)
        cannot("this driver makes no host memory behind handles");
    size_t before = free_bytes();
    ok(cuMemAddressReserve(&address, grain, 0, 0, 0));
    ok(cuMemMap(address, grain, 0, handle, 0));
    ok(cuMemSetAccess(address, grain, both, 2));
    ok(cuMemsetD8(address, 4, grain));
    ok(cuCtxSynchronize());
    same(*(unsigned char *)address, 4);
    holds(free_bytes() + MIB > before);
}

static void the_host_gets_no_access_to_memory_of_a_device(void)
{
    size_t grain = granularity();
    CUmemAccessDesc host = access_of(CU_MEM_LOCATION_TYPE_HOST, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    CUdeviceptr address;
    if (attribute(CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS))
        cannot("this host reaches its device's memory");
    ok(cuMemAddressReserve(&address, grain, 0, 0, 0));
    ok(cuMemMap(address, grain, 0, memory_of(grain), 0));
    holds(cuMemSetAccess(address, grain, &host, 1) != CUDA_SUCCESS);
}

static void sizes_and_addresses_keep_to_the_granularity(void)
{
    size_t grain = granularity();
    CUmemAllocationProp where = pinned(CU_MEM_LOCATION_TYPE_DEVICE);
    CUmemGenericAllocationHandle handle;
    CUdeviceptr address;
    same(cuMemCreate(&handle, grain + 1, &where, 0), CUDA_ERROR_INVALID_VALUE);
    same(cuMemCreate(&handle, 0, &where, 0), CUDA_ERROR_INVALID_VALUE);
    handle = memory_of(2 * grain);
    ok(cuMemAddressReserve(&address, 4 * grain, 0, 0, 0));
    /* A handle is mapped as a whole. Where the reservation ends before it is not asked: a driver may map it all the same. */
    same(cuMemMap(address, grain / 2, 0, handle, 0), CUDA_ERROR_NOT_SUPPORTED);
    same(cuMemMap(address, grain, 0, handle, 0), CUDA_ERROR_NOT_SUPPORTED);
    same(cuMemMap(address, 3 * grain, 0, handle, 0), CUDA_ERROR_NOT_SUPPORTED);
    ok(cuMemMap(address, 2 * grain, 0, handle, 0));
    /* Which errors these are is not promised. */
    holds(cuMemMap(address, 2 * grain, 0, handle, 0) != CUDA_SUCCESS);
    holds(cuMemUnmap(address, grain) != CUDA_SUCCESS);
    ok(cuMemUnmap(address, 2 * grain));
    ok(cuMemAddressFree(address, 4 * grain));
}

static void a_released_handle_is_none_and_a_retained_one_lives(void)
{
    size_t grain = granularity();
    CUmemGenericAllocationHandle handle = memory_of(grain), again;
    CUmemAllocationProp where;
    CUdeviceptr address;
    ok(cuMemAddressReserve(&address, grain, 0, 0, 0));
    ok(cuMemMap(address, grain, 0, handle, 0));
    ok(cuMemRelease(handle));
    ok(cuMemRetainAllocationHandle(&again, (void *)address));
    ok(cuMemGetAllocationPropertiesFromHandle(&where, again));
    same(where.location.type, CU_MEM_LOCATION_TYPE_DEVICE);
    ok(cuMemRelease(again));
    ok(cuMemUnmap(address, grain));
    same(cuMemRetainAllocationHandle(&again, (void *)address), CUDA_ERROR_INVALID_VALUE);
}

const struct promise virtual_memory[] = {
    PROMISE(one_memory_at_two_addresses_is_one_memory),
    PROMISE(memory_without_access_cannot_be_touched),
    PROMISE(host_memory_behind_a_handle_is_reached_by_host_and_device),
    PROMISE(the_host_gets_no_access_to_memory_of_a_device),
    PROMISE(sizes_and_addresses_keep_to_the_granularity),
    PROMISE(a_released_handle_is_none_and_a_retained_one_lives),
    { 0 },
};
