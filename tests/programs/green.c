/* Memory of a green context, on the driver of `drivers/other_life.c`: it goes with the context, or stays with the device's
 * primary context (OTHER_GREEN_KEEPS). The first use of the device is the green context, or it is not.
 *
 *     green FIRST */
#include "common.h"

static size_t (*figure)(void);

static void step(const char *name)
{
    size_t left, total;
    must(cuMemGetInfo(&left, &total));
    printf("step=%s\nheld=%zu\ncharged=%zu\n", name, figure(), total - left);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    CUgreenCtx green;
    CUcontext context, primary;
    CUdeviceptr memory, other;
    figure = (size_t (*)(void))dlsym(RTLD_DEFAULT, "other_figure");
    must(!figure);
    (void)argv;
    must(cuInit(0));
    if (argc < 2)
        open_device();
    must(cuGreenCtxCreate(&green, NULL, 0, CU_GREEN_CTX_DEFAULT_STREAM));
    must(cuCtxFromGreenCtx(&context, green));
    must(cuDevicePrimaryCtxRetain(&primary, 0));
    must(cuCtxSetCurrent(primary));
    must(cuMemAlloc(&other, 2 * MIB));
    must(cuCtxSetCurrent(context));
    must(cuMemAlloc(&memory, 4 * MIB));
    step("made");
    if (argc > 1)
        must(cuDevicePrimaryCtxRelease(0));
    must(cuGreenCtxDestroy(green));
    must(cuDevicePrimaryCtxRetain(&primary, 0));
    must(cuCtxSetCurrent(primary));
    step("destroyed");
    if (getenv("OTHER_GREEN_KEEPS") && figure() > 2 * MIB)
        must(cuMemFree(memory));
    step("freed");
    return 0;
}
