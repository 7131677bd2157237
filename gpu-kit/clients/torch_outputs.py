"""PyTorch: what a training, an inference and a CUDA graph compute, to the bit, through one of PyTorch's allocators."""

import argparse

from kit_client import ALLOCATORS, choose_allocator, deterministic_torch, digest, say

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--allocator", choices=ALLOCATORS, default="native")
choose_allocator(arguments.parse_args().allocator)
torch = deterministic_torch()
nn = torch.nn

GPU = "cuda"


def fixed(*shape):
    """Random numbers made on the CPU: the same on every card."""
    return torch.randn(*shape, generator=numbers).to(GPU)


def training():
    # Strides instead of pooling, which PyTorch does not always promise to add up in the same order backwards.
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 8 * 8, 128), nn.ReLU(), nn.Linear(128, 10),
    ).to(GPU)
    data, target = fixed(32, 3, 32, 32), (torch.arange(32) % 10).to(GPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(data), target)
        loss.backward()
        optimizer.step()
    return [loss, *model.parameters(), *model.buffers()]


def inference():
    layer = nn.TransformerEncoderLayer(256, 4, 512, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).to(GPU, torch.bfloat16).eval()
    with torch.no_grad():
        return [model(fixed(4, 64, 256).to(torch.bfloat16))]


def graph():
    model = nn.Sequential(nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 256)).to(GPU)
    given, results = torch.zeros(16, 256, device=GPU), []
    with torch.no_grad():
        # What the libraries make at their first use cannot be made while a graph is captured.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            model(given)
        torch.cuda.current_stream().wait_stream(aside)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            result = model(given)
        for _ in range(3):
            given.copy_(fixed(16, 256))
            captured.replay()
            results.append(result.clone())
    return results


free, total = torch.cuda.mem_get_info()
say("total", total)
say("free", free)
say("device_total", torch.cuda.get_device_properties(0).total_memory)
say("backend", torch.cuda.get_allocator_backend())
numbers = torch.Generator().manual_seed(0)
results = []
for step in (training, inference, graph):
    results.append(step())
    # One hash of each, so that a difference says where it is.
    say(f"hash.{step.__name__}", digest(*results[-1]))
say("hash", digest(*(tensor for step in results for tensor in step)))
