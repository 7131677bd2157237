"""Conformance: what a driver promises, held to the one of this machine, without the library and under it."""

from kit.programs import in_parallel

WEIGHT = 50
LEAST = 5
GIB = 1 << 30
PARTS = 8


def run(stage):
    names = stage.machine.bare().run("conformance", "--list", limit=stage.patience()).must().out
    bare = without(stage, names)
    under = with_it(stage, [name for name in names if name in bare])
    told(stage, "without the library", bare)
    told(stage, "under a cap and a share", under)
    more = sorted(name for name, answer in under.items() if answer == "0" and bare[name] != "0")
    if under:
        stage.promise("the library breaks nothing that the driver promises", not more, ", ".join(more) or f"{len(under)} tried")


def without(stage, names):
    """One after another, because some look at what is left of the card; three quarters of the time."""
    end = stage.left() / 4
    answers = {}
    for at in range(0, len(names), PARTS):
        if stage.left() < end:
            stage.skip(f"{len(names) - at} of {len(names)} promises", "the stage has no time for them")
            break
        answers.update(tried(stage, stage.machine.bare(), names[at : at + PARTS]))
    return answers


def with_it(stage, names):
    """Beside each other: what is left of a container's slice is nobody else's."""

    def job(part):
        return lambda: tried(stage, stage.machine.container(memory=16 * GIB, cores=90), part)

    answers = {}
    for some in in_parallel([job(names[at::PARTS]) for at in range(PARTS) if names[at::PARTS]]):
        answers.update(some)
    return answers


def tried(stage, setting, names):
    """What came of some promises."""
    outcome = setting.run("conformance", *names, limit=stage.patience())
    for line in outcome.errors:
        if line.strip():
            stage.note("with the library" if setting.region else "without the library", line)
    return {key: answer for key, answer in outcome.pairs if key in names}


def told(stage, where, answers):
    """How many of each."""
    skipped = sum(answer.startswith("skipped") for answer in answers.values())
    kept, broken = (sum(answer == which for answer in answers.values()) for which in "10")
    stage.figure(where, kept=kept, broken=broken, skipped=skipped)
