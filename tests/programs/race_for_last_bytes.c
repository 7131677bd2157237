/* THREADS threads take and give back pieces of up to BYTES, ROUNDS times each, as fast as they can. Before
 * the race, which any other line starts, and at rest it answers "info"; at rest it also takes exactly what it
 * is told to ("alloc BYTES"). */
#include "common.h"

enum { PIECES = 8 };

static size_t largest;
static long rounds, refusals, admitted;

static void *race(void *seed)
{
    unsigned state = (unsigned)(size_t)seed;
    CUdeviceptr held[PIECES] = { 0 };
    CUcontext context;

    must(cuDevicePrimaryCtxRetain(&context, 0));
    must(cuCtxSetCurrent(context));
    for (long round = 0; round < rounds; round++) {
        CUdeviceptr *piece = &held[rand_r(&state) % PIECES];
        if (*piece) {
            must(cuMemFree(*piece));
            *piece = 0;
        }
        CUresult rc = cuMemAlloc(piece, 1 + (size_t)rand_r(&state) % largest);
        if (rc == CUDA_ERROR_OUT_OF_MEMORY) {
            *piece = 0;
            __atomic_fetch_add(&refusals, 1, __ATOMIC_RELAXED);
        } else {
            must(rc);
            __atomic_fetch_add(&admitted, 1, __ATOMIC_RELAXED);
        }
    }
    /* One piece stays, so that the rest is found among other people's memory. */
    for (int i = 1; i < PIECES; i++)
        if (held[i])
            must(cuMemFree(held[i]));
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread[64];
    int threads = (int)number(argc, argv, 1, 4);
    char line[64];

    largest = (size_t)number(argc, argv, 2, 16 * (long long)MIB);
    rounds = (long)number(argc, argv, 3, 500);
    open_device();
    say("ready", getpid());
    while (next_line(line, sizeof line) && strncmp(line, "info", 4) == 0)
        say_memory();
    for (int i = 0; i < threads; i++)
        must(pthread_create(&thread[i], NULL, race, (void *)(size_t)(getpid() * 64 + i)));
    for (int i = 0; i < threads; i++)
        must(pthread_join(thread[i], NULL));
    say("refusals", refusals);
    say("admitted", admitted);
    say("rest", getpid());
    while (next_line(line, sizeof line)) {
        unsigned long long bytes;
        CUdeviceptr memory;
        if (sscanf(line, "alloc %llu", &bytes) == 1)
            say("rc", cuMemAlloc(&memory, bytes));
        else
            say_memory();
    }
    return 0;
}
