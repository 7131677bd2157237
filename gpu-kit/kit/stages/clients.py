"""Clients: PyTorch, Triton, CuPy and JAX under a cap and a share compute the same bits, and see a card of that size."""

import os
import shutil

from kit.programs import HERE, client, in_parallel

WEIGHT = 55
LEAST = 8
GIB = 1 << 30
CAP = 8 * GIB

OUTPUTS = (
    ("PyTorch, native allocator", ("torch_outputs.py", "--allocator", "native")),
    ("PyTorch, expandable segments", ("torch_outputs.py", "--allocator", "expandable")),
    ("PyTorch, cudaMallocAsync", ("torch_outputs.py", "--allocator", "async")),
    ("Triton", ("triton_outputs.py",)),
    ("CuPy", ("cupy_outputs.py",)),
    ("JAX", ("jax_outputs.py",)),
)
FULL = (
    ("PyTorch, native allocator", ("torch_oom.py", "--allocator", "native")),
    ("PyTorch, expandable segments", ("torch_oom.py", "--allocator", "expandable")),
    ("PyTorch, cudaMallocAsync", ("torch_oom.py", "--allocator", "async")),
)


def container(stage):
    return stage.machine.container(memory=CAP, cores=50)


def run(stage):
    # Nothing here measures time, so clients run beside each other.
    jobs = [job(stage, words, setting) for setting in (None, container) for _, words in OUTPUTS]
    ended = in_parallel(jobs, len(jobs))
    for (name, _), without, with_it in zip(OUTPUTS, ended, ended[len(OUTPUTS) :]):
        outputs(stage, name, without, with_it)
    if stage.has(5, "clients that fill the card"):
        full = in_parallel([job(stage, words, container) for _, words in FULL])
        for (name, _), outcome in zip(FULL, full):
            out_of_memory(stage, name, outcome)
    if stage.has(5, "JAX that takes most of the card at its start"):
        outcome = container(stage).run(*client("jax_outputs.py"), "--preallocate", limit=stage.patience())
        if outcome.skipped():
            stage.skip("JAX that takes most of the card at its start", outcome.skipped())
        else:
            stage.promise("JAX takes most of the slice at its start", outcome.good and outcome.text("preallocated") == "1", outcome)
    smi(stage)


def job(stage, words, setting):
    def run_client():
        where = setting(stage) if setting else stage.machine.bare()
        return where.run(*client(words[0]), *words[1:], limit=stage.patience())

    return run_client


def outputs(stage, name, without, with_it):
    """The same bits with the library, and a card of the cap's size."""
    if without.skipped() or not without.good:
        stage.skip(name, without.skipped() or f"without the library: {without}")
        return
    same = with_it.good and without.text("hash") == with_it.text("hash") is not None
    stage.promise(f"{name}: the same bits", same, (with_it.text("hash") or "")[:16] if same else with_it)
    if with_it.text("total"):
        stage.promise(f"{name}: a card of 8 GiB", with_it.text("total") == str(CAP), f"total {with_it.text('total')}")
    for key, value in with_it.pairs:
        if key in ("close", "oom", "bytes_limit", "device_total"):
            stage.note(f"{name}: {key}", value)


def out_of_memory(stage, name, outcome):
    """Full at the cap, by an error that a program can live with."""
    if outcome.skipped():
        stage.skip(f"{name}, full", outcome.skipped())
        return
    held = int(outcome.text("held_bytes") or 0)
    stage.promise(f"{name}: full at the cap, and goes on", outcome.good and CAP // 2 < held <= CAP and outcome.text("again") == "1", f"held {held}" if outcome.good else outcome)
    stage.note(f"{name}: error", outcome.text("error"))


def smi(stage):
    """nvidia-smi's table inside of a container that holds something."""
    if not shutil.which("nvidia-smi"):
        stage.skip("nvidia-smi's table", "nvidia-smi is not here")
        return
    inside = container(stage)
    holder = inside.start("hold")
    holder.wait_for("pid", stage.patience())
    holder.ask(f"alloc {GIB}", "rc", stage.patience())
    table = inside.run("nvidia-smi", limit=15)
    with open(stage.path("nvidia-smi-inside.txt"), "w", encoding="utf-8") as file:
        file.write("\n".join(table.out).replace(HERE + os.sep, "") + "\n")
    query = inside.run("nvidia-smi", "--query-gpu=memory.total,memory.used", "--format=csv,noheader,nounits", limit=15)
    holder.finish(5)
    shown = query.out[0] if query.out else str(query)
    total, _, used = shown.partition(",")
    kept = total.strip() == str(CAP >> 20) and used.strip().isdigit() and 1024 <= int(used) <= 3072
    stage.promise("nvidia-smi shows the slice", kept, f"total, used in MiB: {shown}")
