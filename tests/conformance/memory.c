/* Device, managed and pinned memory. */
#include "promises.h"
#include <setjmp.h>

static sigjmp_buf after_the_fault;

static void faulted(int signal)
{
    (void)signal;
    siglongjmp(after_the_fault, 1);
}

/* Whether the host may read there. */
static int host_reads(CUdeviceptr address)
{
    int faults = sigsetjmp(after_the_fault, 1);
    signal(SIGSEGV, faulted);
    if (!faults)
        (void)*(volatile char *)address;
    signal(SIGSEGV, SIG_DFL);
    return !faults;
}

static void the_host_reaches_managed_memory_and_no_other_of_a_device(void)
{
    CUdeviceptr plain, managed;
    if (attribute(CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS))
        cannot("this host reaches its device's memory");
    ok(cuMemAlloc(&plain, MIB));
    ok(cuMemAllocManaged(&managed, MIB, CU_MEM_ATTACH_GLOBAL));
    same(host_reads(plain), 0);
    same(host_reads(managed), 1);
    ok(cuMemFree(managed));
    same(host_reads(managed), 0);
}

static void what_the_device_writes_to_managed_memory_the_host_reads(void)
{
    CUdeviceptr managed, plain;
    unsigned char byte;
    ok(cuMemAllocManaged(&managed, 4 * MIB, CU_MEM_ATTACH_GLOBAL));
    ok(cuMemAlloc(&plain, 4 * MIB));
    ok(cuMemsetD8(managed, 6, 4 * MIB));
    ok(cuCtxSynchronize());
    same(((unsigned char *)managed)[4 * MIB - 1], 6);
    ((unsigned char *)managed)[5] = 8;
    ok(cuMemcpyDtoD(plain, managed, MIB));
    ok(cuMemcpyDtoH(&byte, plain + 5, 1));
    same(byte, 8);
}

static void copies_of_every_size_arrive(void)
{
    static unsigned char from[3 * MIB], back[3 * MIB];
    static const size_t sizes[] = { 1, 511, 4096, 4097, 2 * MIB, 3 * MIB };
    CUdeviceptr memory;
    ok(cuMemAlloc(&memory, 4 * MIB));
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = (unsigned char)(i * 7);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        memset(back, 0, sizeof back);
        ok(cuMemcpyHtoD(memory + 3, from, sizes[i]));
        ok(cuMemcpyDtoH(back, memory + 3, sizes[i]));
        same(memcmp(from, back, sizes[i]), 0);
    }
}

static void a_freed_block_is_none(void)
{
    CUdeviceptr memory;
    char byte;
    ok(cuMemAlloc(&memory, 4 * MIB));
    ok(cuMemFree(memory));
    same(cuMemFree(memory), CUDA_ERROR_INVALID_VALUE);
    same(cuMemcpyDtoH(&byte, memory, 1), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemFree(0));
}

static void pointers_tell_what_they_are(void)
{
    CUdeviceptr plain, pooled, start;
    CUmemorytype type;
    size_t size;
    int ipc, managed;
    ok(cuMemAlloc(&plain, 3 * MIB));
    ok(cuMemAllocAsync(&pooled, 3 * MIB, NULL));
    ok(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, plain + 5));
    same(type, CU_MEMORYTYPE_DEVICE);
    ok(cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, plain + 5));
    same(start, plain);
    ok(cuPointerGetAttribute(&size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, plain + 5));
    same(size, 3 * MIB);
    ok(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, plain));
    promised("HAMi-core#281", same(managed, 0));
    ok(cuPointerGetAttribute(&ipc, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, plain));
    same(ipc, 1);
    ok(cuPointerGetAttribute(&ipc, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, pooled));
    same(ipc, 0);
    same(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)&type), CUDA_ERROR_INVALID_VALUE);
}

static cuuint64_t attribute_of(CUmemoryPool pool, CUmemPool_attribute which)
{
    cuuint64_t value;
    ok(cuMemPoolGetAttribute(pool, which, &value));
    return value;
}

static void a_pool_keeps_what_is_freed_up_to_its_threshold(void)
{
    CUmemoryPool pool;
    CUdeviceptr memory;
    cuuint64_t all = ~0ull;
    ok(cuDeviceGetDefaultMemPool(&pool, device));
    for (int keeps = 0; keeps < 2; keeps++) {
        if (keeps)
            ok(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
        size_t before = free_bytes();
        ok(cuMemAllocAsync(&memory, 64 * MIB, NULL));
        same(attribute_of(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 64 * MIB);
        holds(attribute_of(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) >= 64 * MIB);
        ok(cuMemFreeAsync(memory, NULL));
        ok(cuStreamSynchronize(NULL));
        same(attribute_of(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0);
        same(attribute_of(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) > 0, keeps);
        same(free_bytes() < before, keeps);
        holds(attribute_of(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH) >= 64 * MIB);
    }
    ok(cuMemPoolTrimTo(pool, 0));
    same(attribute_of(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 0);
}

static void a_pool_holds_no_more_than_it_may(void)
{
    CUmemPoolProps props = {
        .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
        .location.type = CU_MEM_LOCATION_TYPE_DEVICE,
        .maxSize = 64 * MIB,
    };
    CUmemoryPool pool, none;
    CUdeviceptr first, second;
    ok(cuMemPoolCreate(&pool, &props));
    ok(cuMemAllocFromPoolAsync(&first, 48 * MIB, pool, NULL));
    same(cuMemAllocFromPoolAsync(&second, 48 * MIB, pool, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    ok(cuMemFreeAsync(first, NULL));
    ok(cuMemAllocFromPoolAsync(&second, 48 * MIB, pool, NULL));
    ok(cuMemFreeAsync(second, NULL));
    ok(cuMemPoolDestroy(pool));
    ok(cuDeviceGetDefaultMemPool(&none, device));
    holds(cuMemPoolDestroy(none) != CUDA_SUCCESS);
}

static void pinned_memory_has_one_address_and_is_registered_once(void)
{
    static char own[1 << 20] __attribute__((aligned(4096)));
    CUdeviceptr seen;
    unsigned flags;
    void *pinned;
    ok(cuMemHostAlloc(&pinned, MIB, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP));
    ok(cuMemHostGetDevicePointer(&seen, pinned, 0));
    same(seen, (CUdeviceptr)pinned);
    ok(cuMemHostGetFlags(&flags, pinned));
    holds(flags & CU_MEMHOSTALLOC_PORTABLE);
    same(cuMemHostUnregister(own), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    ok(cuMemHostRegister(own, sizeof own, 0));
    same(cuMemHostRegister(own, sizeof own, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    ok(cuMemHostUnregister(own));
    ok(cuMemFreeHost(pinned));
    holds(cuMemFreeHost(own) != CUDA_SUCCESS);
}

static void arrays_give_back_what_was_copied_into_them(void)
{
    CUDA_ARRAY_DESCRIPTOR shape = { .Width = 64, .Height = 16, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 2 };
    static float there[16][128], back[16][128];
    CUarray array;
    CUDA_MEMCPY2D in = { .srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = there, .srcPitch = sizeof *there,
                         .dstMemoryType = CU_MEMORYTYPE_ARRAY, .WidthInBytes = sizeof *there, .Height = 16 };
    CUDA_MEMCPY2D out = { .srcMemoryType = CU_MEMORYTYPE_ARRAY, .dstMemoryType = CU_MEMORYTYPE_HOST, .dstHost = back,
                          .dstPitch = sizeof *back, .WidthInBytes = sizeof *back, .Height = 16 };
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 128; column++)
            there[row][column] = (float)(row * 1000 + column);
    ok(cuArrayCreate(&array, &shape));
    in.dstArray = out.srcArray = array;
    ok(cuMemcpy2D(&in));
    ok(cuMemcpy2D(&out));
    same(memcmp(there, back, sizeof there), 0);
    in.Height = 17;
    same(cuMemcpy2D(&in), CUDA_ERROR_INVALID_VALUE);
    ok(cuArrayDestroy(array));
}

static void a_context_takes_its_memory_with_it(void)
{
    CUcontext context;
    CUdeviceptr memory, managed;
    size_t before = free_bytes();
    char byte;
    ok(cuCtxCreate(&context, NULL, 0, device));
    ok(cuMemAlloc(&memory, 64 * MIB));
    ok(cuMemAllocManaged(&managed, 64 * MIB, CU_MEM_ATTACH_GLOBAL));
    ok(cuCtxDestroy(context));
    holds(cuMemcpyDtoH(&byte, memory, 1) != CUDA_SUCCESS);
    holds(free_bytes() + 32 * MIB > before);
}

static int told(CUmem_range_attribute which, CUdeviceptr memory)
{
    int value = 99;
    ok(cuMemRangeGetAttribute(&value, sizeof value, which, memory, MIB));
    return value;
}

static void managed_memory_tells_what_was_said_of_it(void)
{
    CUmemLocation here = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device }, host = { .type = CU_MEM_LOCATION_TYPE_HOST };
    CUdeviceptr memory, plain;
    CUstream stream;
    int devices[2] = { 99, 99 }, mostly = 99, value;
    void *places[2] = { &mostly, devices };
    size_t sizes[2] = { sizeof mostly, sizeof devices };
    CUmem_range_attribute both[2] = { CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY };
    if (!attribute(CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS))
        cannot("the device and the host take turns with managed memory");
    ok(cuStreamCreate(&stream, 0));
    ok(cuMemAllocManaged(&memory, MIB, CU_MEM_ATTACH_GLOBAL));
    same(told(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, memory), 0);
    same(told(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, memory), CU_DEVICE_INVALID);
    same(told(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, memory), CU_DEVICE_INVALID);
    ok(cuMemAdvise(memory, MIB, CU_MEM_ADVISE_SET_READ_MOSTLY, here));
    ok(cuMemAdvise(memory, MIB, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, host));
    ok(cuMemAdvise(memory, MIB, CU_MEM_ADVISE_SET_ACCESSED_BY, here));
    ok(cuMemPrefetchAsync(memory, MIB, here, 0, stream));
    ok(cuStreamSynchronize(stream));
    same(told(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, memory), CU_DEVICE_CPU);
    same(told(CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, memory), device);
    ok(cuMemRangeGetAttributes(places, sizes, both, 2, memory, MIB));
    same(mostly, 1);
    same(devices[0], device);
    same(devices[1], CU_DEVICE_INVALID);
    ok(cuMemAdvise(memory, MIB, CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION, here));
    ok(cuMemAdvise(memory, MIB, CU_MEM_ADVISE_UNSET_ACCESSED_BY, here));
    same(told(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, memory), CU_DEVICE_INVALID);
    ok(cuMemRangeGetAttribute(devices, sizeof devices, CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, memory, MIB));
    same(devices[0], CU_DEVICE_INVALID);

    same(cuMemRangeGetAttribute(&value, 2, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, memory, MIB), CUDA_ERROR_INVALID_VALUE);
    same(cuMemRangeGetAttribute(&value, 4, (CUmem_range_attribute)99, memory, MIB), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemAlloc(&plain, MIB));
    same(cuMemRangeGetAttribute(&value, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, plain, MIB), CUDA_ERROR_INVALID_VALUE);
}

static void arrays_are_reached_by_their_bytes(void)
{
    CUDA_ARRAY_DESCRIPTOR line = { .Width = 4096, .Height = 0, .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 1 };
    unsigned char bytes[4096], back[4096];
    CUarray first, second;
    CUdeviceptr memory;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7);
    ok(cuArrayCreate(&first, &line));
    ok(cuArrayCreate(&second, &line));
    ok(cuMemAlloc(&memory, 4096));
    ok(cuMemcpyHtoA(first, 0, bytes, 4096));
    ok(cuMemcpyAtoA(second, 1000, first, 2000, 96));
    ok(cuMemcpyAtoD(memory, second, 1000, 96));
    ok(cuMemcpyDtoA(second, 0, memory, 96));
    ok(cuMemcpyAtoH(back, second, 0, 96));
    same(memcmp(back, bytes + 2000, 96), 0);
    /* Nothing is copied of no array either; an array that is gone is not asked about, nor an offset that runs over. */
    ok(cuMemcpyAtoH(NULL, NULL, 0, 0));
    same(cuMemcpyAtoH(back, second, 4000, 97), CUDA_ERROR_INVALID_VALUE);
    ok(cuArrayDestroy(first));
    ok(cuArrayDestroy(second));
}

const struct promise memory[] = {
    PROMISE(the_host_reaches_managed_memory_and_no_other_of_a_device),
    PROMISE(what_the_device_writes_to_managed_memory_the_host_reads),
    PROMISE(copies_of_every_size_arrive),
    PROMISE(a_freed_block_is_none),
    PROMISE(pointers_tell_what_they_are),
    PROMISE(a_pool_keeps_what_is_freed_up_to_its_threshold),
    PROMISE(a_pool_holds_no_more_than_it_may),
    PROMISE(pinned_memory_has_one_address_and_is_registered_once),
    PROMISE(arrays_give_back_what_was_copied_into_them),
    PROMISE(a_context_takes_its_memory_with_it),
    PROMISE(managed_memory_tells_what_was_said_of_it),
    PROMISE(arrays_are_reached_by_their_bytes),
    { 0 },
};
