"""PyTorch: what a server does that makes one token after another: a CUDA graph of 60 small kernels or a few more, a wait
for its end, and a while on the host, in which the GPU has nothing to do."""

import time

from kit_client import say, serve, torch_on_gpu

torch = torch_on_gpu()

GAP_S = 200e-6
LAYERS, HIDDEN = 10, 2048

torch.manual_seed(0)
weights = [
    [torch.randn(HIDDEN, HIDDEN, device="cuda", dtype=torch.bfloat16) / HIDDEN**0.5 for _ in range(2)]
    for _ in range(LAYERS)
]
given = torch.randn(1, HIDDEN, device="cuda", dtype=torch.bfloat16)


def token():
    x = given
    for up, down in weights:
        # Six kernels, if cuBLAS does not split a product in two.
        y = torch.nn.functional.layer_norm(x, (HIDDEN,))
        y = torch.nn.functional.gelu(y @ up)
        x = x + (y @ down) * 0.5
    return x


with torch.no_grad():
    # What the libraries make at their first use cannot be made while a graph is captured.
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        token()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = token()

def decode(over):
    times, begun = [], time.perf_counter()
    while not over() or not times:
        start = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        end = time.perf_counter()
        times.append(end - start)
        while time.perf_counter() - end < GAP_S:
            pass
    seconds = time.perf_counter() - begun
    times.sort()
    say("tokens", len(times))
    say("seconds", f"{seconds:.6f}")
    say("tokens_per_second", f"{len(times) / seconds:.3f}")
    # Of a token alone, without the gap after it.
    say("p50_us", f"{times[len(times) * 50 // 100] * 1e6:.3f}")
    say("p99_us", f"{times[len(times) * 99 // 100] * 1e6:.3f}")


for _ in range(5):
    graph.replay()
torch.cuda.synchronize()
serve(decode)
