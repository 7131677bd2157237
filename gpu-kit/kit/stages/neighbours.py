"""Neighbours: two containers on one card, with and without the agent, against the same pair without the library."""

import time

from kit import pair

WEIGHT = 65
LEAST = 12
KINDS = (
    (pair.TRAINING, pair.TRAINING),
    (pair.DECODING, pair.DECODING),
    (pair.TRAINING, pair.DECODING),
    (pair.WAITING, pair.WAITING),
)
# The agent looks for new regions every two seconds.
FOUND = 2.5


def run(stage):
    bare = stage.machine.bare()
    rounds = pair.rate(stage, bare)
    stage.figure("work", rounds_per_ms=rounds)
    settings = ((None, False), ((50, 50), True), ((30, 70), True), ((50, 50), False), ((30, 70), False))
    cells = len(settings) * len(KINDS) + len(set(sum(KINDS, ())))
    seconds = min(max((stage.left() - 2 * FOUND - 8) / cells - 0.3, 0.6), 3.0)
    alone = solo(stage, bare, rounds, min(seconds, 1.0))
    free = {}
    for shares, agent in settings:
        name = "without the library" if shares is None else f"{shares[0]}:{shares[1]}, {'with' if agent else 'without'} the agent"
        if stage.has(seconds + 1 + (FOUND if agent else 0), name):
            beside(stage, name, shares, agent, rounds, seconds, alone, free)


def solo(stage, bare, rounds, seconds):
    """What each kind does alone, in kernels a second."""
    one = pair.Pair(stage, [bare], rounds)
    alone = {}
    for kind in dict.fromkeys(sum(KINDS, ())):
        said, (alone[kind],) = one.together([kind], seconds)
        stage.figure(f"alone: {pair.NAMES[kind]}", kernels_per_second=alone[kind], step_p50_us=int(said[0]["step_p50_ns"]) / 1000, step_p99_us=int(said[0]["step_p99_ns"]) / 1000)
    one.end()
    return alone


def beside(stage, name, shares, with_agent, rounds, seconds, alone, free):
    """All pairs in one way of sharing."""
    bare = stage.machine.bare()
    containers = [bare, bare] if shares is None else [stage.machine.container(cores=share) for share in shares]
    loads = pair.Pair(stage, containers, rounds)
    agent = pair.Agent(stage.machine, [one.folder for one in containers]) if with_agent else None
    if agent:
        # Regions are met at the first launches; the agent has found both before the first pair is measured.
        loads.together((pair.TRAINING, pair.TRAINING), 0.3)
        time.sleep(FOUND)
    for kinds in KINDS:
        what = f"{pair.NAMES[kinds[0]]} : {pair.NAMES[kinds[1]]}, {name}"
        if not stage.has(seconds + 0.2, what):
            continue
        said, rates = loads.together(kinds, seconds)
        parts = [100 * each / alone[kind] for each, kind in zip(rates, kinds)]
        if shares is None:
            free[kinds] = sum(parts)
        of_free = 100 * sum(parts) / free[kinds] if kinds in free else None
        stage.figure(
            what,
            first=parts[0],
            second=parts[1],
            sum=sum(parts),
            sum_to_free_percent=of_free,
            step_p99_us=" : ".join(f"{int(one['step_p99_ns']) / 1000:.0f}" for one in said),
        )
        if shares and with_agent and of_free is not None:
            stage.promise(f"nothing is lost: {what}", of_free >= 97, f"{of_free:.1f}% of what the pair does without the library")
            if kinds == (pair.TRAINING, pair.TRAINING):
                got = 100 * parts[0] / sum(parts)
                stage.promise(f"shares: {what}", abs(got - shares[0]) <= 2, f"the first has {got:.1f}% of what both do")
    if agent:
        agent.kill()
    loads.end()
