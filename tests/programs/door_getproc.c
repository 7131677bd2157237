/* cuGetProcAddress, version 1 or 2 (first argument), flags 0 or 2 (second): flag 2 asks for the
 * per-thread-stream variants, so memory comes from the stream-ordered allocator, which has them. */
#include "walk.h"

static void *driver;
static int version;
static cuuint64_t flags;

static void *ask(const char *name, int since)
{
    void *found = NULL;
    if (version == 1) {
        CUresult (*get)(const char *, void **, int, cuuint64_t) = dlsym(driver, "cuGetProcAddress");
        must(get(name, &found, since, flags));
    } else {
        CUdriverProcAddressQueryResult status;
        CUresult (*get)(const char *, void **, int, cuuint64_t, CUdriverProcAddressQueryResult *) =
            dlsym(driver, "cuGetProcAddress_v2");
        must(get(name, &found, since, flags, &status));
    }
    must(found == NULL);
    return found;
}

static CUresult (*alloc_async)(CUdeviceptr *, size_t, CUstream);
static CUresult (*free_async)(CUdeviceptr, CUstream);
static CUresult (*synchronize)(CUstream);

static CUresult alloc_on_stream(CUdeviceptr *memory, size_t bytes)
{
    return alloc_async(memory, bytes, NULL);
}

/* A pool keeps what was freed until a synchronization, at which its threshold of 0 lets go of it. */
static CUresult free_on_stream(CUdeviceptr memory)
{
    CUresult rc = free_async(memory, NULL);
    return rc ? rc : synchronize(NULL);
}

int main(int argc, char **argv)
{
    version = (int)number(argc, argv, 1, 2);
    flags = (cuuint64_t)number(argc, argv, 2, 0);
    must((driver = dlopen("libcuda.so.1", RTLD_NOW)) == NULL);
    struct door door = { ask("cuInit", 2000), ask("cuDeviceGet", 2000), ask("cuDevicePrimaryCtxRetain", 7000),
                         ask("cuCtxSetCurrent", 4000), ask("cuMemGetInfo", 3020), ask("cuMemAlloc", 3020),
                         ask("cuMemFree", 3020) };
    if (flags == CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) {
        alloc_async = ask("cuMemAllocAsync", 11020);
        free_async = ask("cuMemFreeAsync", 11020);
        synchronize = ask("cuStreamSynchronize", 7000);
        door.mem_alloc = alloc_on_stream;
        door.mem_free = free_on_stream;
    }
    return walk(&door);
}
