/* Streams: order, and who waits for whom. */
#include "promises.h"

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

/* Zeroed words that host and device reach, for operations of streams on memory. */
static volatile unsigned *words_at(CUdeviceptr *at)
{
    void *words;
    if (!attribute(CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR))
        cannot("the device has no operations on memory in streams");
    ok(cuMemHostAlloc(&words, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
    ok(cuMemHostGetDevicePointer(at, words, 0));
    return memset(words, 0, 4096);
}

static void a_stream_waits_for_a_value_and_writes_one(void)
{
    volatile unsigned *words;
    CUdeviceptr at, number;
    CUstream first, second;
    unsigned found;
    words = words_at(&at);
    ok(cuMemAlloc(&number, 8));
    ok(cuMemsetD32(number, 0, 2));
    ok(cuStreamCreate(&first, CU_STREAM_NON_BLOCKING));
    ok(cuStreamCreate(&second, CU_STREAM_NON_BLOCKING));

    /* The host lets the first stream go on, and that the second. */
    ok(cuStreamWaitValue32(first, at, 7, CU_STREAM_WAIT_VALUE_EQ));
    ok(cuStreamWriteValue32(first, number, 5, 0));
    ok(cuStreamWaitValue32(second, number, 4, CU_STREAM_WAIT_VALUE_GEQ));
    ok(cuStreamWriteValue64(second, at + 8, 0x123456789ull, 0));
    same(cuStreamQuery(first), CUDA_ERROR_NOT_READY);
    same(cuStreamQuery(second), CUDA_ERROR_NOT_READY);
    usleep(2000);
    same(words[2], 0);
    words[0] = 7;
    ok(cuStreamSynchronize(second));
    ok(cuStreamQuery(first));
    same(words[2], 0x23456789);
    same(words[3], 1);
    ok(cuMemcpyDtoH(&found, number, 4));
    same(found, 5);

    /* A value is written when the work before it is done. */
    ok(launch(kernel_of(10), first));
    ok(cuStreamWriteValue32(first, at + 16, 1, 0));
    same(words[4], 0);
    ok(cuStreamSynchronize(first));
    same(words[4], 1);

    /* What stands behind a value moves after it. */
    words[5] = 0;
    ok(cuStreamWaitValue32(first, at + 20, 1, CU_STREAM_WAIT_VALUE_EQ));
    ok(cuMemsetD32Async(number, 77, 1, first));
    ok(cuMemcpyDtoHAsync((void *)&words[6], number, 4, first));
    usleep(2000);
    words[6] = 5;
    words[5] = 1;
    ok(cuStreamSynchronize(first));
    same(words[6], 77);

    /* Comparisons that hold, and a counter that has run over. */
    words[0] = 0x80000001u;
    ok(cuStreamWaitValue32(first, at, 0x7FFFFFFFu, CU_STREAM_WAIT_VALUE_GEQ));
    ok(cuStreamWaitValue32(first, at, 1, CU_STREAM_WAIT_VALUE_AND));
    ok(cuStreamWaitValue32(first, at, 2, CU_STREAM_WAIT_VALUE_NOR));
    ok(cuStreamSynchronize(first));
}

static void what_is_moved_behind_a_value_is_moved_behind_it(void)
{
    volatile unsigned *words;
    CUdeviceptr at, memory;
    CUstream stream;
    words = words_at(&at);
    ok(cuMemAlloc(&memory, 8));
    ok(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    for (unsigned i = 1; i <= 20; i++) {
        ok(cuStreamWriteValue32(stream, memory, i, 0));
        ok(cuStreamWaitValue32(stream, memory, i, CU_STREAM_WAIT_VALUE_EQ));
        ok(cuStreamWaitValue32(stream, at, i, CU_STREAM_WAIT_VALUE_EQ));
        ok(cuMemsetD32Async(memory, 100 + i, 1, stream));
        ok(cuMemcpyDtoDAsync(at + 4, memory, 4, stream));
        usleep(300);
        holds(words[1] != 100 + i);
        words[0] = i;
        ok(cuStreamSynchronize(stream));
        same(words[1], 100 + i);
    }
}

static void a_batch_of_values_is_done_in_its_order(void)
{
    volatile unsigned *words;
    CUdeviceptr at;
    CUstream stream;
    CUstreamBatchMemOpParams items[3];
    words = words_at(&at);
    memset(items, 0, sizeof items);
    ok(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    items[0].operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    items[0].writeValue.address = at;
    items[0].writeValue.value = 3;
    items[1].operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    items[1].waitValue.address = at + 4;
    items[1].waitValue.value = 1;
    items[2].operation = CU_STREAM_MEM_OP_WRITE_VALUE_64;
    items[2].writeValue.address = at + 8;
    items[2].writeValue.value64 = 9;
    ok(cuStreamBatchMemOp(stream, 3, items, 0));
    while (words[0] != 3)
        usleep(100);
    same(words[2], 0);
    words[1] = 1;
    ok(cuStreamSynchronize(stream));
    same(words[2], 9);

    /* A list that is not there is not asked about: a driver reads it. */
    ok(cuStreamBatchMemOp(stream, 0, NULL, 0));
    same(cuStreamBatchMemOp(stream, 3, items, 1), CUDA_ERROR_INVALID_VALUE);
    same(cuStreamWaitValue32(stream, at + 2, 0, 0), CUDA_ERROR_INVALID_VALUE);
    same(cuStreamWaitValue32(stream, at, 0, 4), CUDA_ERROR_INVALID_VALUE);
    same(cuStreamWriteValue32(stream, 0, 0, 0), CUDA_ERROR_INVALID_VALUE);
    same(cuStreamWriteValue64(stream, at + 4, 0, 0), CUDA_ERROR_INVALID_VALUE);
}

static void values_are_captured_and_written_at_each_launch(void)
{
    volatile unsigned *words;
    CUdeviceptr at, number;
    CUstream stream;
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode node;
    CUgraphNodeType type;
    size_t count = 1;
    words = words_at(&at);
    ok(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    ok(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    ok(cuStreamWriteValue32(stream, at, 6, 0));
    ok(cuStreamEndCapture(stream, &graph));
    ok(cuGraphGetNodes(graph, &node, &count));
    same(count, 1);
    ok(cuGraphNodeGetType(node, &type));
    same(type, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP);
    same(words[0], 0);
    ok(cuGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 2; i++) {
        words[0] = 0;
        ok(cuGraphLaunch(exec, stream));
        ok(cuStreamSynchronize(stream));
        same(words[0], 6);
    }

    /* Bytes between two values are moved between them. */
    ok(cuMemAlloc(&number, 4));
    ok(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    ok(cuStreamWriteValue32(stream, number, 1, 0));
    ok(cuMemcpyDtoHAsync((void *)&words[1], number, 4, stream));
    ok(cuStreamWriteValue32(stream, number, 2, 0));
    ok(cuMemcpyDtoHAsync((void *)&words[2], number, 4, stream));
    ok(cuStreamEndCapture(stream, &graph));
    ok(cuGraphInstantiate(&exec, graph, 0));
    ok(cuGraphLaunch(exec, stream));
    ok(cuStreamSynchronize(stream));
    same(words[1], 1);
    same(words[2], 2);
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
    PROMISE(a_stream_waits_for_a_value_and_writes_one),
    PROMISE(what_is_moved_behind_a_value_is_moved_behind_it),
    PROMISE(a_batch_of_values_is_done_in_its_order),
    PROMISE(values_are_captured_and_written_at_each_launch),
    { 0 },
};
