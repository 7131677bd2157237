"""numba-cuda: device arrays, compiled kernels, streams and events, pinned and managed arrays."""

import warnings

import numpy
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError

from client import fill, say, steps


@cuda.jit
def add_one(numbers):
    index = cuda.grid(1)
    if index < numbers.size:
        numbers[index] += 1


def copies():
    there = numpy.arange(1000.0)
    assert (cuda.to_device(there).copy_to_host() == there).all()


def kernels():
    with warnings.catch_warnings(action="ignore"):
        add_one[4, 32](cuda.to_device(numpy.arange(100.0)))
    cuda.synchronize()


def streams_and_events():
    stream, start, end = cuda.stream(), cuda.event(), cuda.event()
    start.record(stream)
    end.record(stream)
    end.synchronize()
    assert cuda.event_elapsed_time(start, end) >= 0


def host_memory():
    with cuda.pinned(numpy.ones(1000)):
        pass
    managed = cuda.managed_array(1000)
    managed[:] = 2
    assert managed.sum() == 2000


def out_of_memory():
    say("total", cuda.current_context().get_memory_info().total)
    told = fill(256 << 20, lambda bytes: cuda.device_array(bytes, dtype=numpy.uint8), CudaAPIError)
    assert "CUDA_ERROR_OUT_OF_MEMORY" in told, told


assert cuda.is_available()
name = cuda.get_current_device().name
say("device", name.decode() if isinstance(name, bytes) else name)
steps(copies, kernels, streams_and_events, host_memory, out_of_memory)
