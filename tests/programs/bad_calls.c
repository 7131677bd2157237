/* bad_calls [SEED]: calls every function of the header with null, wrong, freed and foreign arguments, each function in
 * a process of its own. Says "calls=N" and "crashes=N", "refusals=N" and for each answer that NVIDIA's documentation of
 * the function does not name "undocumented=N"; details go to standard error. Pointers are null or good for 64 KiB:
 * no driver can tell other ones. */
#include "common.h"
#include <stdint.h>
#include <sys/mman.h>

struct call {
    const char *name, *kinds;
    int documented[24];
};

static const struct call calls[] = {
#include "documented.h"
};

enum { ROUNDS = 400, ROOM = 64 * 1024, GOOD = 4 };

static unsigned seed;
static char room[2][ROOM];
static char text[2][16] = { "", "spin_0ms" };

static unsigned pick(unsigned choices) { return (unsigned)rand_r(&seed) % choices; }

/* Good handles of every kind, some of them destroyed again. */
static uint64_t handles[128][GOOD];
static CUdeviceptr addresses[8];

static void keep(char kind, unsigned place, const void *handle) { handles[(int)kind][place] = (uint64_t)handle; }

static void make_handles(void)
{
    static const char image[] =
        ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry spin_0ms()\n{\n    ret;\n}\n";
    CUDA_ARRAY_DESCRIPTOR flat = { .Width = 64, .Height = 4, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
    CUDA_ARRAY3D_DESCRIPTOR solid = { .Width = 64, .Height = 4, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
    CUmemPoolProps props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location.type = CU_MEM_LOCATION_TYPE_DEVICE };
    CUcontext context;
    must(cuCtxGetCurrent(&context));
    for (unsigned i = 0; i < GOOD; i++) {
        CUevent event;
        CUstream stream;
        CUmodule module;
        CUfunction kernel;
        CUlibrary library;
        CUarray array;
        CUmipmappedArray mipmap;
        CUgraph graph;
        CUgraphNode node;
        CUgraphExec exec;
        CUmemoryPool pool;
        must(cuEventCreate(&event, 0));
        must(cuStreamCreate(&stream, i % 2));
        must(cuModuleLoadData(&module, image));
        must(cuModuleGetFunction(&kernel, module, "spin_0ms"));
        must(cuLibraryLoadData(&library, image, NULL, NULL, 0, NULL, NULL, 0));
        must(cuArrayCreate(&array, &flat));
        must(cuMipmappedArrayCreate(&mipmap, &solid, 2));
        must(cuGraphCreate(&graph, 0));
        must(cuGraphAddEmptyNode(&node, graph, NULL, 0));
        must(cuGraphInstantiateWithFlags(&exec, graph, 0));
        must(cuMemPoolCreate(&pool, &props));
        if (i == GOOD - 1) {
            must(cuEventDestroy(event));
            must(cuStreamDestroy(stream));
            must(cuModuleUnload(module));
            must(cuLibraryUnload(library));
            must(cuArrayDestroy(array));
            must(cuMipmappedArrayDestroy(mipmap));
            must(cuGraphExecDestroy(exec));
            must(cuGraphDestroy(graph));
            must(cuMemPoolDestroy(pool));
        }
        if (i == 1)
            must(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
        keep('c', i, context);
        keep('e', i, event);
        keep('s', i, stream);
        keep('m', i, module);
        keep('k', i, kernel);
        keep('l', i, library);
        keep('a', i, array);
        keep('y', i, mipmap);
        keep('g', i, graph);
        keep('n', i, node);
        keep('x', i, exec);
        keep('p', i, pool);
        keep('h', i, pool);
    }
    CUdeviceptr freed;
    must(cuMemAlloc(&addresses[1], ROOM));
    must(cuMemAllocManaged(&addresses[2], ROOM, CU_MEM_ATTACH_GLOBAL));
    must(cuMemAllocAsync(&addresses[3], ROOM, NULL));
    must(cuMemAlloc(&freed, 4 * MIB));
    must(cuMemFree(freed));
    addresses[4] = freed;
    must(cuMemAddressReserve(&addresses[5], 2 * MIB, 0, 0, 0));
    addresses[6] = addresses[1] + ROOM - 1;
}

static uint64_t argument(char kind)
{
    static const uint64_t numbers[] = { 0, 1, 2, 3, 4, 16, 100, 0xffffffff, 0x7fffffff };
    static const uint64_t sizes[] = { 0, 1, 3, 512, 4096, ROOM };
    static const char kinds[] = "cesmklaygnxph";
    switch (kind) {
    case 'i': return numbers[pick(9)];
    case '#': return numbers[pick(4)];
    case 'z': return sizes[pick(6)];
    case '*': return pick(4) ? (uint64_t)room[pick(2)] : 0;
    case 't': return pick(4) ? (uint64_t)text[pick(2)] : 0;
    case 'd': return addresses[pick(7)];
    case '0': return 0;
    }
    switch (pick(8)) {
    case 0: return 0;
    case 1: return pick(3);
    case 2: return 0x5a5a5a50;
    case 3: return handles[(int)kinds[pick(13)]][pick(GOOD)];
    default: return handles[(int)kind][pick(GOOD)];
    }
}

/* What comes of many calls of one function: counted where all processes see it. */
struct counts {
    long calls, refusals, undocumented;
};

/* Errors that NVIDIA's lists leave out and every driver gives: for any argument, for a handle, a context, a device, an
 * image, and for what a capture forbids. */
static int goes_without_saying(const struct call *call, CUresult rc)
{
    switch (rc) {
    case CUDA_SUCCESS:
    case CUDA_ERROR_INVALID_VALUE:
    case CUDA_ERROR_INVALID_CONTEXT:
    case CUDA_ERROR_NOT_SUPPORTED: return 1;
    case CUDA_ERROR_INVALID_HANDLE: return strpbrk(call->kinds, "esmklayph") != NULL;
    case CUDA_ERROR_INVALID_DEVICE: return strchr(call->kinds, 'i') != NULL || strchr(call->kinds, 'c') != NULL;
    /* Seen of a real driver, where there is no capture to end, or one already. */
    case CUDA_ERROR_ILLEGAL_STATE: return strstr(call->name, "Capture") != NULL;
    case CUDA_ERROR_INVALID_IMAGE:
    case CUDA_ERROR_FILE_NOT_FOUND: return strstr(call->name, "Load") != NULL;
    default:
        return rc >= CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED && rc <= CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
            && (strchr(call->kinds, 's') || strstr(call->name, "Synchronize"));
    }
}

static void call_badly(const struct call *call, struct counts *counts)
{
    typedef CUresult (*function)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
    function target = (function)dlsym(RTLD_DEFAULT, call->name);
    char told[1000] = "";
    if (!target)
        return;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t a[12] = { 0 };
        for (size_t i = 0; call->kinds[i]; i++)
            a[i] = argument(call->kinds[i]);
        memset(room, 0, sizeof room);
        CUresult rc = target(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11]);
        counts->calls++;
        counts->refusals += rc != CUDA_SUCCESS;
        int known = goes_without_saying(call, rc);
        for (int i = 0; call->documented[i]; i++)
            known |= (int)rc == call->documented[i];
        if (!known && (rc >= 1000 || !told[rc])) {
            told[rc < 1000 ? rc : 999] = 1;
            counts->undocumented++;
            fprintf(stderr, "%s(%s) answers %d\n", call->name, call->kinds, rc);
        }
    }
}

int main(int argc, char **argv)
{
    long crashes = 0;
    struct counts *counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            seed = (unsigned)number(argc, argv, 1, 1) * 1000 + (unsigned)i;
            alarm(30);
            open_device();
            make_handles();
            call_badly(&calls[i], counts);
            _exit(0);
        }
        must(waitpid(child, &status, 0) != child);
        if (status != 0) {
            crashes++;
            fprintf(stderr, "%s(%s): status %#x\n", calls[i].name, calls[i].kinds, status);
        }
    }
    say("functions", sizeof calls / sizeof *calls);
    say("calls", counts->calls);
    say("refusals", counts->refusals);
    say("undocumented", counts->undocumented);
    say("crashes", crashes);
    return 0;
}
