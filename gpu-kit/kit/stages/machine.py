"""The machine: driver, devices, NVML, and which of the driver's functions the library does not know."""

import os
import platform
import re
import shutil
import subprocess

from kit import elf
from kit.programs import CUDA_SIM, HERE, LIBRARY

WEIGHT = 15
LEAST = 3


def run(stage):
    facts(stage)
    surface(stage)
    tools(stage)
    record(stage)


def facts(stage):
    """The driver's own answers, by a process that ends at once."""
    script = (
        "import ctypes as c\n"
        "d = c.CDLL('libcuda.so.1'); d.cuInit(0)\n"
        "n = c.c_int(); d.cuDeviceGetCount(c.byref(n)); print(f'devices={n.value}')\n"
        "v = c.c_int(); d.cuDriverGetVersion(c.byref(v)); print(f'cuda={v.value // 1000}.{v.value % 1000 // 10}')\n"
        "for i in range(n.value):\n"
        "    t = c.create_string_buffer(256); d.cuDeviceGetName(t, 256, i); print(f'name={t.value.decode()}')\n"
        "    b = c.c_size_t(); d.cuDeviceTotalMem_v2(c.byref(b), i); print(f'bytes={b.value}')\n"
        "m = c.CDLL('libnvidia-ml.so.1'); m.nvmlInit_v2(); t = c.create_string_buffer(80)\n"
        "m.nvmlSystemGetDriverVersion(t, 80); print(f'driver={t.value.decode()}')\n"
    )
    said = stage.machine.bare().run("python3", "-c", script)
    stage.note("card", said.text("name"))
    stage.note("devices", said.text("devices"))
    stage.note("memory", said.text("bytes"))
    stage.note("driver", said.text("driver") or "NVML does not answer")
    stage.note("CUDA", said.text("cuda"))
    stage.note("kernel", platform.release())
    stage.note("libc", " ".join(platform.libc_ver()))
    stage.note("processors", os.cpu_count())


def base(name):
    """The name of a function without the suffixes of its versions."""
    name = re.sub(r"(_ptds|_ptsz)+$", "", name)
    return re.sub(r"_v[0-9]+$", "", name)


def exempt():
    """Functions that the library leaves alone for a reason."""
    with open(os.path.join(HERE, "lib", "exempt.txt"), encoding="utf-8") as file:
        return {word for line in file if not line.startswith("#") for word in line.split()}


def undecided(functions, hooks, left_alone):
    """Functions in neither list, and versions of an intercepted function that are not intercepted."""
    intercepted = {base(hook) for hook in hooks}
    return sorted(
        name
        for name in functions
        if name not in hooks
        and name not in left_alone
        and not (base(name) in left_alone and base(name) not in intercepted)
    )


def surface(stage):
    """The driver's exports against the hook table, in both directions."""
    hooks = {name for name in elf.exports(LIBRARY) if name.startswith(("cu", "nvml"))}
    functions = set()
    for soname, symbol in (("libcuda.so.1", "cuInit"), ("libnvidia-ml.so.1", "nvmlInit_v2")):
        path = elf.loaded(soname, symbol)
        if path is None:
            stage.skip(f"functions of {soname}", "the loader does not find it")
            continue
        stage.note(soname, path)
        found = {name for name in elf.exports(path) if name.startswith(("cu", "nvml")) and not name.startswith("cudbg")}
        stage.note(f"functions of {soname}", len(found))
        functions |= found
    unknown = undecided(functions, hooks, exempt())
    stage.promise("every function of this driver is decided", not unknown, ", ".join(unknown) or f"{len(functions)} functions")
    stage.note("hooks that this driver does not have", ", ".join(sorted(hooks - functions)) or "none")


def tools(stage):
    """What later stages may want."""
    smi = shutil.which("nvidia-smi")
    stage.note("nvidia-smi", smi or "not here")
    stage.note("nvidia-cuda-mps-control", shutil.which("nvidia-cuda-mps-control") or "not here")
    if smi:
        with open(stage.path("nvidia-smi.txt"), "w", encoding="utf-8") as file:
            subprocess.run([smi, "-q"], stdout=file, stderr=subprocess.STDOUT, timeout=20, check=False)
    step = stage.machine.bare().run("costs", "clock", limit=stage.patience()).must()
    stage.figure("the device's clock", step_ns=step.number("globaltimer_step_ns"))


def record(stage):
    """A machine file for the simulator."""
    if not stage.has(2, "cuda-sim record"):
        return
    done = stage.machine.bare().run(CUDA_SIM, "record", limit=stage.patience())
    lines = done.out
    with open(stage.path("machine.toml"), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    if done.timed_out:
        stage.skip("the rest of cuda-sim record", f"it took longer than the stage has; {len(lines)} lines are kept")
        return
    done.must()
    crashes = [line.split(" = ")[0] for line in lines if line.endswith('"a crash"')]
    stage.figure("machine.toml", lines=len(lines), calls_with_nulls_that_crash=len(crashes))
