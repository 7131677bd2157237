/* What the kit's programs share beside the test programs' common.h: the device's code and the log that it stamps. */
#pragma once
#include "common.h"

/* Version 2 came with CUDA 12.8; older drivers have this one. */
#undef cuEventElapsedTime
CUresult cuEventElapsedTime(float *, CUevent, CUevent);

struct entry {
    unsigned long long begin, end;
};

struct log_head {
    unsigned long long next, capacity;
};

/* Modules of the folder in which the program lies. A driver that is too old for the compiled code gets the text. */
static inline CUmodule module_of(const char *name)
{
    char path[4096];
    CUmodule module;
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
    must(length <= 0);
    path[length] = 0;
    char *end = strrchr(path, '/') + 1;
    sprintf(end, "%s.fatbin", name);
    CUresult rc = cuModuleLoad(&module, path);
    if (rc != CUDA_SUCCESS && rc != CUDA_ERROR_OUT_OF_MEMORY) {
        sprintf(end, "%s.ptx", name);
        rc = cuModuleLoad(&module, path);
    }
    must(rc);
    return module;
}

static inline CUfunction function_of(CUmodule module, const char *name)
{
    CUfunction function;
    must(cuModuleGetFunction(&function, module, name));
    return function;
}

static inline long long nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* An empty log of so many entries in device memory. */
static inline CUdeviceptr log_of(unsigned long long capacity)
{
    struct log_head head = { 0, capacity };
    CUdeviceptr log;
    must(cuMemAlloc(&log, sizeof head + capacity * sizeof(struct entry)));
    must(cuMemcpyHtoD(log, &head, sizeof head));
    return log;
}

/* How many entries a log has; call it when the device is idle. */
static inline unsigned long long entries_of(CUdeviceptr log)
{
    struct log_head head;
    must(cuMemcpyDtoH(&head, log, sizeof head));
    return head.next < head.capacity ? head.next : head.capacity;
}

static inline void read_entries(CUdeviceptr log, struct entry *entries, unsigned long long count)
{
    must(cuMemcpyDtoH(entries, log + sizeof(struct log_head), count * sizeof *entries));
}

static inline void clear_log(CUdeviceptr log)
{
    must(cuMemsetD8(log, 0, sizeof(unsigned long long)));
    must(cuCtxSynchronize());
}

static inline CUresult launch_stamped(CUfunction kernel, unsigned long long value, CUdeviceptr log, CUstream stream)
{
    void *parameters[] = { &value, &log };
    return cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL);
}

static inline int ascending(const void *a, const void *b)
{
    long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

/* The value below which so many of 1,000 samples lie. Sorts them. */
static inline long long per_mille(long long *samples, long count, long rank)
{
    if (count == 0)
        return 0;
    qsort(samples, count, sizeof *samples, ascending);
    return samples[count * rank / 1000 < count ? count * rank / 1000 : count - 1];
}
