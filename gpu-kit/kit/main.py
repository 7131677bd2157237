"""The command line: which stages run, for how long, and where their results go."""

import argparse
import ctypes
import datetime
import os
import platform
import signal
import sys

from kit import report
from kit.programs import HERE, LIBRARY, Machine
from kit.stage import Stage
from kit.stages import ALL


def refuse(why):
    print(f"gpu-kit: {why}", file=sys.stderr)
    return 2


def arguments():
    names = ", ".join(ALL)
    parser = argparse.ArgumentParser(
        prog="run",
        description="Tries gpuquota on the card of this machine, stage by stage, each result written as it is there.",
        epilog="Ends with 0 if every promise held, 1 if one did not or a stage broke, 2 if it could not begin.",
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"all without one: {names}")
    parser.add_argument("--out", metavar="DIR", help="where results go; gpu-kit-DATE-TIME here without it")
    parser.add_argument("--budget", type=float, default=420, metavar="SECONDS", help="for all stages together (420)")
    return parser.parse_args()


def driver_answers():
    """None if there is a device, else what the driver says."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as why:
        return f"no NVIDIA driver here: {why}. The kit needs a card, or cuda-sim run MACHINE -- in front"
    code = driver.cuInit(0)
    if code != 0:
        return f"the driver is there and cuInit answers error {code}: no card that this process may use"
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    if version.value < 11020:
        return f"the driver is of CUDA {version.value // 1000}.{version.value % 1000 // 10}; the library needs 11.2 or later"
    return None


def libc_is_too_old():
    """None if the kit's programs can start here, else why not."""
    with open(os.path.join(HERE, "lib", "GLIBC"), encoding="utf-8") as file:
        needed = file.read().strip()
    kind, here = platform.libc_ver()
    number = [[int(part) for part in version.split(".")] for version in (needed, here) if version]
    if kind == "glibc" and number[1] >= number[0]:
        return None
    return f"the kit was built with glibc {needed}, and here is {kind or 'no glibc'} {here}; make gpu-kit on a machine like this one"


def chosen(wanted):
    """The stages in their order, and those that nobody knows."""
    unknown = [name for name in wanted if name not in ALL]
    return [name for name in ALL if name in wanted or not wanted], unknown


def main():
    given = arguments()
    names, unknown = chosen(given.stages)
    if unknown:
        return refuse(f"there is no stage {', '.join(unknown)}; there are {', '.join(ALL)}")
    if not given.budget > 0:
        return refuse(f"--budget {given.budget:g}: a number of seconds above 0 is needed")
    if not os.path.isfile(LIBRARY):
        return refuse(f"{LIBRARY} is not there: the kit is not whole; make gpu-kit builds it")
    why = libc_is_too_old()
    if why:
        return refuse(why)
    # In a child, so that this process never has a context of its own on the card.
    pid = os.fork()
    if pid == 0:
        why = driver_answers()
        os._exit(0 if why is None else refuse(why))
    if os.waitpid(pid, 0)[1] != 0:
        return 2
    out = given.out or datetime.datetime.now().strftime("gpu-kit-%Y-%m-%d-%H%M%S")
    try:
        os.makedirs(out, exist_ok=True)
        with open(os.path.join(out, "summary.json"), "w", encoding="utf-8"):
            pass
    except OSError as why:
        return refuse(f"--out {out}: {why.strerror}: {why.filename}")
    return run(names, out, report.Clock(given.budget))


def run(names, out, clock):
    """Runs stages; what a run that is cut off has measured is summed up like any other."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine = Machine(out)
    done = []
    try:
        for at, name in enumerate(names):
            rest = sum(ALL[later].WEIGHT for later in names[at:])
            # What earlier stages left over is everybody's.
            limit = clock.left() * ALL[name].WEIGHT / rest
            stage = Stage(name, limit, out, machine)
            clock.show(name, ALL[name].__doc__, limit)
            done.append(stage)
            stage.run(ALL[name])
            print(stage.table(), flush=True)
    except KeyboardInterrupt:
        print(f"gpu-kit: cut off in stage {done[-1].name}", file=sys.stderr)
    finally:
        machine.close()
    return report.finish(out, done, clock)
