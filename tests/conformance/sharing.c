/* Memory and events of other processes. */
#include "promises.h"
#include "../programs/descriptors.h"

static unsigned char byte_at(CUdeviceptr address)
{
    unsigned char byte;
    ok(cuMemcpyDtoH(&byte, address, 1));
    return byte;
}

/* Opens the memory of a handle, says what is in it, and writes 7 there. */
static void opens_memory(int pipe)
{
    CUipcMemHandle handle;
    CUdeviceptr memory;
    hear(pipe, &handle, sizeof handle);
    ok(cuIpcOpenMemHandle(&memory, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    unsigned char before = byte_at(memory);
    ok(cuMemsetD8(memory, 7, MIB));
    ok(cuCtxSynchronize());
    ok(cuIpcCloseMemHandle(memory));
    tell(pipe, &before, 1);
}

static void an_ipc_handle_opens_the_same_memory_in_another_process(void)
{
    CUdeviceptr blocks[2];
    /* One with blocks of its own and one that lies among others. */
    ok(cuMemAlloc(&blocks[0], 4 * MIB));
    ok(cuMemAlloc(&blocks[1], MIB));
    for (int i = 0; i < 2; i++) {
        CUipcMemHandle handle;
        unsigned char before;
        pid_t other;
        int pipe = other_process("opens_memory", &other);
        ok(cuMemsetD8(blocks[i], 3, MIB));
        ok(cuCtxSynchronize());
        ok(cuIpcGetMemHandle(&handle, blocks[i]));
        tell(pipe, &handle, sizeof handle);
        hear(pipe, &before, 1);
        same(before, 3);
        same(byte_at(blocks[i]), 7);
        same(byte_at(blocks[i] + MIB - 1), 7);
    }
    size_t before = free_bytes();
    ok(cuMemFree(blocks[0]));
    holds(free_bytes() >= before + 4 * MIB);
}

static void an_ipc_handle_is_for_other_processes_and_whole_allocations(void)
{
    CUdeviceptr memory, pooled, opened;
    CUipcMemHandle handle, wrong;
    ok(cuMemAlloc(&memory, 4 * MIB));
    ok(cuMemAllocAsync(&pooled, 4 * MIB, NULL));
    ok(cuIpcGetMemHandle(&handle, memory));
    holds(cuIpcOpenMemHandle(&opened, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS) != CUDA_SUCCESS);
    same(cuIpcOpenMemHandle(&opened, handle, 0), CUDA_ERROR_INVALID_VALUE);
    same(cuIpcGetMemHandle(&wrong, pooled), CUDA_ERROR_INVALID_VALUE);
    same(cuIpcGetMemHandle(&wrong, 0), CUDA_ERROR_INVALID_VALUE);
    memset(&wrong, 0x5a, sizeof wrong);
    holds(cuIpcOpenMemHandle(&opened, wrong, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS) != CUDA_SUCCESS);
    same(cuIpcCloseMemHandle(memory), CUDA_ERROR_INVALID_VALUE);
}

/* Opens an event and says how it stands as soon as it is told to, then when it has come. */
static void opens_event(int pipe)
{
    CUipcEventHandle handle;
    CUevent event;
    hear(pipe, &handle, sizeof handle);
    ok(cuIpcOpenEventHandle(&event, handle));
    CUresult now = cuEventQuery(event), then = cuEventSynchronize(event);
    CUresult at_last = cuEventQuery(event);
    tell(pipe, &now, sizeof now);
    tell(pipe, &then, sizeof then);
    tell(pipe, &at_last, sizeof at_last);
    CUstream stream;
    ok(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    ok(cuStreamWaitEvent(stream, event, 0));
    ok(cuStreamSynchronize(stream));
}

static void an_event_of_another_process_comes_when_its_work_is_done(void)
{
    CUipcEventHandle handle;
    CUevent event;
    CUresult now, then, at_last;
    pid_t other;
    CUfunction kernel = kernel_of(400);
    int pipe = other_process("opens_event", &other), status;
    ok(cuEventCreate(&event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING));
    /* The other one opens its context first, which may take longer than the kernel. */
    ok(cuIpcGetEventHandle(&handle, event));
    usleep(200 * 1000);
    ok(launch(kernel, NULL));
    ok(cuEventRecord(event, NULL));
    tell(pipe, &handle, sizeof handle);
    hear(pipe, &now, sizeof now);
    hear(pipe, &then, sizeof then);
    hear(pipe, &at_last, sizeof at_last);
    same(now, CUDA_ERROR_NOT_READY);
    same(then, CUDA_SUCCESS);
    same(at_last, CUDA_SUCCESS);
    same(waitpid(other, &status, 0), other);
    same(status, 0);
}

static CUdeviceptr mapped(CUmemGenericAllocationHandle handle, size_t size)
{
    CUdeviceptr address;
    ok(cuMemAddressReserve(&address, size, 0, 0, 0));
    ok(cuMemMap(address, size, 0, handle, 0));
    ok(cuMemSetAccess(address, size, &everything, 1));
    return address;
}

/* Makes 64 MiB of memory full of 5, hands its descriptor over, and ends when it is told to. */
static void exports(int pipe)
{
    CUmemGenericAllocationHandle handle;
    int descriptor;
    char go;
    ok(cuMemCreate(&handle, 64 * MIB, &shareable, 0));
    CUdeviceptr address = mapped(handle, 64 * MIB);
    ok(cuMemsetD8(address, 5, 64 * MIB));
    ok(cuCtxSynchronize());
    ok(cuMemExportToShareableHandle(&descriptor, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    same(byte_at(address + 64 * MIB - 1), 5);
    holds(send_descriptor(pipe, descriptor));
    hear(pipe, &go, 1);
}

static void exported_memory_outlives_its_exporter_and_is_paid_for_until_it_is_released(void)
{
    CUmemGenericAllocationHandle handle, again;
    pid_t other;
    int status, pipe = other_process("exports", &other), descriptor = receive_descriptor(pipe);
    ok(cuMemImportFromShareableHandle(&handle, (void *)(intptr_t)descriptor, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    ok(cuMemImportFromShareableHandle(&again, (void *)(intptr_t)descriptor, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    close(descriptor);
    ok(kill(other, SIGKILL));
    same(waitpid(other, &status, 0), other);
    CUdeviceptr address = mapped(handle, 64 * MIB);
    same(byte_at(address), 5);
    ok(cuMemRelease(handle));
    ok(cuMemUnmap(address, 64 * MIB));
    usleep(100 * 1000);
    size_t held = free_bytes();
    ok(cuMemRelease(again));
    holds(free_bytes() >= held + 64 * MIB);
}

static void memory_is_exported_only_if_that_was_asked_for(void)
{
    CUmemAllocationProp own = shareable;
    CUmemGenericAllocationHandle handle;
    int descriptor;
    own.requestedHandleTypes = CU_MEM_HANDLE_TYPE_NONE;
    ok(cuMemCreate(&handle, 64 * MIB, &own, 0));
    same(cuMemExportToShareableHandle(&descriptor, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0), CUDA_ERROR_INVALID_VALUE);
    holds(cuMemImportFromShareableHandle(&handle, (void *)1000000, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != CUDA_SUCCESS);
}

/* Reaches an allocation of another process's pool: says what is in it, writes 9 there, and lets go of it in either way. */
static void borrows_from_a_pool(int pipe)
{
    CUmemPoolPtrExportData data;
    CUmemoryPool pool;
    CUdeviceptr memory, again, own;
    int descriptor = receive_descriptor(pipe);
    ok(cuMemPoolImportFromShareableHandle(&pool, (void *)(intptr_t)descriptor, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    close(descriptor);
    ok(cuMemPoolSetAccess(pool, &everything, 1));
    hear(pipe, &data, sizeof data);
    size_t before = free_bytes();
    ok(cuMemPoolImportPointer(&memory, pool, &data));
    same(free_bytes(), before);
    unsigned char found = byte_at(memory);
    ok(cuMemsetD8(memory, 9, MIB));
    ok(cuCtxSynchronize());
    holds(cuMemAllocFromPoolAsync(&own, MIB, pool, NULL) != CUDA_SUCCESS);
    holds(cuDeviceSetMemPool(device, pool) != CUDA_SUCCESS);
    same(cuIpcCloseMemHandle(memory), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemFreeAsync(memory, NULL));
    ok(cuMemPoolImportPointer(&again, pool, &data));
    ok(cuMemFree(again));
    same(cuMemFree(again), CUDA_ERROR_INVALID_VALUE);
    same(free_bytes(), before);
    memset(&data, 0x5a, sizeof data);
    same(cuMemPoolImportPointer(&again, pool, &data), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemPoolDestroy(pool));
    tell(pipe, &found, 1);
}

static void an_exported_pool_lends_its_allocations_to_other_processes(void)
{
    CUmemPoolProps props = {
        .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
        .handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        .location.type = CU_MEM_LOCATION_TYPE_DEVICE,
    };
    CUmemPoolPtrExportData data;
    CUmemoryPool pool, own;
    CUdeviceptr memory, plain;
    unsigned char found;
    pid_t other;
    int descriptor, status, pipe = other_process("borrows_from_a_pool", &other);
    ok(cuMemPoolCreate(&pool, &props));
    ok(cuMemAllocFromPoolAsync(&memory, 4 * MIB, pool, NULL));
    ok(cuMemsetD8(memory, 8, 4 * MIB));
    ok(cuCtxSynchronize());
    ok(cuMemPoolExportToShareableHandle(&descriptor, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    ok(cuMemPoolExportPointer(&data, memory));
    holds(send_descriptor(pipe, descriptor));
    close(descriptor);
    tell(pipe, &data, sizeof data);
    hear(pipe, &found, 1);
    same(found, 8);
    same(byte_at(memory), 9);
    same(byte_at(memory + MIB), 8);
    same(waitpid(other, &status, 0), other);
    same(status, 0);
    ok(cuMemFreeAsync(memory, NULL));

    /* Only a pool that was made for it, and only what comes from one. */
    props.handleTypes = CU_MEM_HANDLE_TYPE_NONE;
    ok(cuMemPoolCreate(&own, &props));
    same(cuMemPoolExportToShareableHandle(&descriptor, own, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemAllocFromPoolAsync(&memory, MIB, own, NULL));
    same(cuMemPoolExportPointer(&data, memory), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemAlloc(&plain, MIB));
    same(cuMemPoolExportPointer(&data, plain), CUDA_ERROR_INVALID_VALUE);
}

const struct part parts[] = {
    { "borrows_from_a_pool", borrows_from_a_pool },
    { "opens_memory", opens_memory },
    { "opens_event", opens_event },
    { "exports", exports },
    { 0 },
};

const struct promise sharing[] = {
    PROMISE(an_ipc_handle_opens_the_same_memory_in_another_process),
    PROMISE(an_ipc_handle_is_for_other_processes_and_whole_allocations),
    PROMISE(an_event_of_another_process_comes_when_its_work_is_done),
    PROMISE(exported_memory_outlives_its_exporter_and_is_paid_for_until_it_is_released),
    PROMISE(memory_is_exported_only_if_that_was_asked_for),
    PROMISE(an_exported_pool_lends_its_allocations_to_other_processes),
    { 0 },
};
