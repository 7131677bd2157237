/* Takes device memory of one kind (first argument), says what the slice lost, gives it back, says what
 * came back, and then asks for more than the slice has. */
#include "common.h"

struct kind {
    const char *name;
    CUresult (*take)(size_t bytes);
    CUresult (*give)(void);
};

static CUdeviceptr memory;
static CUarray array;
static CUmipmappedArray mipmap;
static CUmemGenericAllocationHandle handle;

static CUresult plain(size_t bytes) { return cuMemAlloc(&memory, bytes); }
static CUresult managed(size_t bytes) { return cuMemAllocManaged(&memory, bytes, CU_MEM_ATTACH_GLOBAL); }
static CUresult plain_free(void) { return cuMemFree(memory); }

static CUresult pitch(size_t bytes)
{
    size_t row;
    CUresult rc = cuMemAllocPitch(&memory, &row, 1000, bytes / 1024, 4);
    if (rc == CUDA_SUCCESS)
        say("taken", (long long)(row * (bytes / 1024)));
    return rc;
}

static CUresult array_2d(size_t bytes)
{
    CUDA_ARRAY_DESCRIPTOR shape = { .Width = 1024, .Height = bytes / 4096, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
    return cuArrayCreate(&array, &shape);
}

static CUresult array_3d(size_t bytes)
{
    CUDA_ARRAY3D_DESCRIPTOR shape = { .Width = 64, .Height = 64, .Depth = bytes / (64 * 64 * 16), .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4 };
    return cuArray3DCreate(&array, &shape);
}

static CUresult array_free(void) { return cuArrayDestroy(array); }

static CUresult mipmapped(size_t bytes)
{
    CUDA_ARRAY3D_DESCRIPTOR shape = { .Width = 1024, .Height = bytes / 4096, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
    return cuMipmappedArrayCreate(&mipmap, &shape, 1);
}

static CUresult mipmapped_free(void) { return cuMipmappedArrayDestroy(mipmap); }

static CUresult vmm(size_t bytes)
{
    CUmemAllocationProp where = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location.type = CU_MEM_LOCATION_TYPE_DEVICE };
    size_t grain;
    CUresult rc = cuMemGetAllocationGranularity(&grain, &where, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    return rc ? rc : cuMemCreate(&handle, (bytes + grain - 1) / grain * grain, &where, 0);
}

static CUresult vmm_free(void) { return cuMemRelease(handle); }

static CUresult on_stream(size_t bytes) { return cuMemAllocAsync(&memory, bytes, NULL); }

static CUresult on_stream_free(void)
{
    CUresult rc = cuMemFreeAsync(memory, NULL);
    return rc ? rc : cuStreamSynchronize(NULL);
}

static const struct kind kinds[] = {
    { "plain", plain, plain_free },         { "managed", managed, plain_free },
    { "pitch", pitch, plain_free },         { "array", array_2d, array_free },
    { "array3d", array_3d, array_free },    { "mipmap", mipmapped, mipmapped_free },
    { "vmm", vmm, vmm_free },               { "async", on_stream, on_stream_free },
};

int main(int argc, char **argv)
{
    size_t total, before, after, again;

    open_device();
    for (unsigned i = 0; argc > 1 && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, argv[1]) != 0)
            continue;
        must(cuMemGetInfo(&before, &total));
        must(kinds[i].take(64 * MIB));
        must(cuMemGetInfo(&after, &total));
        say("charged", (long long)(before - after));
        must(kinds[i].give());
        must(cuMemGetInfo(&again, &total));
        say("returned", (long long)(again - after));
        say("over", kinds[i].take(again + 64 * MIB));
        return 0;
    }
    fprintf(stderr, "kinds: no kind %s\n", argc > 1 ? argv[1] : "");
    return 2;
}
