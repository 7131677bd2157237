/* What a pair of cuMemAlloc and cuMemFree costs in company: THREADS threads, LIVE allocations of this size living
 * meanwhile, BYTES each, PAIRS per thread. Says "ready", starts when told, and prints processor time per pair in
 * nanoseconds: on a machine of few processors the time that threads wait for one is nobody's cost. Not a test: `make
 * bench` runs it. */
#include "common.h"

static size_t bytes;
static long pairs;
static CUcontext context;
static pthread_barrier_t all;

static void *work(void *unused)
{
    CUdeviceptr memory;

    (void)unused;
    must(cuCtxSetCurrent(context));
    pthread_barrier_wait(&all);
    for (long i = 0; i < pairs; i++) {
        must(cuMemAlloc(&memory, bytes));
        must(cuMemFree(memory));
    }
    return NULL;
}

static double processor_ns(void)
{
    struct timespec spent;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return (double)spent.tv_sec * 1e9 + (double)spent.tv_nsec;
}

int main(int argc, char **argv)
{
    long threads = (long)number(argc, argv, 1, 1), live = (long)number(argc, argv, 2, 0);
    pthread_t thread[64];
    CUdeviceptr memory;

    bytes = (size_t)number(argc, argv, 3, 4096);
    pairs = (long)number(argc, argv, 4, 100000);
    open_device();
    must(cuCtxGetCurrent(&context));
    for (long i = 0; i < live; i++)
        must(cuMemAlloc(&memory, bytes));
    pthread_barrier_init(&all, NULL, (unsigned)threads + 1);
    for (long i = 0; i < threads; i++)
        pthread_create(&thread[i], NULL, work, NULL);
    say("ready", getpid());
    wait_for_test();
    double start = processor_ns();
    pthread_barrier_wait(&all);
    for (long i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    printf("pair=%.2f\n", (processor_ns() - start) / (double)(pairs * threads));
    return 0;
}
