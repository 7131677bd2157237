/* Threads (first argument: how many) that take and give device memory of every kind that is asked for by size, at random
 * (second argument: the seed), until the test says "rest"; then says so and holds what it has until "free" or the end.
 * Refusals for want of memory are part of it, every other answer is an error. */
#include "common.h"
#include <stdatomic.h>

enum { PIECES = 24, KINDS = 7 };

struct piece {
    int kind;
    size_t bytes;
    CUdeviceptr memory;
    CUarray array;
    CUmipmappedArray mipmap;
    CUmemGenericAllocationHandle handle;
    int mapped, released;
};

static atomic_int resting, started;
static atomic_long refusals;
static CUcontext context;
static size_t grain;
static const CUmemAllocationProp device = { .type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                            .location.type = CU_MEM_LOCATION_TYPE_DEVICE };

static CUresult take_vmm(struct piece *it, unsigned *seed)
{
    CUresult rc;

    it->bytes = (it->bytes + grain - 1) / grain * grain;
    it->mapped = it->released = 0;
    rc = cuMemCreate(&it->handle, it->bytes, &device, 0);
    if (rc != CUDA_SUCCESS)
        return rc;
    if (rand_r(seed) % 2) {
        must(cuMemAddressReserve(&it->memory, it->bytes, 0, 0, 0));
        must(cuMemMap(it->memory, it->bytes, 0, it->handle, 0));
        it->mapped = 1;
        /* Some keep their memory by the mapping alone, which a handle may be taken from again. */
        if (rand_r(seed) % 2) {
            must(cuMemRelease(it->handle));
            it->released = 1;
        }
        if (it->released && rand_r(seed) % 2) {
            must(cuMemRetainAllocationHandle(&it->handle, (void *)it->memory));
            it->released = 0;
        }
    }
    return rc;
}

static CUresult take(struct piece *it, unsigned *seed)
{
    size_t pitch;
    CUDA_ARRAY_DESCRIPTOR plane = { 256, it->bytes / 1024 + 1, CU_AD_FORMAT_FLOAT, 1 };
    CUDA_ARRAY3D_DESCRIPTOR box = { 64, 64, it->bytes / 65536 + 1, CU_AD_FORMAT_FLOAT, 4, 0 };
    CUDA_ARRAY3D_DESCRIPTOR levels = { 256, it->bytes / 1024 + 1, 0, CU_AD_FORMAT_FLOAT, 1, 0 };

    switch (it->kind) {
    case 0: return cuMemAlloc(&it->memory, it->bytes);
    case 1: return cuMemAllocManaged(&it->memory, it->bytes, CU_MEM_ATTACH_GLOBAL);
    case 2: return cuMemAllocPitch(&it->memory, &pitch, 1 + it->bytes % 3000, it->bytes / 3000 + 1, 4);
    case 3: return cuArrayCreate(&it->array, &plane);
    case 4: return cuArray3DCreate(&it->array, &box);
    case 5: return cuMipmappedArrayCreate(&it->mipmap, &levels, 3);
    default: return take_vmm(it, seed);
    }
}

static void give(struct piece *it)
{
    switch (it->kind) {
    case 3: case 4:
        must(cuArrayDestroy(it->array));
        break;
    case 5:
        must(cuMipmappedArrayDestroy(it->mipmap));
        break;
    case 6:
        if (!it->released)
            must(cuMemRelease(it->handle));
        if (it->mapped) {
            must(cuMemUnmap(it->memory, it->bytes));
            must(cuMemAddressFree(it->memory, it->bytes));
        }
        break;
    default:
        must(cuMemFree(it->memory));
    }
    it->bytes = 0;
}

struct worker {
    pthread_t thread;
    unsigned seed;
    struct piece pieces[PIECES];
};

static void *work(void *argument)
{
    struct worker *self = argument;

    must(cuCtxSetCurrent(context));
    atomic_fetch_add(&started, 1);
    while (!atomic_load(&resting)) {
        struct piece *it = &self->pieces[rand_r(&self->seed) % PIECES];
        if (it->bytes) {
            give(it);
            continue;
        }
        it->kind = rand_r(&self->seed) % KINDS;
        it->bytes = 1 + (size_t)rand_r(&self->seed) % (rand_r(&self->seed) % 2 ? MIB : 384 * MIB);
        CUresult rc = take(it, &self->seed);
        if (rc == CUDA_ERROR_OUT_OF_MEMORY) {
            it->bytes = 0;
            atomic_fetch_add(&refusals, 1);
        } else {
            must(rc);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    int threads = (int)number(argc, argv, 1, 4);
    static struct worker workers[64];
    char line[64];

    open_device();
    must(cuCtxGetCurrent(&context));
    must(cuMemGetAllocationGranularity(&grain, &device, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    say_memory();
    /* All contexts are made before the first storm: a context that does not fit is refused. */
    if (!next_line(line, sizeof line))
        return 0;
    for (int i = 0; i < threads; i++) {
        workers[i].seed = (unsigned)number(argc, argv, 2, 1) * 1000 + (unsigned)i;
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    while (atomic_load(&started) < threads)
        usleep(100);
    say("ready", getpid());
    while (next_line(line, sizeof line)) {
        if (strncmp(line, "rest", 4) == 0) {
            atomic_store(&resting, 1);
            for (int i = 0; i < threads; i++)
                pthread_join(workers[i].thread, NULL);
            say_memory();
            say("refusals", atomic_load(&refusals));
        } else {
            for (int i = 0; i < threads; i++)
                for (int j = 0; j < PIECES; j++)
                    if (workers[i].pieces[j].bytes)
                        give(&workers[i].pieces[j]);
            say_memory();
        }
    }
    return 0;
}
