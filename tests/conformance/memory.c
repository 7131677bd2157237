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
    same(managed, 0);
    ok(cuPointerGetAttribute(&ipc, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, plain));
    same(ipc, 1);
    ok(cuPointerGetAttribute(&ipc, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, pooled));
    same(ipc, 0);
    same(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)&type), CUDA_ERROR_INVALID_VALUE);
}

const struct promise memory[] = {
    PROMISE(the_host_reaches_managed_memory_and_no_other_of_a_device),
    PROMISE(what_the_device_writes_to_managed_memory_the_host_reads),
    PROMISE(copies_of_every_size_arrive),
    PROMISE(a_freed_block_is_none),
    PROMISE(pointers_tell_what_they_are),
    { 0 },
};
