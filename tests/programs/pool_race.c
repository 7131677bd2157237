/* THREADS threads take and give back memory of the device's pool, of a pool that keeps what is freed, and plain memory in turn,
 * ROUNDS times each, as fast as they can: PIECES pieces of at most LARGEST bytes. Refusals for want of memory are part of it.
 * Begins when the test writes a line, and keeps what it has at the end until it writes another. */
#include "common.h"

enum { MOST_PIECES = 64 };
enum kind { PLAIN, ORDERED, KEPT, KINDS };

static CUcontext context;
static CUmemoryPool keeping;
static long rounds, pieces, largest, refusals;

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

static CUresult take(CUdeviceptr *address, size_t bytes, enum kind kind, CUstream stream)
{
    switch (kind) {
    case PLAIN: return cuMemAlloc(address, bytes);
    case ORDERED: return cuMemAllocAsync(address, bytes, stream);
    default: return cuMemAllocFromPoolAsync(address, bytes, keeping, stream);
    }
}

static void give(CUdeviceptr address, enum kind kind, CUstream stream)
{
    must(kind == PLAIN ? cuMemFree(address) : cuMemFreeAsync(address, stream));
}

static void *race(void *seed)
{
    unsigned state = (unsigned)(size_t)seed;
    CUdeviceptr held[MOST_PIECES] = { 0 };
    enum kind kind[MOST_PIECES] = { 0 };
    CUstream stream;

    must(cuCtxSetCurrent(context));
    must(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    for (long round = 0; round < rounds; round++) {
        int which = rand_r(&state) % pieces;
        size_t bytes = 1 + (size_t)rand_r(&state) % largest;
        if (held[which])
            give(held[which], kind[which], stream);
        kind[which] = rand_r(&state) % KINDS;
        if (!given(take(&held[which], bytes, kind[which], stream)))
            held[which] = 0;
        if (round % 8 == 0)
            must(cuStreamSynchronize(stream));
    }
    must(cuStreamSynchronize(stream));
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread[16];
    cuuint64_t all = UINT64_MAX;
    CUmemPoolProps properties = {
        .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
        .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0 },
    };
    int threads = (int)number(argc, argv, 1, 4);

    rounds = (long)number(argc, argv, 2, 300);
    largest = (long)number(argc, argv, 3, 24 * MIB);
    pieces = (long)number(argc, argv, 4, 6);
    open_device();
    must(cuCtxGetCurrent(&context));
    must(cuMemPoolCreate(&keeping, &properties));
    must(cuMemPoolSetAttribute(keeping, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
    say("ready", getpid());
    wait_for_test();
    for (int i = 0; i < threads; i++)
        must(pthread_create(&thread[i], NULL, race, (void *)(size_t)(getpid() * 64 + i)));
    for (int i = 0; i < threads; i++)
        must(pthread_join(thread[i], NULL));
    say("refusals", refusals);
    wait_for_test();
    return 0;
}
