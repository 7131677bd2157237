/* One thread's launch waits for its share, for seconds. Meanwhile another one writes to memory in stream order, waits
 * for it, calls the host, records events, copies and fills, and says whether all of that was over before the launch. */
#include "common.h"

static CUfunction kernel;
static CUcontext context;
static volatile int launched, called;

static void CUDA_CB note(void *unused) { called++, (void)unused; }

static void *launch(void *unused)
{
    must(cuCtxSetCurrent(context));
    for (int i = 0; i < 2; i++)
        must(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
    launched = 1;
    return unused;
}

int main(void)
{
    CUmodule module;
    CUstream stream;
    CUevent event;
    CUdeviceptr memory;
    pthread_t thread;
    char host[4096];

    open_device();
    must(cuCtxGetCurrent(&context));
    must(cuModuleLoadData(&module, ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry busy_300ms()\n{\n    ret;\n}\n"));
    must(cuModuleGetFunction(&kernel, module, "busy_300ms"));
    must(cuMemAlloc(&memory, 4096));
    must(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    must(cuEventCreate(&event, CU_EVENT_DEFAULT));
    /* Its length is learned, and charged. */
    must(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
    must(cuCtxSynchronize());
    must(pthread_create(&thread, NULL, launch, NULL));
    for (int i = 1; i <= 50; i++) {
        /* Not every device does these. */
        CUresult written = cuStreamWriteValue32(stream, memory, i, 0);
        if (written != CUDA_ERROR_NOT_SUPPORTED) {
            must(written);
            must(cuStreamWaitValue32(stream, memory, i, CU_STREAM_WAIT_VALUE_EQ));
        }
        must(cuMemsetD8Async(memory, i, 4096, stream));
        must(cuMemcpyDtoHAsync(host, memory, sizeof host, stream));
        must(cuLaunchHostFunc(stream, note, NULL));
        must(cuEventRecord(event, stream));
        must(cuStreamWaitEvent(stream, event, 0));
        must(cuStreamSynchronize(stream));
    }
    say("launched_before", launched);
    say("called", called);
    say("copied", host[4095]);
    must(pthread_join(thread, NULL));
    must(cuCtxSynchronize());
    return 0;
}
