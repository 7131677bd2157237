/* Every way to launch kernels on the timed driver (timed.h). */
#include "timed_host.h"
#include <string.h>

CUresult timed_kernel(struct function *function, uint64_t blocks, void **parameters, void **extra, struct work *work)
{
    uint64_t told[2] = { 0, 0 };
    NEED(function, CUDA_ERROR_INVALID_HANDLE);
    if (function->told && parameters) {
        NEED(parameters[0] && parameters[1], CUDA_ERROR_INVALID_VALUE);
        memcpy(&told[0], parameters[0], sizeof told[0]);
        memcpy(&told[1], parameters[1], sizeof told[1]);
    } else if (function->told) {
        const void *buffer = NULL;
        size_t size = 0;
        for (int i = 0; extra && extra[i] != CU_LAUNCH_PARAM_END; i += 2) {
            if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER)
                buffer = extra[i + 1];
            if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE)
                size = *(size_t *)extra[i + 1];
        }
        NEED(buffer && size >= sizeof told, CUDA_ERROR_INVALID_VALUE);
        memcpy(told, buffer, sizeof told);
    }
    NEED(blocks, CUDA_ERROR_INVALID_VALUE);
    *work = (struct work){ .kind = KERNEL, .ns = function->told ? told[0] : function->ns, .log = told[1],
                           .units = blocks > UINT32_MAX ? UINT32_MAX : (uint32_t)blocks };
    return CUDA_SUCCESS;
}

uint64_t timed_first_ns(struct function *function)
{
    uint64_t ns = function->runs ? 0 : host.FIRST + (function->of->runs ? 0 : host.MODULE);
    function->runs = function->of->runs = true;
    return ns;
}

static CUresult launch(CUfunction handle, uint64_t blocks, CUstream where, void **parameters, void **extra, bool per_thread)
{
    struct function *function = (struct function *)handle;
    uint64_t began = host_ns();
    struct work work;
    NEED(device_is_mine(), CUDA_ERROR_NOT_INITIALIZED);
    NEED(timed_current(), CUDA_ERROR_INVALID_CONTEXT);
    struct stream *to = timed_stream(where, per_thread);
    NEED(to, CUDA_ERROR_INVALID_HANDLE);
    CUresult answer = timed_kernel(function, blocks, parameters, extra, &work);
    NEED(answer == CUDA_SUCCESS, answer);
    if (timed_is_capturing(to))
        return timed_captures(to, &work, function);
    NEED(!to->legacy || !timed_legacy_forbidden(to->of), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    uint64_t first = timed_first_ns(function);
    if (first || host.LAUNCH_SLEEP)
        host_until(host_ns() + first + host.LAUNCH_SLEEP);
    host_until(began + first + host.LAUNCH_SLEEP + host.LAUNCH);
    timed_submit(to, &work, 1);
    return CUDA_SUCCESS;
}

#define GRID unsigned x, unsigned y, unsigned z, unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared
#define BLOCKS ((void)shared, block_x && block_y && block_z ? (uint64_t)x * y * z : 0)

TWICE(cuLaunchKernel, (CUfunction function, GRID, CUstream stream, void **parameters, void **extra),
      launch(function, BLOCKS, stream, parameters, extra, OWN))
TWICE(cuLaunchCooperativeKernel, (CUfunction function, GRID, CUstream stream, void **parameters),
      launch(function, BLOCKS, stream, parameters, NULL, OWN))
TWICE(cuLaunchKernelEx, (const CUlaunchConfig *how, CUfunction function, void **parameters, void **extra),
      launch(function, (uint64_t)how->gridDimX * how->gridDimY * how->gridDimZ, how->hStream, parameters, extra, OWN))

CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *list, unsigned count, unsigned flags)
{
    NEED(list && count == 1 && !(flags & ~3u), CUDA_ERROR_INVALID_VALUE);
    NEED(list->hStream, CUDA_ERROR_INVALID_HANDLE);
    return launch(list->function, (uint64_t)list->gridDimX * list->gridDimY * list->gridDimZ, list->hStream,
                  list->kernelParams, NULL, false);
}

CUresult cuFuncSetBlockShape(CUfunction function, int x, int y, int z)
{
    NEED(function, CUDA_ERROR_INVALID_HANDLE);
    return x > 0 && y > 0 && z > 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* The oldest calls keep the parameters with the function. */

CUresult cuParamSetSize(CUfunction function, unsigned bytes)
{
    NEED(function, CUDA_ERROR_INVALID_HANDLE);
    return bytes <= sizeof ((struct function *)function)->kept ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuParamSetv(CUfunction function, int offset, void *value, unsigned bytes)
{
    struct function *of = (struct function *)function;
    NEED(of, CUDA_ERROR_INVALID_HANDLE);
    NEED(value && offset >= 0 && (size_t)offset + bytes <= sizeof of->kept, CUDA_ERROR_INVALID_VALUE);
    memcpy((char *)of->kept + offset, value, bytes);
    return CUDA_SUCCESS;
}

static CUresult launch_old(CUfunction handle, uint64_t blocks, CUstream stream)
{
    struct function *of = (struct function *)handle;
    NEED(of, CUDA_ERROR_INVALID_HANDLE);
    void *parameters[] = { &of->kept[0], &of->kept[1] };
    return launch(handle, blocks, stream, parameters, NULL, false);
}

CUresult cuLaunch(CUfunction function) { return launch_old(function, 1, NULL); }

CUresult cuLaunchGrid(CUfunction function, int x, int y) { return launch_old(function, (uint64_t)x * (uint64_t)y, NULL); }

CUresult cuLaunchGridAsync(CUfunction function, int x, int y, CUstream stream)
{
    return launch_old(function, (uint64_t)x * (uint64_t)y, stream);
}
