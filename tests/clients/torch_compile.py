"""torch.compile: Triton compiles kernels, loads them and launches them, plainly and within CUDA graphs."""

import torch

from client import say, steps

GPU = "cuda"


def kernel():
    compiled = torch.compile(lambda numbers: torch.nn.functional.gelu(numbers) * 2 + 1)
    assert compiled(torch.randn(1000, device=GPU)).is_cuda
    torch.cuda.synchronize()


def training():
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()).to(GPU)
    torch.compile(model)(torch.randn(4, 64, device=GPU)).sum().backward()
    torch.cuda.synchronize()


def within_graphs():
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()).to(GPU)
    compiled = torch.compile(model, mode="reduce-overhead")
    with torch.no_grad():
        for _ in range(4):
            compiled(torch.randn(4, 64, device=GPU))
    torch.cuda.synchronize()


say("device", torch.cuda.get_device_name(0))
say("total", torch.cuda.mem_get_info()[1])
steps(kernel, training, within_graphs)
