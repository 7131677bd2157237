"""NCCL: as many ranks as there are devices, each a process of its own, meet in collectives."""

import os
import socket

import torch
import torch.distributed as distributed
import torch.multiprocessing as processes

from client import say


def rank(number, world, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.cuda.set_device(number)
    device = torch.device("cuda", number)
    distributed.init_process_group("nccl", rank=number, world_size=world, device_id=device)
    numbers = torch.ones(1 << 20, device=device)
    distributed.all_reduce(numbers)
    distributed.broadcast(numbers, 0)
    distributed.all_gather_into_tensor(torch.empty(world << 20, device=device), numbers)
    if world > 1:
        # Straight from one device's memory to the other's.
        (distributed.send if number == 0 else distributed.recv)(numbers, 1 - number)
    torch.cuda.synchronize()
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    world = torch.cuda.device_count()
    say("ranks", world)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes.spawn(rank, args=(world, port), nprocs=world)
    say("device", torch.cuda.get_device_name(0))
    say("total", torch.cuda.mem_get_info()[1])
    say("step.collectives", 1)
