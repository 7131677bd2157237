"""CUDA IPC: a tensor of one process is another's as well, as in PyTorch's data loaders and vLLM's workers."""

import torch
import torch.multiprocessing as processes

from client import say


def other(inbox, outbox):
    shared = inbox.get()
    assert shared.is_cuda and shared[3].item() == 3
    shared[3] = shared[4]
    shared.copy_(torch.full((1024,), 7.0))
    torch.cuda.synchronize()
    del shared
    outbox.put("done")
    inbox.get()


if __name__ == "__main__":
    context = processes.get_context("spawn")
    inbox, outbox = context.Queue(), context.Queue()
    child = context.Process(target=other, args=(inbox, outbox))
    child.start()
    numbers = torch.arange(1024, dtype=torch.float32).to("cuda")
    inbox.put(numbers)
    assert outbox.get(timeout=60) == "done"
    assert numbers[0].item() == 7 and numbers[1023].item() == 7
    inbox.put("end")
    child.join(60)
    assert child.exitcode == 0
    say("device", torch.cuda.get_device_name(0))
    say("total", torch.cuda.mem_get_info()[1])
    assert (numbers + 1).is_cuda
    torch.cuda.synchronize()
    say("step.sharing", 1)
