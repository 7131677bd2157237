"""PyTorch: kernels of a few microseconds, 200 launched at a time: the launch itself is what takes time."""

import time

from kit_client import say, serve, torch_on_gpu

torch = torch_on_gpu()

LAUNCHES = 200

numbers = torch.ones(64 * 1024 // 4, device="cuda")


def launch():
    for _ in range(LAUNCHES // 2):
        numbers.mul_(0.5)
        numbers.add_(0.5)
    torch.cuda.synchronize()


def measured(over):
    launches, begun = 0, time.perf_counter()
    while not over() or not launches:
        launch()
        launches += LAUNCHES
    seconds = time.perf_counter() - begun
    say("launches", launches)
    say("seconds", f"{seconds:.6f}")
    say("launches_per_second", f"{launches / seconds:.3f}")


for _ in range(5):
    launch()
serve(measured)
