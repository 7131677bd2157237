/* Many short threads, each with its own driver calls, and driver calls from the exit path after main. */
#include "common.h"

static void *work(void *unused)
{
    CUdeviceptr memory;
    CUcontext context;
    must(cuDevicePrimaryCtxRetain(&context, 0));
    must(cuCtxSetCurrent(context));
    must(cuMemAlloc(&memory, MIB));
    must(cuMemFree(memory));
    return unused;
}

static CUdeviceptr kept;

static void at_exit(void)
{
    say("late_free", cuMemFree(kept));
}

int main(void)
{
    pthread_t thread;

    open_device();
    must(cuMemAlloc(&kept, MIB));
    must(atexit(at_exit));
    for (int i = 0; i < 200; i++) {
        must(pthread_create(&thread, NULL, work, NULL));
        must(pthread_join(thread, NULL));
    }
    say_memory();
    return 0;
}
