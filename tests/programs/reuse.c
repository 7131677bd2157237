/* Two threads and a driver that gives a handle out again as soon as it has it back (drivers/other_life.c). Thread 1 gives a
 * handle back, and the driver stops in that call; thread 2 gets the same handle; then the first call returns. What the
 * books say is compared with what the driver holds.
 *
 *     reuse CALL    the call in which thread 1 stops, without `cu` */
#include "common.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
CUresult cuCtxCreate_v2(CUcontext *, unsigned, CUdevice);

static size_t (*figure)(void);
static CUdeviceptr at = 1ull << 32, memory, other;
static CUmemGenericAllocationHandle physical, again, object;
static CUmemAllocationProp device = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location.type = CU_MEM_LOCATION_TYPE_DEVICE };
static CUmulticastObjectProp team = { .numDevices = 1, .size = 64 * MIB };
static CUmemPoolProps in_pool = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location.type = CU_MEM_LOCATION_TYPE_DEVICE };
static CUcontext context, same;
static CUmemoryPool pool, new_pool;
static CUgraphExec exec, new_exec;
static CUgreenCtx green, new_green;
static volatile int finished;

static void step(const char *name)
{
    size_t left, total;
    must(cuMemGetInfo(&left, &total));
    printf("step=%s\nheld=%zu\ncharged=%zu\n", name, figure(), total - left);
    fflush(stdout);
}

static void same_handle(const void *first, const void *second)
{
    if (first != second) {
        printf("failed=another handle\n");
        exit(1);
    }
}

#define SAME(a, b) same_handle((const void *)(size_t)(a), (const void *)(size_t)(b))

/* Each kind: what there is before, what thread 1 calls, what thread 2 does meanwhile, what goes at the end. */
static void before_free(void) { must(cuMemAlloc(&memory, 4 * MIB)); }
static void free_it(void) { must(cuMemFree(memory)); }
static void alloc(void) { must(cuMemAlloc(&other, 8 * MIB)); SAME(memory, other); }
static void end_free(void) { must(cuMemFree(other)); }

static void before_release(void) { must(cuMemCreate(&physical, 4 * MIB, &device, 0)); }
static void release(void) { must(cuMemRelease(physical)); }
static void create(void) { must(cuMemCreate(&again, 8 * MIB, &device, 0)); SAME(physical, again); }
static void end_release(void) { must(cuMemRelease(again)); }

static void before_unmap(void)
{
    before_release();
    must(cuMemMap(at, 4 * MIB, 0, physical, 0));
    release();
}
static void unmap(void) { must(cuMemUnmap(at, 4 * MIB)); }

static void before_unbind(void)
{
    before_release();
    must(cuMulticastCreate(&object, &team));
    must(cuMulticastBindMem(object, 0, physical, 0, 4 * MIB, 0));
    release();
}
static void unbind(void) { must(cuMulticastUnbind(object, 0, 0, 4 * MIB)); }

static void before_destroy(void)
{
    must(cuCtxCreate_v2(&context, 0, 0));
    must(cuCtxSetCurrent(context));
    must(cuMemAlloc(&memory, 4 * MIB));
}
static void destroy(void) { must(cuCtxDestroy(context)); }
static void detach(void) { must(cuCtxDetach(context)); }
static void create_context(void)
{
    must(cuCtxCreate_v2(&same, 0, 0));
    SAME(context, same);
    must(cuCtxSetCurrent(same));
    must(cuMemAlloc(&other, 8 * MIB));
}
static void end_destroy(void) { must(cuCtxDestroy(same)); must(cuCtxSetCurrent(context)); }

static void before_primary(void) { must(cuCtxGetCurrent(&context)); must(cuMemAlloc(&memory, 4 * MIB)); }
static void release_primary(void) { must(cuDevicePrimaryCtxRelease(0)); }
static void retain_primary(void)
{
    must(cuDevicePrimaryCtxRetain(&same, 0));
    SAME(context, same);
    must(cuCtxSetCurrent(same));
    must(cuMemAlloc(&other, 8 * MIB));
}

static void before_green(void)
{
    must(cuGreenCtxCreate(&green, NULL, 0, CU_GREEN_CTX_DEFAULT_STREAM));
    must(cuCtxFromGreenCtx(&context, green));
    must(cuCtxSetCurrent(context));
    must(cuMemAlloc(&memory, 4 * MIB));
}
static void destroy_green(void) { must(cuGreenCtxDestroy(green)); }
static void create_green(void)
{
    must(cuGreenCtxCreate(&new_green, NULL, 0, CU_GREEN_CTX_DEFAULT_STREAM));
    SAME(green, new_green);
    must(cuCtxFromGreenCtx(&same, new_green));
    must(cuCtxSetCurrent(same));
    must(cuMemAlloc(&other, 8 * MIB));
}
static void end_green(void) { must(cuGreenCtxDestroy(new_green)); }

static void before_pool(void)
{
    must(cuMemPoolCreate(&pool, &in_pool));
    must(cuMemAllocFromPoolAsync(&memory, 4 * MIB, pool, NULL));
}
static void destroy_pool(void) { must(cuMemPoolDestroy(pool)); }
static void create_pool(void)
{
    must(cuMemPoolCreate(&new_pool, &in_pool));
    SAME(pool, new_pool);
    must(cuMemAllocFromPoolAsync(&other, 8 * MIB, new_pool, NULL));
}
static void end_pool(void)
{
    must(cuMemFreeAsync(memory, NULL));
    must(cuMemFreeAsync(other, NULL));
    must(cuCtxSynchronize());
}

static void before_graph(void) { must(cuGraphInstantiateWithFlags(&exec, (CUgraph)(4 * MIB), 0)); }
static void destroy_graph(void) { must(cuGraphExecDestroy(exec)); }
static void create_graph(void)
{
    must(cuGraphInstantiateWithFlags(&new_exec, (CUgraph)(8 * MIB), 0));
    SAME(exec, new_exec);
}
static void end_graph(void) { must(cuGraphLaunch(new_exec, NULL)); }

static const struct kind {
    const char *name;
    void (*before)(void), (*give_back)(void), (*take)(void), (*end)(void);
} kinds[] = {
    { "cuMemFree", before_free, free_it, alloc, end_free },
    { "cuMemRelease", before_release, release, create, end_release },
    { "cuMemUnmap", before_unmap, unmap, create, end_release },
    { "cuMulticastUnbind", before_unbind, unbind, create, end_release },
    { "cuCtxDestroy", before_destroy, destroy, create_context, end_destroy },
    { "cuCtxDetach", before_destroy, detach, create_context, end_destroy },
    { "cuDevicePrimaryCtxRelease", before_primary, release_primary, retain_primary, release_primary },
    { "cuGreenCtxDestroy", before_green, destroy_green, create_green, end_green },
    { "cuMemPoolDestroy", before_pool, destroy_pool, create_pool, end_pool },
    { "cuGraphExecDestroy", before_graph, destroy_graph, create_graph, end_graph },
};

static void *first(void *kind)
{
    must(cuCtxSetCurrent(context));
    ((const struct kind *)kind)->give_back();
    finished = 1;
    return NULL;
}

int main(int argc, char **argv)
{
    void (*hold)(const char *) = (void (*)(const char *))dlsym(RTLD_DEFAULT, "other_hold");
    int (*holds)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "other_holds");
    void (*let_go)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, "other_let_go");
    figure = (size_t (*)(void))dlsym(RTLD_DEFAULT, "other_figure");
    const struct kind *kind = NULL;
    pthread_t thread;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (argc > 1 && !strcmp(argv[1], kinds[i].name))
            kind = &kinds[i];
    must(!kind || !hold || !holds || !let_go || !figure);

    open_device();
    must(cuCtxGetCurrent(&context));
    kind->before();
    step("before");
    hold(kind->name);
    must(pthread_create(&thread, NULL, first, (void *)kind));
    while (!holds() && !finished)
        usleep(100);
    must(finished);
    kind->take();
    let_go();
    must(pthread_join(thread, NULL));
    step("reused");
    kind->end();
    if (kind->end != release_primary && kind->end != end_green && kind->end != end_destroy)
        step("end");
    else
        printf("held=%zu\n", figure());
    return 0;
}
