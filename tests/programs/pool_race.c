/* THREADS threads take and give back stream-ordered memory and plain memory in turn, ROUNDS times each, as fast as they can.
 * Refusals for want of memory are part of it. Begins when the test writes a line. */
#include "common.h"

enum { PIECES = 6 };

static CUcontext context;
static long rounds, refusals;

/* Whether memory was given; other errors end the program. */
static int given(CUresult answer)
{
    if (answer == CUDA_ERROR_OUT_OF_MEMORY) {
        __atomic_fetch_add(&refusals, 1, __ATOMIC_RELAXED);
        return 0;
    }
    must(answer);
    return 1;
}

static void *race(void *seed)
{
    unsigned state = (unsigned)(size_t)seed;
    CUdeviceptr held[PIECES] = { 0 };
    int ordered[PIECES] = { 0 };
    CUstream stream;

    must(cuCtxSetCurrent(context));
    must(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    for (long round = 0; round < rounds; round++) {
        int which = rand_r(&state) % PIECES;
        size_t bytes = 1 + (size_t)rand_r(&state) % (24 * MIB);
        if (held[which])
            must(ordered[which] ? cuMemFreeAsync(held[which], stream) : cuMemFree(held[which]));
        ordered[which] = rand_r(&state) % 2;
        if (!given(ordered[which] ? cuMemAllocAsync(&held[which], bytes, stream) : cuMemAlloc(&held[which], bytes)))
            held[which] = 0;
        if (round % 8 == 0)
            must(cuStreamSynchronize(stream));
    }
    for (int i = 0; i < PIECES; i++)
        if (held[i])
            must(ordered[i] ? cuMemFreeAsync(held[i], stream) : cuMemFree(held[i]));
    must(cuStreamSynchronize(stream));
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread[16];
    int threads = (int)number(argc, argv, 1, 4);

    rounds = (long)number(argc, argv, 2, 300);
    open_device();
    must(cuCtxGetCurrent(&context));
    say("ready", getpid());
    wait_for_test();
    for (int i = 0; i < threads; i++)
        must(pthread_create(&thread[i], NULL, race, (void *)(size_t)(getpid() * 64 + i)));
    for (int i = 0; i < threads; i++)
        must(pthread_join(thread[i], NULL));
    say("refusals", refusals);
    return 0;
}
