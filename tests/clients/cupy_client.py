"""CuPy: arrays, NVRTC kernels, cuBLAS, cuSOLVER and cuRAND, graphs, its pools."""

import cupy
import numpy

from client import fill, say, steps


def copies():
    there = numpy.arange(1000.0)
    assert (cupy.asnumpy(cupy.asarray(there)) == there).all()


def kernels():
    (cupy.ones(1000) + 1).sum()
    raw = cupy.RawKernel('extern "C" __global__ void set(float *x) { x[0] = 1; }', "set")
    raw((1,), (32,), (cupy.zeros(4, dtype="f"),))
    cupy.cuda.Device().synchronize()


def libraries():
    square = cupy.ones((64, 64), dtype="f")
    square @ square
    cupy.linalg.svd(square)
    cupy.random.rand(1000)
    cupy.cuda.Device().synchronize()


def graphs():
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        numbers = cupy.zeros(10)
        stream.begin_capture()
        numbers += 1
        graph = stream.end_capture()
        graph.launch(stream)
    stream.synchronize()


def pools():
    for pool in (cupy.cuda.MemoryAsyncPool(), cupy.cuda.MemoryPool(cupy.cuda.malloc_managed)):
        with cupy.cuda.using_allocator(pool.malloc):
            cupy.zeros(1 << 20)
    cupy.cuda.Device().synchronize()


def textures():
    from cupy.cuda import runtime, texture

    form = texture.ChannelFormatDescriptor(32, 0, 0, 0, runtime.cudaChannelFormatKindFloat)
    array = texture.CUDAarray(form, 8, 8)
    there = numpy.arange(64, dtype="f").reshape(8, 8)
    array.copy_from(there)
    back = numpy.zeros_like(there)
    array.copy_to(back)
    assert (back == there).all()
    resource = texture.ResourceDescriptor(runtime.cudaResourceTypeArray, cuArr=array)
    texture.TextureObject(resource, texture.TextureDescriptor())


def out_of_memory():
    say("total", cupy.cuda.Device().mem_info[1])
    fill(256 << 20, lambda bytes: cupy.empty(bytes, dtype=cupy.uint8), cupy.cuda.memory.OutOfMemoryError)
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.zeros(1 << 20)


say("device", cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())
steps(copies, kernels, libraries, graphs, pools, textures, out_of_memory)
