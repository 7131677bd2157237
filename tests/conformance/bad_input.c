/* What a driver answers to what it cannot do. */
#include "promises.h"

/* A call and its answer; the tables below are lists of these. */
#define answers(call, error) same(call, CUDA_ERROR_##error)

static void nowhere_to_put_a_result_is_an_invalid_value(void)
{
    answers(cuMemAlloc(NULL, MIB), INVALID_VALUE);
    answers(cuMemAllocManaged(NULL, MIB, CU_MEM_ATTACH_GLOBAL), INVALID_VALUE);
    answers(cuMemHostAlloc(NULL, MIB, 0), INVALID_VALUE);
    answers(cuMemAllocAsync(NULL, MIB, NULL), INVALID_VALUE);
    answers(cuStreamCreate(NULL, 0), INVALID_VALUE);
    answers(cuEventCreate(NULL, 0), INVALID_VALUE);
    answers(cuGraphCreate(NULL, 0), INVALID_VALUE);
    answers(cuCtxGetCurrent(NULL), INVALID_VALUE);
    answers(cuCtxGetDevice(NULL), INVALID_VALUE);
    answers(cuDeviceGet(NULL, 0), INVALID_VALUE);
    answers(cuDeviceGetCount(NULL), INVALID_VALUE);
    answers(cuDriverGetVersion(NULL), INVALID_VALUE);
    answers(cuDevicePrimaryCtxRetain(NULL, device), INVALID_VALUE);
    answers(cuStreamIsCapturing(NULL, NULL), INVALID_VALUE);
}

static void no_handle_is_told_by_the_error_of_its_kind(void)
{
    float ms;
    int enabled;
    answers(cuEventQuery(NULL), INVALID_HANDLE);
    answers(cuEventSynchronize(NULL), INVALID_HANDLE);
    answers(cuEventDestroy(NULL), INVALID_HANDLE);
    answers(cuEventElapsedTime(&ms, NULL, NULL), INVALID_HANDLE);
    answers(cuStreamDestroy(NULL), INVALID_HANDLE);
    answers(cuLibraryUnload(NULL), INVALID_HANDLE);
    answers(cuCtxDestroy(NULL), INVALID_VALUE);
    answers(cuGraphNodeGetEnabled(NULL, NULL, (unsigned *)&enabled), INVALID_VALUE);
}

static void sizes_of_nothing_and_of_more_than_all_are_refused(void)
{
    CUdeviceptr memory;
    size_t pitch;
    answers(cuMemAlloc(&memory, 0), INVALID_VALUE);
    answers(cuMemAlloc(&memory, 1ull << 60), OUT_OF_MEMORY);
    answers(cuMemAlloc(&memory, ~0ull), OUT_OF_MEMORY);
    answers(cuMemAllocManaged(&memory, 0, CU_MEM_ATTACH_GLOBAL), INVALID_VALUE);
    answers(cuMemAllocAsync(&memory, 1ull << 60, NULL), OUT_OF_MEMORY);
    answers(cuMemAllocPitch(&memory, &pitch, 0, 1, 4), INVALID_VALUE);
    size_t left = free_bytes();
    answers(cuMemAlloc(&memory, left + MIB), OUT_OF_MEMORY);
    same(free_bytes(), left);
}

static void nothing_of_a_pool_is_no_error_and_can_be_freed(void)
{
    CUdeviceptr memory = 0;
    ok(cuMemAllocAsync(&memory, 0, NULL));
    ok(cuMemFreeAsync(memory, NULL));
    ok(cuStreamSynchronize(NULL));
    memory = 1;
    ok(cuMemAllocAsync(&memory, 0, capturing(CU_STREAM_CAPTURE_MODE_GLOBAL)));
    same(memory, 0);
}

/* Driver 580 on an H100 said so; where it put nothing is its own affair. */
static void nothing_of_the_hosts_memory_is_no_error_and_can_be_freed(void)
{
    void *host = NULL;
    ok(cuMemHostAlloc(&host, 0, 0));
    ok(cuMemFreeHost(host));
}

static void arrays_are_made_of_known_formats_and_channels(void)
{
    CUDA_ARRAY_DESCRIPTOR shape = { .Width = 64, .Height = 64, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
    CUarray array;
    answers(cuArrayCreate(&array, NULL), INVALID_VALUE);
    shape.NumChannels = 3;
    answers(cuArrayCreate(&array, &shape), INVALID_VALUE);
    shape.NumChannels = 1;
    shape.Width = 0;
    answers(cuArrayCreate(&array, &shape), INVALID_VALUE);
    shape.Width = 64;
    shape.Format = (CUarray_format)0x77;
    answers(cuArrayCreate(&array, &shape), INVALID_VALUE);
}

static void unknown_flags_are_invalid_values(void)
{
    CUdeviceptr memory;
    CUstream stream;
    CUevent event;
    CUgraph graph;
    void *host;
    answers(cuInit(1), INVALID_VALUE);
    answers(cuStreamCreate(&stream, 2), INVALID_VALUE);
    answers(cuEventCreate(&event, 64), INVALID_VALUE);
    answers(cuEventCreate(&event, CU_EVENT_INTERPROCESS), INVALID_VALUE);
    answers(cuMemAllocManaged(&memory, MIB, 0), INVALID_VALUE);
    answers(cuMemHostAlloc(&host, MIB, 1 << 20), INVALID_VALUE);
    answers(cuGraphCreate(&graph, 1), INVALID_VALUE);
}

static void devices_are_told_by_their_ordinals(void)
{
    CUdevice found;
    int value;
    char name[8];
    answers(cuDeviceGet(&found, -1), INVALID_DEVICE);
    answers(cuDeviceGet(&found, 1000), INVALID_DEVICE);
    answers(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 1000), INVALID_DEVICE);
    answers(cuDeviceGetAttribute(&value, (CUdevice_attribute)0, device), INVALID_VALUE);
    answers(cuDeviceGetAttribute(&value, (CUdevice_attribute)100000, device), INVALID_VALUE);
    /* Room for no byte is not asked about: a driver may fill what lies behind it. */
    ok(cuDeviceGetName(name, sizeof name, device));
    same(name[sizeof name - 1], 0);
}

static void without_a_context_nothing_can_be_done(void)
{
    CUdeviceptr memory;
    CUstream stream;
    CUevent event;
    CUcontext context;
    size_t left, total;
    ok(cuCtxSetCurrent(NULL));
    answers(cuMemAlloc(&memory, MIB), INVALID_CONTEXT);
    answers(cuMemGetInfo(&left, &total), INVALID_CONTEXT);
    answers(cuStreamCreate(&stream, 0), INVALID_CONTEXT);
    answers(cuEventCreate(&event, 0), INVALID_CONTEXT);
    answers(cuCtxSynchronize(), INVALID_CONTEXT);
    answers(cuCtxPopCurrent(&context), INVALID_CONTEXT);
    ok(cuCtxGetCurrent(&context));
    same((long)context, 0);
}

static void *in_another_thread(void *answer)
{
    CUdeviceptr memory;
    *(CUresult *)answer = cuMemAlloc(&memory, MIB);
    return NULL;
}

static void a_context_is_current_in_the_thread_that_made_it_so(void)
{
    pthread_t thread;
    CUresult answer = CUDA_SUCCESS;
    same(pthread_create(&thread, NULL, in_another_thread, &answer), 0);
    same(pthread_join(thread, NULL), 0);
    same(answer, CUDA_ERROR_INVALID_CONTEXT);
}

static void primary_contexts_are_released_and_not_destroyed(void)
{
    CUcontext primary;
    ok(cuCtxGetCurrent(&primary));
    holds(cuCtxDestroy(primary) != CUDA_SUCCESS);
    ok(cuCtxSynchronize());
    ok(cuDevicePrimaryCtxRelease(device));
    answers(cuDevicePrimaryCtxRelease(device), INVALID_CONTEXT);
}

static void launches_keep_to_what_the_device_can_do(void)
{
    CUfunction kernel = kernel_of(0);
    unsigned threads = (unsigned)attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    unsigned shared = (unsigned)attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    unsigned long long parameter = 0;
    void *parameters[] = { &parameter };
    answers(cuLaunchKernel(kernel, 0, 1, 1, 32, 1, 1, 0, NULL, parameters, NULL), INVALID_VALUE);
    answers(cuLaunchKernel(kernel, 1, 1, 1, 0, 1, 1, 0, NULL, parameters, NULL), INVALID_VALUE);
    answers(cuLaunchKernel(kernel, 1, 1, 1, threads + 1, 1, 1, 0, NULL, parameters, NULL), INVALID_VALUE);
    answers(cuLaunchKernel(kernel, 1, 100000, 1, 32, 1, 1, 0, NULL, parameters, NULL), INVALID_VALUE);
    answers(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, shared + 1024, NULL, parameters, NULL), INVALID_VALUE);
    answers(cuLaunchCooperativeKernel(kernel, 1000000, 1, 1, 32, 1, 1, 0, NULL, parameters), COOPERATIVE_LAUNCH_TOO_LARGE);
    ok(launch(kernel, NULL));
}

static void copies_end_where_the_memory_ends(void)
{
    static char host[2 * 4 * MIB];
    CUdeviceptr memory;
    ok(cuMemAlloc(&memory, 4 * MIB));
    ok(cuMemcpyDtoH(host, memory, 4 * MIB));
    answers(cuMemcpyDtoH(host, memory, 8 * MIB), INVALID_VALUE);
    answers(cuMemcpyHtoD(memory + 1, host, 4 * MIB), INVALID_VALUE);
    answers(cuMemsetD8(memory, 0, 8 * MIB), INVALID_VALUE);
    answers(cuMemsetD32(memory + 1, 0, 1), INVALID_VALUE);
    answers(cuMemcpyHtoD((CUdeviceptr)host, host + MIB, 1), INVALID_VALUE);
    ok(cuMemcpyDtoH(host, memory, 0));
}

static void code_tells_what_is_in_it(void)
{
    CUmodule module;
    CUfunction kernel;
    CUdeviceptr variable;
    size_t size;
    static const char code[] =
        ".version 6.4\n.target sm_50\n.address_size 64\n.visible .global .u32 number;\n"
        ".visible .entry spin_0ms()\n{\n    ret;\n}\n";
    answers(cuModuleLoadData(&module, NULL), INVALID_VALUE);
    answers(cuModuleLoad(&module, "/nowhere/at/all"), FILE_NOT_FOUND);
    ok(cuModuleLoadData(&module, code));
    ok(cuModuleGetFunction(&kernel, module, "spin_0ms"));
    answers(cuModuleGetFunction(&kernel, module, "spin_1ms"), NOT_FOUND);
    ok(cuModuleGetGlobal(&variable, &size, module, "number"));
    same(size, 4);
    answers(cuModuleGetGlobal(&variable, &size, module, "numbers"), NOT_FOUND);
}

/* Addresses are looked up, so wrong ones are told. Handles are followed: what a driver does with one that was given back or
 * is of another kind is undefined, and a crash among it. */
static void memory_that_was_given_back_is_of_no_more_use(void)
{
    CUdeviceptr memory;
    void *host;
    size_t size;
    ok(cuMemAllocHost(&host, MIB));
    ok(cuMemFreeHost(host));
    holds(cuMemFreeHost(host) != CUDA_SUCCESS);
    ok(cuMemAlloc(&memory, MIB));
    ok(cuMemFree(memory));
    answers(cuMemFree(memory), INVALID_VALUE);
    answers(cuMemGetAddressRange(&memory, &size, memory), NOT_FOUND);
}

static void memory_is_given_back_by_the_address_where_it_begins(void)
{
    static char host[4096];
    CUdeviceptr memory;
    ok(cuMemAlloc(&memory, MIB));
    answers(cuMemFree(memory + 256), INVALID_VALUE);
    answers(cuMemFree((CUdeviceptr)host), INVALID_VALUE);
    ok(cuMemFree(memory));
}

/* What another context of the same device made. */
static void each_context_works_with_its_own_objects(void)
{
    CUcontext first, other;
    CUstream stream;
    CUevent event;
    CUdeviceptr memory;
    CUfunction kernel = kernel_of(0);
    ok(cuCtxGetCurrent(&first));
    ok(cuStreamCreate(&stream, 0));
    ok(cuEventCreate(&event, 0));
    ok(cuMemAlloc(&memory, MIB));
    ok(cuCtxCreate(&other, NULL, 0, device));
    answers(launch(kernel, NULL), INVALID_HANDLE);
    answers(cuEventRecord(event, NULL), INVALID_HANDLE);
    /* A stream and memory tell where they belong, whatever is current. */
    ok(cuStreamSynchronize(stream));
    ok(cuMemsetD8(memory, 1, MIB));
    ok(cuMemFree(memory));
    ok(cuCtxDestroy(other));
    ok(cuCtxSetCurrent(first));
    ok(launch(kernel, stream));
    ok(cuStreamSynchronize(stream));
}

static void *without_a_context(void *memory)
{
    CUdeviceptr more;
    same(cuMemAlloc(&more, MIB), CUDA_ERROR_INVALID_CONTEXT);
    same(cuCtxSynchronize(), CUDA_ERROR_INVALID_CONTEXT);
    /* Memory tells where it belongs. */
    ok(cuMemFree((CUdeviceptr)memory));
    return NULL;
}

static void a_thread_without_a_context_makes_nothing_and_may_free(void)
{
    pthread_t thread;
    CUdeviceptr memory;
    ok(cuMemAlloc(&memory, MIB));
    same(pthread_create(&thread, NULL, without_a_context, (void *)memory), 0);
    same(pthread_join(thread, NULL), 0);
    answers(cuMemFree(memory), INVALID_VALUE);
    ok(cuCtxSetCurrent(NULL));
    answers(cuMemFree(0x123400), INVALID_VALUE);
    ok(cuMemFree(0));
}

/* Its handle, and those of what was made in it, are not asked about: cuda.h calls that undefined. */
static void a_destroyed_context_is_no_longer_current(void)
{
    CUcontext before, context, found;
    ok(cuCtxGetCurrent(&before));
    ok(cuCtxCreate(&context, NULL, 0, device));
    ok(cuCtxGetCurrent(&found));
    same((long)found, (long)context);
    ok(cuCtxDestroy(context));
    ok(cuCtxGetCurrent(&found));
    same((long)found, (long)before);
    ok(cuCtxSynchronize());
}

const struct promise bad_input[] = {
    PROMISE(nowhere_to_put_a_result_is_an_invalid_value),
    PROMISE(no_handle_is_told_by_the_error_of_its_kind),
    PROMISE(sizes_of_nothing_and_of_more_than_all_are_refused),
    PROMISE(nothing_of_a_pool_is_no_error_and_can_be_freed),
    PROMISE(nothing_of_the_hosts_memory_is_no_error_and_can_be_freed),
    PROMISE(arrays_are_made_of_known_formats_and_channels),
    PROMISE(unknown_flags_are_invalid_values),
    PROMISE(devices_are_told_by_their_ordinals),
    PROMISE(without_a_context_nothing_can_be_done),
    PROMISE(a_context_is_current_in_the_thread_that_made_it_so),
    PROMISE(primary_contexts_are_released_and_not_destroyed),
    PROMISE(launches_keep_to_what_the_device_can_do),
    PROMISE(copies_end_where_the_memory_ends),
    PROMISE(code_tells_what_is_in_it),
    PROMISE(memory_that_was_given_back_is_of_no_more_use),
    PROMISE(memory_is_given_back_by_the_address_where_it_begins),
    PROMISE(each_context_works_with_its_own_objects),
    PROMISE(a_thread_without_a_context_makes_nothing_and_may_free),
    PROMISE(a_destroyed_context_is_no_longer_current),
    { 0 },
};
