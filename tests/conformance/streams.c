/* Streams: order, and who waits for whom. */
#include "promises.h"

static CUstream stream_of(unsigned flags)
{
    CUstream stream;
    ok(cuStreamCreate(&stream, flags));
    return stream;
}

static void a_stream_is_not_ready_until_its_work_is_done(void)
{
    CUstream stream = stream_of(CU_STREAM_NON_BLOCKING);
    CUfunction kernel = kernel_of(200);
    ok(cuStreamQuery(stream));
    double start = seconds();
    ok(launch(kernel, stream));
    same(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    ok(cuStreamSynchronize(stream));
    holds(seconds() - start >= 0.199);
    ok(cuStreamQuery(stream));
}

static void streams_do_not_wait_for_each_other(void)
{
    CUfunction slow = kernel_of(200);
    CUstream first = stream_of(CU_STREAM_NON_BLOCKING), second = stream_of(CU_STREAM_NON_BLOCKING);
    CUdeviceptr memory;
    ok(cuMemAlloc(&memory, MIB));
    ok(launch(slow, first));
    ok(cuMemsetD8Async(memory, 1, MIB, second));
    ok(cuStreamSynchronize(second));
    same(cuStreamQuery(first), CUDA_ERROR_NOT_READY);
    ok(cuCtxSynchronize());
    ok(cuStreamQuery(first));
}

static void the_legacy_stream_waits_for_blocking_streams_and_they_for_it(void)
{
    CUfunction slow = kernel_of(200);
    CUstream stream = stream_of(CU_STREAM_DEFAULT);
    ok(launch(slow, stream));
    same(cuStreamQuery(NULL), CUDA_ERROR_NOT_READY);
    ok(cuStreamSynchronize(NULL));
    ok(cuStreamQuery(stream));
    double start = seconds();
    ok(launch(slow, NULL));
    ok(launch(slow, stream));
    ok(cuStreamSynchronize(stream));
    holds(seconds() - start >= 0.399);
    ok(cuStreamQuery(NULL));
}

static void the_legacy_stream_leaves_other_streams_alone(void)
{
    CUfunction slow = kernel_of(200);
    CUstream stream = stream_of(CU_STREAM_NON_BLOCKING);
    CUdeviceptr memory;
    ok(cuMemAlloc(&memory, MIB));
    ok(launch(slow, stream));
    ok(cuMemsetD8(memory, 1, MIB));
    ok(cuStreamSynchronize(NULL));
    same(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    ok(cuStreamSynchronize(stream));
}

static void *per_thread_work(void *kernel)
{
    CUcontext context;
    ok(cuDevicePrimaryCtxRetain(&context, device));
    ok(cuCtxSetCurrent(context));
    ok(launch(kernel, CU_STREAM_PER_THREAD));
    return NULL;
}

static void every_thread_has_a_default_stream_of_its_own(void)
{
    pthread_t thread;
    CUfunction slow = kernel_of(200);
    same(pthread_create(&thread, NULL, per_thread_work, slow), 0);
    same(pthread_join(thread, NULL), 0);
    ok(cuStreamQuery(CU_STREAM_PER_THREAD));
    same(cuStreamQuery(NULL), CUDA_ERROR_NOT_READY);
    ok(cuStreamSynchronize(NULL));
}

static void a_destroyed_stream_ends_its_work(void)
{
    CUfunction slow = kernel_of(80);
    CUstream stream = stream_of(CU_STREAM_NON_BLOCKING);
    double start = seconds();
    ok(launch(slow, stream));
    ok(cuStreamDestroy(stream));
    ok(cuCtxSynchronize());
    holds(seconds() - start >= 0.079);
}

static void a_stream_waits_for_an_event_of_another(void)
{
    CUfunction slow = kernel_of(200);
    CUstream first = stream_of(CU_STREAM_NON_BLOCKING), second = stream_of(CU_STREAM_NON_BLOCKING);
    CUevent event;
    ok(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    ok(launch(slow, first));
    ok(cuEventRecord(event, first));
    ok(cuStreamWaitEvent(second, event, 0));
    same(cuStreamQuery(second), CUDA_ERROR_NOT_READY);
    ok(cuStreamSynchronize(second));
    ok(cuStreamQuery(first));
}

static struct {
    volatile int before, called, after;
} order;

static void CUDA_CB host_function(void *data)
{
    usleep(20 * 1000);
    order.before = *(volatile unsigned char *)data;
    order.called = 1;
}

static void host_functions_run_in_their_place(void)
{
    CUstream stream = stream_of(CU_STREAM_NON_BLOCKING);
    CUdeviceptr memory;
    unsigned char *host;
    ok(cuMemAlloc(&memory, MIB));
    ok(cuMemHostAlloc((void **)&host, MIB, 0));
    *host = 0;
    ok(launch(kernel_of(200), stream));
    ok(cuMemsetD8Async(memory, 5, MIB, stream));
    ok(cuMemcpyDtoHAsync(host, memory, MIB, stream));
    ok(cuLaunchHostFunc(stream, host_function, host));
    same(order.called, 0);
    same(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    ok(cuStreamSynchronize(stream));
    same(order.called, 1);
    same(order.before, 5);
}

static volatile long long told[2];

static void CUDA_CB callback(CUstream stream, CUresult status, void *data)
{
    told[0] = (long long)stream;
    told[1] = status == CUDA_SUCCESS && data == (void *)told;
}

static void callbacks_hear_of_their_stream(void)
{
    CUstream stream = stream_of(CU_STREAM_NON_BLOCKING);
    ok(cuStreamAddCallback(stream, callback, (void *)told, 0));
    ok(cuStreamSynchronize(stream));
    same(told[0], (long long)stream);
    same(told[1], 1);
}

static void priorities_keep_to_the_range_of_the_device(void)
{
    CUstream stream;
    int least, greatest, priority;
    ok(cuCtxGetStreamPriorityRange(&least, &greatest));
    holds(greatest <= least);
    ok(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, greatest));
    ok(cuStreamGetPriority(stream, &priority));
    same(priority, greatest);
    ok(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, greatest - 100));
    ok(cuStreamGetPriority(stream, &priority));
    same(priority, greatest);
    ok(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, least + 100));
    ok(cuStreamGetPriority(stream, &priority));
    same(priority, least);
}

static void streams_tell_what_they_are(void)
{
    CUstream stream = stream_of(CU_STREAM_NON_BLOCKING), other = stream_of(CU_STREAM_DEFAULT);
    CUcontext context, current;
    unsigned flags;
    unsigned long long id, another;
    ok(cuStreamGetFlags(stream, &flags));
    same(flags, CU_STREAM_NON_BLOCKING);
    ok(cuStreamGetFlags(other, &flags));
    same(flags, CU_STREAM_DEFAULT);
    ok(cuStreamGetCtx(stream, &context));
    ok(cuCtxGetCurrent(&current));
    same((long)context, (long)current);
    ok(cuStreamGetId(stream, &id));
    ok(cuStreamGetId(other, &another));
    holds(id != another);
}

static void a_full_launch_queue_blocks(void)
{
    CUfunction kernel = kernel_of(1);
    CUstream stream = stream_of(CU_STREAM_NON_BLOCKING);
    double start = seconds();
    for (int i = 0; i < 1600; i++)
        ok(launch(kernel, stream));
    /* A device takes some thousand launches; the rest wait for the first ones to end. */
    holds(seconds() - start >= 0.4);
    same(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    ok(cuStreamSynchronize(stream));
    holds(seconds() - start >= 1.59);
}

const struct promise streams[] = {
    PROMISE(a_stream_is_not_ready_until_its_work_is_done),
    PROMISE(streams_do_not_wait_for_each_other),
    PROMISE(the_legacy_stream_waits_for_blocking_streams_and_they_for_it),
    PROMISE(the_legacy_stream_leaves_other_streams_alone),
    PROMISE(every_thread_has_a_default_stream_of_its_own),
    PROMISE(a_destroyed_stream_ends_its_work),
    PROMISE(a_stream_waits_for_an_event_of_another),
    PROMISE(host_functions_run_in_their_place),
    PROMISE(callbacks_hear_of_their_stream),
    PROMISE(priorities_keep_to_the_range_of_the_device),
    PROMISE(streams_tell_what_they_are),
    PROMISE(a_full_launch_queue_blocks),
    { 0 },
};
