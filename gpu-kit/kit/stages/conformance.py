"""Conformance: what a driver promises, held to the one of this machine, without the library and under it."""

WEIGHT = 50
LEAST = 5
GIB = 1 << 30
PART = 8


def run(stage):
    names = stage.machine.bare().run("conformance", "--list", limit=stage.patience()).must().out
    bare, under = {}, {}
    container = stage.machine.container(memory=16 * GIB, cores=90)
    # One after another: some look at what is left of the card, others at how long something takes.
    for at in range(0, len(names), PART):
        if not stage.has(2, f"{len(names) - at} of {len(names)} promises"):
            break
        part = names[at : at + PART]
        bare.update(tried(stage, stage.machine.bare(), part))
        under.update(tried(stage, container, part))
    told(stage, "without the library", bare)
    told(stage, "under a cap and a share", under)
    more = sorted(name for name, answer in under.items() if answer == "0" and bare.get(name) != "0")
    if under:
        stage.promise("the library breaks nothing that the driver promises", not more, ", ".join(more) or f"{len(under)} tried")


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
