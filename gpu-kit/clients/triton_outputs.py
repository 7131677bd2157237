"""Triton: a matrix product and a softmax that it compiles, loads and launches itself, against PyTorch's and to the bit."""

import argparse
import os
import shutil
import sysconfig

from kit_client import deterministic_torch, digest, missing, say, skip

argparse.ArgumentParser(description=__doc__).parse_args()
torch = deterministic_torch()
triton = missing("triton")
tl = missing("triton.language")

# Triton compiles what launches a kernel with the machine's C compiler.
if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
    skip("no C compiler, which Triton needs")
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    skip("no Python.h, which Triton needs")


# Blocks of one size, no autotuning: another size adds up in another order.
@triton.jit
def product(a, b, c, n, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for first in range(0, n, BLOCK):
        along = first + tl.arange(0, BLOCK)
        left = tl.load(a + rows[:, None] * n + along[None, :])
        right = tl.load(b + along[:, None] * n + columns[None, :])
        total += tl.dot(left, right)
    tl.store(c + rows[:, None] * n + columns[None, :], total)


@triton.jit
def softmax(x, y, width, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    inside = at < width
    row = tl.program_id(0) * width
    numbers = tl.load(x + row + at, mask=inside, other=-float("inf"))
    numbers = tl.exp(numbers - tl.max(numbers, axis=0))
    tl.store(y + row + at, numbers / tl.sum(numbers, axis=0), mask=inside)


numbers = torch.Generator().manual_seed(0)
a, b = (torch.randn(512, 512, generator=numbers).to("cuda", torch.float16) for _ in range(2))
c = torch.zeros(512, 512, device="cuda")
product[(512 // 64, 512 // 64)](a, b, c, 512, BLOCK=64)
x = torch.randn(256, 1000, generator=numbers).to("cuda")
y = torch.zeros_like(x)
softmax[(256,)](x, y, 1000, BLOCK=1024)
torch.cuda.synchronize()
close = torch.allclose(c, a.float() @ b.float(), rtol=1e-2, atol=1e-2)
close = close and torch.allclose(y, x.softmax(1), rtol=1e-4, atol=1e-6)
say("close", int(close))
say("hash", digest(c, y))
