"""The share: what kernels had of the device by its own clock, by length, way and share; and real loops by throughput."""

import os

from kit import stamps
from kit.programs import Failed, client

WEIGHT = 110
LEAST = 6
SECOND = 1_000_000_000

# Name of the kernel, nanoseconds, how many are launched ahead where the way is to launch ahead.
LENGTHS = (("1ms", 1_000_000, 20), ("50us", 50_000, 200), ("10us", 10_000, 400), ("200us", 200_000, 100), ("20ms", 20_000_000, 4))
WAYS = ("sync", "async", "graph10", "streams")
# How many kernels a launch has, where that is not one.
KERNELS = {"graph10": 10}
SHARES = (30, 75, 10)
# What a cell has at least, or it says nothing about a share.
LEAST_LAUNCHES = 6


def cell_line(length, way, seconds, log):
    """The line that tells the program `load` of a cell."""
    name, ns, ahead = length
    call = "async" if way == "sync" else way
    ahead = 1 if way == "sync" else max(ahead // KERNELS.get(way, 1), 1)
    return f"cell timed_{name} {ns} {call} {ahead} 0 {seconds} {log}"


def run(stage):
    # Cells are as long as the stage allows, up to two and a half seconds; of long kernels half as long again.
    cells = (len(LENGTHS) + 0.5) * len(WAYS) * len(SHARES)
    seconds = min(max((stage.left() * 0.65 - 10) / cells, 0.4), 2.5)
    free = uncapped(stage, min(seconds / 4, 0.4))
    for share in SHARES:
        if stage.has(2 * seconds + 1, f"all at {share}%"):
            under(stage, share, seconds, free)
    without_a_share(stage)
    loops(stage)


def without_a_share(stage):
    """GPU time is known where no share limits it, by NVML's samples."""
    seconds = 4
    for name, length, way in (("1ms, sync", LENGTHS[0], "sync"), ("50us, async", LENGTHS[1], "async")):
        name = f"GPU time without a share, {name}"
        if not stage.has(seconds + 2, name):
            return
        container = stage.machine.container(memory=8 << 30)
        program = container.start("load")
        program.wait_for("ready", 30)
        _, busy = measured(stage, program, length, way, seconds)
        known = container.device().get("gpu_time_ns")
        program.finish(5)
        used = busy.until(busy.last)
        stage.figure(name, used_ns=used, known_ns=known)
        # A sample of 0.2 s is not yet closed at the begin, and one at the end.
        kept = known is not None and abs(known - used) <= 0.05 * used + 0.4 * SECOND
        stage.promise(name, kept, f"known {known}, used {used} ns")


def measured(stage, program, length, way, seconds):
    """Runs a cell; answers what it said and when the device was occupied."""
    log = os.path.join(stage.machine.home, "stamps")
    said = program.ask(cell_line(length, way, seconds, log), "done", seconds * 4 + 20)
    # Between the kernels of a graph nobody else can have the device.
    busy = stamps.Busy(stamps.launches(stamps.read(log), KERNELS.get(way, 1)))
    if not busy:
        raise Failed("the kernels left no stamps")
    return said, busy


def uncapped(stage, seconds):
    """What every cell occupies without the library, in percent."""
    program = stage.machine.bare().start("load")
    program.wait_for("ready", 30)
    free = {}
    for length in LENGTHS:
        for way in WAYS:
            _, busy = measured(stage, program, length, way, seconds)
            free[length[0], way] = busy.share(busy.first, busy.last)
    program.finish(5)
    return free


def under(stage, share, seconds, free):
    """All cells under one share, in one process."""
    container = stage.machine.container(cores=share)
    program = container.start("load")
    program.wait_for("ready", 30)
    for length in LENGTHS:
        for way in WAYS:
            name = f"{length[0]}, {way}, {share}%"
            lasts = seconds * (1.5 if length[1] > 5_000_000 else 1)
            launch_ns = length[1] * KERNELS.get(way, 1)
            launches = lasts * SECOND * share / 100 / launch_ns
            if launches < LEAST_LAUNCHES:
                stage.skip(name, f"{launches:.0f} launches in {lasts:.1f} s are too few to say anything")
                continue
            if not stage.has(lasts + 0.3, name):
                continue
            before = container.device().get("gpu_time_ns", 0)
            said, busy = measured(stage, program, length, way, lasts)
            charged = container.device().get("gpu_time_ns", 0) - before
            judge(stage, name, launch_ns, share, free[length[0], way], said, busy, charged)
    program.finish(5)


def judge(stage, name, launch_ns, share, free, said, busy, charged):
    """Writes a cell down and holds it against its goals. `launch_ns` is how long a launch takes, a graph as a whole."""
    # What was not known of the kernels at the beginning is paid by then.
    start = busy.first + (busy.last - busy.first) // 4
    end = busy.last
    mean = busy.share(start, end)
    seconds = (end - start) / SECOND
    worst = {f"worst_{window}ms": busy.worst(start, end, window * 1_000_000, share) for window in (100, 1000)}
    occupied = busy.until(busy.last)
    stage.figure(
        name,
        uncapped=free,
        mean=mean,
        **worst,
        charged_to_used=charged / occupied if occupied else None,
        launch_p50_us=int(said["p50_ns"]) / 1000,
        launch_p99_us=int(said["p99_ns"]) / 1000,
        kernels=busy.kernels,
    )
    if free < share * 1.1:
        stage.skip(f"goal of {name}", f"uncapped it occupies {free:.1f}%, no tenth more than the share")
        return
    # One launch more or less of the time that was looked at.
    goal = 0.5 + 100 * launch_ns / SECOND / seconds
    stage.promise(f"mean of {name}", abs(mean - share) <= goal, f"{mean:.2f}%, off {mean - share:+.2f}, goal {goal:.2f}")
    window = worst["worst_1000ms"]
    if window is not None:
        goal = 1 if launch_ns <= 5_000_000 else 2 + launch_ns / 1e7
        stage.promise(f"windows of a second of {name}", window <= goal, f"off {window:.2f}, goal {goal:.2f}")


LOOPS = {"torch_train.py": "images_per_second", "torch_decode.py": "tokens_per_second"}
SIDES = {"without": None, "30%": 30, "75%": 75}


def loops(stage):
    """A PyTorch training step and a decode-like loop, by throughput against the same without the library."""
    if not stage.has(8, "PyTorch loops"):
        return
    running = {}
    for script in LOOPS:
        for side, share in SIDES.items():
            # A container for each, so that one loop's debts are not the other's.
            setting = stage.machine.container(cores=share) if share else stage.machine.bare()
            running[script, side] = setting.start(*client(script))
    for (script, side), program in running.items():
        try:
            program.wait_for("ready", stage.patience())
        except Failed as why:
            skipped = program.finish(1).skipped()
            stage.skip(f"{script} {side}", skipped or why)
            running[script, side] = None
    for script, key in LOOPS.items():
        rates = {}
        for side in SIDES:
            program = running[script, side]
            if program and stage.has(3, f"{script} {side}"):
                rates[side] = float(program.ask("go 2.5", "done", stage.patience())[key])
        alone = rates.pop("without", None)
        for side, rate in rates.items():
            percent = 100 * rate / alone if alone else None
            stage.figure(f"{script} at {side}", rate=rate, without=alone, percent_of_it=percent)
