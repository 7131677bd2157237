"""MPS: the same under an MPS daemon of the kit's own. Facts only: no feature is promised there yet."""

import os
import shutil
import subprocess
import time

from kit import pair
from kit.programs import Failed

WEIGHT = 30
LEAST = 8
CONTROL = "nvidia-cuda-mps-control"
GIB = 1 << 30


def run(stage):
    control = shutil.which(CONTROL)
    if not control:
        stage.skip("MPS", f"{CONTROL} is not here")
        return
    try:
        daemon = Daemon(stage, control)
    except Failed as why:
        stage.skip("MPS", why)
        return
    try:
        under(stage, daemon)
    finally:
        daemon.end()


class Daemon:
    """An MPS daemon whose pipes and logs lie in a folder of the kit's own."""

    def __init__(self, stage, control):
        folder = os.path.join(stage.machine.home, "mps")
        os.makedirs(folder)
        self.variables = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        self._control = control
        self._environment = {**stage.machine.environment, **self.variables}
        begun = subprocess.run([control, "-d"], env=self._environment, capture_output=True, text=True, timeout=15, check=False)
        if begun.returncode != 0:
            raise Failed(f"{CONTROL} -d: status {begun.returncode}; {begun.stdout.strip()} {begun.stderr.strip()}")

    def end(self):
        subprocess.run([self._control], input="quit -t 2\n", env=self._environment, capture_output=True, text=True, timeout=15, check=False)


def under(stage, daemon):
    """What holds and what does not."""
    bare = stage.machine.bare(**daemon.variables)

    def container(**limits):
        return stage.machine.container(**limits, **daemon.variables)

    first = bare.run("views", limit=stage.patience())
    if not first.good:
        stage.skip("MPS", f"a program cannot run under the daemon: {first}")
        return
    walked = container(memory=4 * GIB).run("door_linked", limit=stage.patience())
    stage.note("linked symbols", f"total {walked.text('total')}, charged {walked.text('charged')}, over: error {walked.text('over')}")
    full = container(memory=4 * GIB)
    one = full.start("alloc_until_refused", 64 << 20, "hold")
    said = one.wait_for("held", stage.patience())
    held = stage.machine.bare().run("card", "processes", limit=10)
    stage.note("a cap of 4 GiB", f"held {said['held']}, by the books {full.device().get('used')}; processes that NVML names: {held.all('pid')} with {held.all('bytes')}; ours is {one.pid}")
    one.finish(5)
    views = container(memory=4 * GIB).run("views", limit=stage.patience())
    stage.note("the view", ", ".join(f"{key} {value}" for key, value in views.pairs))
    rounds = pair.rate(stage, bare)
    kinds = ((pair.TRAINING, pair.TRAINING), (pair.DECODING, pair.DECODING), (pair.WAITING, pair.WAITING))
    seconds = 1.0
    alone = {}
    solo = pair.Pair(stage, [bare], rounds)
    for kind in (pair.TRAINING, pair.DECODING, pair.WAITING):
        _, (alone[kind],) = solo.together([kind], 0.6)
    solo.end()
    for name, settings in (("without the library", [bare, bare]), ("50:50, without the agent", [container(cores=50), container(cores=50)])):
        if not stage.has(seconds * 4, name):
            continue
        loads = pair.Pair(stage, settings, rounds)
        for both in kinds:
            before = [setting.device().get("gpu_time_ns", 0) if setting.region else 0 for setting in settings]
            begun = time.monotonic()
            said, rates = loads.together(both, seconds)
            took = (time.monotonic() - begun) * 1e9
            parts = [100 * each / alone[kind] for each, kind in zip(rates, both)]
            charged = [100 * (setting.device().get("gpu_time_ns", 0) - was) / took if setting.region else None for setting, was in zip(settings, before)]
            stage.figure(
                f"{pair.NAMES[both[0]]} : {pair.NAMES[both[1]]}, {name}",
                first=parts[0],
                second=parts[1],
                sum=sum(parts),
                charged_percent=" : ".join("-" if one is None else f"{one:.0f}" for one in charged),
                step_p99_us=" : ".join(f"{int(one['step_p99_ns']) / 1000:.0f}" for one in said),
            )
        loads.end()
