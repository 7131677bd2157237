"""Two programs beside each other on one device: how much each does, of what it does alone."""

import os
import re
import subprocess

from kit import stamps
from kit.programs import GPUQUOTA, Failed

SECOND = 1_000_000_000

# A kind of program: the kernel, its length, the way, launches ahead, the gap on the host between steps in microseconds.
TRAINING = ("work_1ms", 1_000_000, "async", 40, 0)
DECODING = ("work_20us", 20_000, "graph60", 1, 200)
WAITING = ("work_200us", 200_000, "async", 1, 0)
NAMES = {TRAINING: "training", DECODING: "decoding", WAITING: "waiting for each 200 us"}


class Agent:
    """The node's agent, for some containers' folders; it ends with the stage at the latest."""

    def __init__(self, machine, folders):
        roots = [word for folder in folders for word in ("--root", folder)]
        self._process = subprocess.Popen(
            [GPUQUOTA, "agent", "--listen", "127.0.0.1:0", *roots], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        machine.programs.append(self)
        first = self._process.stderr.readline()
        if not re.search(r"127\.0\.0\.1:[0-9]+", first):
            raise Failed(f"the agent does not say where it listens: {first.strip()}")

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stderr.close()


def rate(stage, setting):
    """Rounds of a work kernel per millisecond."""
    program = setting.start("load")
    program.wait_for("ready", 30)
    rounds = int(program.ask("rate work_1ms", "done", 30)["rounds_per_ms"])
    program.finish(5)
    if rounds <= 0:
        raise Failed("a kernel of any number of rounds takes no time")
    return rounds


class Pair:
    """Loads that are ready, one in each setting."""

    def __init__(self, stage, settings, rounds_per_ms):
        self.stage = stage
        self.rounds = rounds_per_ms
        self.loads = [setting.start("load") for setting in settings]
        for load in self.loads:
            load.wait_for("ready", stage.patience())

    def line(self, kind, seconds, log):
        kernel, ns, way, ahead, gap = kind
        return f"cell {kernel} {self.rounds * ns // 1_000_000} {way} {ahead} {gap} {seconds} {log}"

    def together(self, kinds, seconds):
        """Runs a kind on each; answers what each said and its stamps, in the time that all of them worked."""
        home = self.stage.machine.home
        logs = [os.path.join(home, f"stamps_{at}") for at in range(len(kinds))]
        for load, kind, log in zip(self.loads, kinds, logs):
            load.tell(self.line(kind, seconds, log))
        said = [load.wait_for("done", seconds * 3 + 20) for load, _ in zip(self.loads, kinds)]
        intervals = [stamps.read(log) for log in logs]
        if not all(intervals):
            raise Failed("a load left no stamps")
        start = max(min(begin for begin, _ in one) for one in intervals)
        end = min(max(end for _, end in one) for one in intervals)
        # The beginning, in which nothing is known yet, is not what is compared.
        start += (end - start) // 4
        done = [sum(start < end_ <= end for _, end_ in one) for one in intervals]
        per_second = [count * SECOND / (end - start) for count in done]
        return said, per_second

    def end(self):
        for load in self.loads:
            load.finish(5)
