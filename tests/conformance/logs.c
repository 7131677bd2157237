/* The error log of drivers from CUDA 12.9 on. */
#include "promises.h"

static int heard;

static void listener(void *data, CUlogLevel level, char *message, size_t length)
{
    heard += data == &heard && level == CU_LOG_LEVEL_ERROR && strlen(message) == length
        && strstr(message, "CUDA_ERROR_INVALID_VALUE") && strstr(message, "cuMemAlloc");
}

/* A real driver may be older than the log. */
#define LOGS                                                                           \
    CUresult (*log_current)(CUlogIterator *, unsigned) = found("cuLogsCurrent");       \
    CUresult (*log_register)(CUlogsCallback, void *, CUlogsCallbackHandle *) = found("cuLogsRegisterCallback"); \
    CUresult (*log_unregister)(CUlogsCallbackHandle) = found("cuLogsUnregisterCallback"); \
    CUresult (*log_dump)(CUlogIterator *, char *, size_t *, unsigned) = found("cuLogsDumpToMemory")

static void *found(const char *name)
{
    void *function = NULL;
    CUdriverProcAddressQueryResult status;
    ok(cuGetProcAddress(name, &function, 12090, 0, &status));
    if (!function)
        cannot("this driver has no error log");
    return function;
}

static void a_call_that_fails_says_so_in_the_log(void)
{
    LOGS;
    CUdeviceptr memory;
    CUlogsCallbackHandle handle;
    CUlogIterator from;
    char text[4096];
    size_t size = sizeof text;

    ok(log_register(listener, &heard, &handle));
    ok(log_current(&from, 0));
    same(cuMemAlloc(&memory, 0), CUDA_ERROR_INVALID_VALUE);
    holds(heard > 0);
    ok(log_dump(&from, text, &size, 0));
    holds(size > 0 && strstr(text, "cuMemAlloc"));
    size = sizeof text;
    ok(log_dump(&from, text, &size, 0));
    same(size, 0);
    int before = heard;
    ok(log_unregister(handle));
    same(cuMemAlloc(&memory, 0), CUDA_ERROR_INVALID_VALUE);
    same(heard, before);
    ok(cuMemAlloc(&memory, MIB));
}

const struct promise logs[] = { PROMISE(a_call_that_fails_says_so_in_the_log), { 0 } };
