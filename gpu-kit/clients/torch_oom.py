"""PyTorch: how it runs out of memory through one of its allocators, what it says then, and that it goes on after."""

import argparse
import re

from kit_client import ALLOCATORS, choose_allocator, say, torch_on_gpu

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--allocator", choices=ALLOCATORS, default="native")
choose_allocator(arguments.parse_args().allocator)
torch = torch_on_gpu()

PIECE = 256 << 20


def fill():
    """Takes pieces until PyTorch refuses one. The pieces are free again when it returns."""
    held = []
    try:
        while True:
            held.append(torch.empty(PIECE, dtype=torch.uint8, device="cuda"))
    except torch.cuda.OutOfMemoryError as error:
        return len(held) * PIECE, str(error)


def empty():
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


# The kernel that `again` needs is loaded now, and so takes no memory between the two fillings.
torch.ones(1 << 20, device="cuda")
empty()
say("total", torch.cuda.mem_get_info()[1])
say("backend", torch.cuda.get_allocator_backend())
held, message = fill()
say("held_bytes", held)
say("error", message.strip().split("\n")[0])
# cudaMallocAsync's error has other words, over several lines.
told = re.search(r"total capacity of ([\d.]+ \w+)|Device limit\s*: ([\d.]+ \w+)", message)
say("capacity_told", next(filter(None, told.groups())) if told else "nothing")
empty()
torch.ones(PIECE // 4, device="cuda")
torch.cuda.synchronize()
say("again", 1)
# As much as before: nothing that was given back is still counted.
empty()
say("again_bytes", fill()[0])
