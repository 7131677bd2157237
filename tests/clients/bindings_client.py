"""cuda.bindings: the driver API, the runtime API and NVML from Python, and a kernel by NVRTC."""

import ctypes

from cuda.bindings import driver, nvml, nvrtc, runtime

from client import say, steps


class Refused(Exception):
    pass


def ok(answer):
    status, *values = answer
    if int(status) != 0:
        raise Refused(status)
    return values[0] if len(values) == 1 else values


def driver_api():
    ok(driver.cuInit(0))
    device = ok(driver.cuDeviceGet(0))
    say("device", ok(driver.cuDeviceGetName(128, device)).split(b"\0")[0].decode())
    ok(driver.cuCtxSetCurrent(ok(driver.cuDevicePrimaryCtxRetain(device))))


def kernel_by_nvrtc():
    source = b'extern "C" __global__ void set(float *x) { x[0] = 1; }'
    program = ok(nvrtc.nvrtcCreateProgram(source, b"set.cu", 0, [], []))
    ok(nvrtc.nvrtcCompileProgram(program, 1, [b"--gpu-architecture=compute_90"]))
    image = b" " * ok(nvrtc.nvrtcGetPTXSize(program))
    ok(nvrtc.nvrtcGetPTX(program, image))
    kernel = ok(driver.cuModuleGetFunction(ok(driver.cuModuleLoadData(image)), b"set"))
    memory = ok(driver.cuMemAlloc(4096))
    ok(driver.cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, 0, ((memory,), (ctypes.c_void_p,)), 0))
    ok(driver.cuCtxSynchronize())
    ok(driver.cuMemFree(memory))


def runtime_api():
    memory = ok(runtime.cudaMalloc(1 << 20))
    there, back = (ctypes.c_char * 5)(*b"hello"), (ctypes.c_char * 5)()
    kind = runtime.cudaMemcpyKind
    ok(runtime.cudaMemcpy(memory, ctypes.addressof(there), 5, kind.cudaMemcpyHostToDevice))
    ok(runtime.cudaMemcpy(ctypes.addressof(back), memory, 5, kind.cudaMemcpyDeviceToHost))
    assert back.raw == b"hello"
    ok(runtime.cudaFree(memory))


def nvml_api():
    nvml.init_v2()
    memory = nvml.device_get_memory_info_v2(nvml.device_get_handle_by_index_v2(0))
    assert memory.total == ok(runtime.cudaMemGetInfo())[1]


def out_of_memory():
    say("total", ok(driver.cuMemGetInfo())[1])
    held, piece = 0, 256 << 20
    while True:
        status, _ = driver.cuMemAlloc(piece)
        if int(status) != 0:
            break
        held += piece
    say("held", held)
    say("refusal", status.name)


steps(driver_api, kernel_by_nvrtc, runtime_api, nvml_api, out_of_memory)
