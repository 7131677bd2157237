"""What the library costs: the same program with and without it, in turn."""

import os
import statistics
import time

from kit.programs import LIBRARY, Failed, client, program

WEIGHT = 45
LEAST = 6
GIB = 1 << 30


def sides(machine):
    """What is compared: nothing, the library with a cap, and with a share that hardly binds as well."""
    return {
        "without": machine.bare(),
        "cap": machine.container(memory=40 * GIB),
        "cap and 99%": machine.container(memory=40 * GIB, cores=99),
    }


def run(stage):
    in_turn(stage, "calls", ("gate", "50"), stage.left() * 0.25)
    in_turn(stage, "start", ("costs", "start"), stage.left() * 0.15)
    executions(stage)
    loops(stage)


def in_turn(stage, name, command, seconds):
    """Runs a program on every side in turn, as many rounds as there is time for; medians of what it says."""
    end = time.monotonic() + seconds
    settings = sides(stage.machine)
    said = {side: [] for side in settings}
    rounds, longest = 0, 0.0
    while rounds < 9 and (rounds == 0 or time.monotonic() + longest < end):
        begun = time.monotonic()
        for side, setting in settings.items():
            outcome = setting.run(*command, limit=stage.patience()).must()
            said[side].append({key: float(value) for key, value in outcome.pairs})
        longest = max(longest, time.monotonic() - begun)
        rounds += 1
    for key in said["without"][0]:
        columns = {side: statistics.median(round_[key] for round_ in all_) for side, all_ in said.items()}
        compared(stage, f"{name}: {key}", columns, "ns", rounds)


def compared(stage, name, columns, unit, rounds):
    """One row: each side, and what the library adds."""
    without = columns.pop("without")
    values = {f"without_{unit}": without}
    for side, value in columns.items():
        values[f"{side}_adds".replace(" ", "_")] = value - without
    stage.figure(name, **values, rounds=rounds)


def executions(stage):
    """Starting a program that never touches CUDA."""
    preloads = {"without": None, "empty library": program("empty.so"), "library": LIBRARY}
    took = {name: [] for name in preloads}
    end = time.monotonic() + min(2, stage.left())
    while time.monotonic() < end and len(took["without"]) < 400:
        for name, preload in preloads.items():
            environment = {**stage.machine.environment, **({"LD_PRELOAD": preload} if preload else {})}
            begun = time.perf_counter_ns()
            pid = os.posix_spawn("/bin/true", ["true"], environment)
            os.waitpid(pid, 0)
            took[name].append(time.perf_counter_ns() - begun)
    medians = {name: statistics.median(all_) for name, all_ in took.items()}
    compared(stage, "exec of /bin/true", medians, "ns", len(took["without"]))


LOOPS = {"torch_small.py": "launches_per_second", "torch_train.py": "images_per_second"}


def loops(stage):
    """PyTorch: a loop of small kernels and a training; every process is there before the first loop, and they take turns."""
    if not stage.has(8, "PyTorch loops"):
        return
    running = {
        script: {side: setting.start(*client(script)) for side, setting in sides(stage.machine).items()} for script in LOOPS
    }
    for script, key in LOOPS.items():
        try:
            for one in running[script].values():
                one.wait_for("ready", stage.patience())
        except Failed as why:
            skipped = [one.finish(2).skipped() for one in running[script].values()]
            stage.skip(script, skipped[0] or why)
            continue
        loop(stage, script, key, running[script])


def loop(stage, script, key, running):
    """One loop on every side in turn."""
    rates = {side: [] for side in running}
    end = time.monotonic() + min(stage.left() * 0.5, 20)
    while len(rates["without"]) < 7 and (not rates["without"] or time.monotonic() + 3 < end):
        for side, one in running.items():
            rates[side].append(float(one.ask("go 0.8", "done", stage.patience())[key]))
    medians = {side: statistics.median(all_) for side, all_ in rates.items()}
    alone = medians.pop("without")
    lost = {f"{side}_loses_percent".replace(" ", "_"): 100 * (1 - rate / alone) for side, rate in medians.items()}
    stage.figure(f"{script}: {key}", without=alone, **lost, rounds=len(rates["without"]))
    for one in running.values():
        one.finish(5)
