"""A training loop for the accuracy bench: SECONDS. Says its pid once it runs, and at the end how many steps it made and
the 99th percentile of how long one took to be launched."""

import os
import sys
import time

import torch

from client import say

model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(4))).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
data = torch.randn(64, 256, device="cuda")


def step():
    optimizer.zero_grad(set_to_none=True)
    model(data).square().mean().backward()
    optimizer.step()


step()
torch.cuda.synchronize()
say("ready", os.getpid())
samples, until = [], time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    before = time.monotonic_ns()
    step()
    samples.append(time.monotonic_ns() - before)
    if len(samples) % 8 == 0:
        torch.cuda.synchronize()
torch.cuda.synchronize()
say("p99_ns", sorted(samples)[len(samples) * 99 // 100])
say("launches", len(samples))
