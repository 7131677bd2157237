"""PyTorch's own books, said line by line as the test asks: "hold MIB", "drop", "release" (to the driver)."""

import sys

import torch

from client import say

say("device", torch.cuda.get_device_name(0))
held = []
torch.zeros(1, device="cuda")
torch.cuda.synchronize()
say("ready", 1)
for line in sys.stdin:
    word, *sizes = line.split()
    answer = 0
    if word == "hold":
        try:
            held.append(torch.empty(int(sizes[0]) << 20, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            answer = 2
    elif word == "drop":
        held.clear()
    else:
        torch.cuda.empty_cache()
    torch.cuda.synchronize()
    say("reserved", torch.cuda.memory_reserved())
    say("free", torch.cuda.mem_get_info()[0])
    say("answer", answer)
