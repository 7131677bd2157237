/* What the test programs share: an open device, a way to say what was seen, a way to wait for the test.
 * A program says "key=value" lines; the test reads them and judges. */
#pragma once
#define _GNU_SOURCE
#include <cuda.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1ull << 20)

/* The call must succeed, or the program ends and says which call did not. */
#define must(call)                                                                     \
    do {                                                                               \
        long must_rc_ = (long)(call);                                                  \
        if (must_rc_ != 0) {                                                           \
            printf("failed=%s\nrc=%ld\n", #call, must_rc_);                            \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

static inline void say(const char *key, long long value)
{
    printf("%s=%lld\n", key, value);
    fflush(stdout);
}

/* Blocks until the test writes a line; false when it closed the pipe. */
static inline int next_line(char *line, int size)
{
    return fgets(line, size, stdin) != NULL;
}

static inline void wait_for_test(void)
{
    char line[64];
    if (!next_line(line, sizeof line))
        exit(0);
}

/* Whether the test has written a line or closed the pipe, since listen_for_end. */
static volatile int told_to_end;

static inline void *hear_end(void *unused)
{
    char line[64];
    next_line(line, sizeof line);
    told_to_end = 1;
    return unused;
}

/* In a thread of its own, so that a loop costs no system call more. Join it before the next line is read. */
static inline pthread_t listen_for_end(void)
{
    pthread_t listener;
    must(pthread_create(&listener, NULL, hear_end, NULL));
    return listener;
}

/* The n-th argument as a number, or what it is when absent. */
static inline long long number(int argc, char **argv, int n, long long otherwise)
{
    return argc > n ? strtoll(argv[n], NULL, 10) : otherwise;
}

static inline double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Only for programs that are linked to the driver: device 0 with its primary context current. */
static inline CUdevice open_device(void)
{
    CUdevice device;
    CUcontext context;
    must(cuInit(0));
    must(cuDeviceGet(&device, 0));
    must(cuDevicePrimaryCtxRetain(&context, device));
    must(cuCtxSetCurrent(context));
    return device;
}

static inline void say_memory(void)
{
    size_t free_bytes = 0, total = 0;
    must(cuMemGetInfo(&free_bytes, &total));
    say("free", (long long)free_bytes);
    say("total", (long long)total);
}
