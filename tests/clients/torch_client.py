"""PyTorch: what a training or serving process does with a GPU, through whichever allocator PYTORCH_ALLOC_CONF names."""

import warnings

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from client import fill, say, steps

GPU = "cuda"


def copies():
    there = torch.arange(1 << 20, dtype=torch.float32)
    assert torch.equal(there.to(GPU).cpu(), there)


def pinned_copies():
    there = torch.arange(1 << 20, dtype=torch.float32).pin_memory()
    assert there.is_pinned()
    back = torch.empty(1 << 20, pin_memory=True)
    back.copy_(there.to(GPU, non_blocking=True), non_blocking=True)
    torch.cuda.synchronize()
    assert torch.equal(back, there)


def matmul():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        square = torch.randn(256, 256, device=GPU, dtype=dtype)
        assert (square @ square).shape == (256, 256)
    torch.cuda.synchronize()


def linear():
    layer = torch.nn.Linear(512, 512).to(GPU)
    layer(torch.randn(64, 512, device=GPU)).sum().backward()
    assert layer.weight.grad.is_cuda


def convolution():
    layer = torch.nn.Conv2d(3, 8, 3).to(GPU)
    layer(torch.randn(4, 3, 32, 32, device=GPU)).sum().backward()
    assert layer.weight.grad.is_cuda


def attention():
    query = torch.randn(2, 8, 128, 64, device=GPU, dtype=torch.float16, requires_grad=True)
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(backend):
            torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()
    torch.cuda.synchronize()


def training():
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.LayerNorm(64), torch.nn.GELU(), torch.nn.Dropout(), torch.nn.Linear(64, 10)
    ).to(GPU)
    target = torch.zeros(32, dtype=torch.long, device=GPU)
    for fused in (False, True):
        optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
        for _ in range(3):
            loss = torch.nn.functional.cross_entropy(model(torch.randn(32, 64, device=GPU)), target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.cuda.synchronize()


def mixed_precision():
    model = torch.nn.Linear(64, 64).to(GPU)
    optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler(GPU)
    with torch.autocast(GPU):
        loss = model(torch.randn(8, 64, device=GPU)).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


def graphs():
    graph, numbers = torch.cuda.CUDAGraph(), torch.zeros(1000, device=GPU)
    with torch.cuda.graph(graph):
        more = numbers + 1
        numbers.copy_(more)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()


def graphed_training():
    model, sample = torch.nn.Linear(64, 64).to(GPU), torch.randn(8, 64, device=GPU)
    graphed = torch.cuda.make_graphed_callables(model, (sample,))
    graphed(sample).sum().backward()
    torch.cuda.synchronize()


def streams_and_events():
    first, second = torch.cuda.Stream(), torch.cuda.Stream(priority=-1)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with torch.cuda.stream(first):
        start.record()
        numbers = torch.zeros(1 << 20, device=GPU)
    second.wait_stream(first)
    with torch.cuda.stream(second):
        numbers.record_stream(second)
        numbers += 1
        end.record()
    end.synchronize()
    assert end.query() and start.elapsed_time(end) > 0


def libraries():
    # cuBLAS, cuDNN and cuSPARSE beyond what the steps above use of them, cuSOLVER, cuRAND, CUB.
    eye = torch.eye(8, device=GPU)
    torch.linalg.cholesky(eye)
    torch.linalg.inv(eye)
    with warnings.catch_warnings(action="ignore"):
        torch.eye(8).to_sparse_csr().to(GPU) @ eye
    torch.nn.LSTM(16, 16).to(GPU)(torch.zeros(3, 2, 16, device=GPU))
    torch.sort(torch.ones(100_000, device=GPU))
    torch.cumsum(torch.ones(1000, device=GPU), 0)
    torch.randn(1000, device=GPU)
    torch.cuda.synchronize()


def statistics():
    torch.cuda.reset_peak_memory_stats()
    taken = torch.empty(64 << 20, dtype=torch.uint8, device=GPU)
    assert torch.cuda.max_memory_allocated() >= torch.cuda.memory_allocated() >= taken.numel()
    assert torch.cuda.memory_stats()["allocated_bytes.all.current"] >= taken.numel()
    free, total = torch.cuda.mem_get_info()
    assert free + taken.numel() <= total
    assert 0 <= torch.cuda.utilization() <= 100


def out_of_memory():
    total = torch.cuda.mem_get_info()[1]
    say("total", total)
    assert torch.cuda.get_device_properties(0).total_memory == total
    told = fill(256 << 20, lambda bytes: torch.empty(bytes, dtype=torch.uint8, device=GPU), torch.OutOfMemoryError)
    assert f"{total / (1 << 30):.2f} GiB" in told, told
    torch.cuda.empty_cache()
    torch.zeros(64 << 20, dtype=torch.uint8, device=GPU)
    torch.cuda.synchronize()


say("device", torch.cuda.get_device_name(0))
steps(
    copies, pinned_copies, matmul, linear, convolution, attention, training, mixed_precision, graphs, graphed_training,
    streams_and_events, libraries, statistics, out_of_memory,
)
