"""CuPy: what its kernels, its libraries and a kernel from source compute, to the bit, and how it runs out of memory."""

import argparse

from kit_client import digest, missing, say, skip

argparse.ArgumentParser(description=__doc__).parse_args()
cupy = missing("cupy")
numpy = missing("numpy")
try:
    if cupy.cuda.runtime.getDeviceCount() == 0:
        skip("CuPy finds no GPU")
except cupy.cuda.runtime.CUDARuntimeError as error:
    skip(f"CuPy finds no GPU: {error}")

raw = cupy.RawKernel(
    """
    extern "C" __global__ void blend(const float *x, const float *y, float *z, int n) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n) z[i] = 0.25f * x[i] + 0.75f * y[i];
    }
    """,
    "blend",
)

free, total = cupy.cuda.Device().mem_info
say("free", free)
say("total", total)

# Random numbers made on the CPU: the same on every card.
random = numpy.random.default_rng(0)
count = 1 << 20
x, y = (cupy.asarray(random.standard_normal(count, dtype=numpy.float32)) for _ in range(2))
z = cupy.zeros_like(x)
raw(((count + 255) // 256,), (256,), (x, y, z, numpy.int32(count)))
results = {
    "elementwise": cupy.tanh(x) * y + 1,
    "reduction": cupy.stack([x.sum(), y.max(), (x * y).mean()]),
    "fft": cupy.fft.fft(x),
    "raw": z,
    "sort": cupy.sort(y),
}
for name, result in results.items():
    # One hash of each, so that a difference says where it is.
    say(f"hash.{name}", digest(cupy.asnumpy(result)))
say("hash", digest(*(cupy.asnumpy(result) for result in results.values())))

try:
    cupy.empty(total + (1 << 30), dtype=cupy.uint8)
    say("oom", "none")
except cupy.cuda.memory.OutOfMemoryError as error:
    say("oom", type(error).__name__)
    say("error", str(error).strip().split("\n")[0])
