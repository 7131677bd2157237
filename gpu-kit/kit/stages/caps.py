"""The cap: every kind of allocation, contexts and code, races, deaths; judged by NVML's figure of the card."""

import time

from kit.programs import Failed, in_parallel

WEIGHT = 25
LEAST = 5
MIB = 1 << 20
GIB = 1 << 30
BLOCK = 2 * MIB
OUT_OF_MEMORY = 2
KINDS = ("plain", "managed", "pitch", "array", "array3d", "mipmap", "vmm", "async")


def run(stage):
    kinds(stage)
    # The driver takes some megabytes of a card for whoever comes first, and keeps them until the last one goes. Somebody else is there.
    somebody = stage.machine.bare().start("hold")
    somebody.wait_for("pid", stage.patience())
    for part in (whole_cap, managed, context_and_code, contexts_of_many, blocks_of_many, killed, race):
        if stage.has(2, part.__doc__):
            part(stage)
    somebody.finish(5)


def used(stage):
    """What NVML says that the card has given out, by a process that uses no CUDA."""
    return stage.machine.bare().run("card", "used", limit=10).must().number("used")


def settled(stage, limit=3):
    """The card's used memory once it stands still: memory of the dead takes a moment to come back."""
    before, end = used(stage), time.monotonic() + limit
    while time.monotonic() < end:
        time.sleep(0.05)
        now = used(stage)
        if now == before:
            return now
        before = now
    return before


def kinds(stage):
    """Each kind of allocation is charged, given back, and refused at the cap; managed memory may be larger, as on a smaller card."""
    names = list(KINDS)

    def job(kind):
        return lambda: stage.machine.container(memory=4 * GIB).run("kinds", kind, limit=stage.patience())

    for kind, outcome in zip(names, in_parallel([job(kind) for kind in names])):
        charged, returned, over = (int(outcome.text(key) or -1) for key in ("charged", "returned", "over"))
        seen = f"charged {charged}, returned {returned}, over the cap: error {over}"
        at_least = 64 * MIB
        kept = outcome.good and charged >= at_least and returned == charged and over == (0 if kind == "managed" else OUT_OF_MEMORY)
        stage.promise(f"{kind} memory is capped", kept, seen if outcome.good else outcome)


def alone_in(stage, cap, command, key):
    """Runs a program in a container of its own until it says a key and holds what it has. Answers what it said, the container's
    device by the books, what the card has given out meanwhile, and what NVML says that the process holds."""
    before = settled(stage)
    container = stage.machine.container(memory=cap)
    one = container.start(*command)
    said = one.wait_for(key, stage.patience())
    time.sleep(0.1)
    card = used(stage) - before
    held = stage.machine.bare().run("card", "processes", limit=10).must()
    process = {int(pid): int(size) for pid, size in zip(held.all("pid"), held.all("bytes"))}.get(one.pid)
    device = container.device()
    one.finish(5)
    return said, device.get("used"), card, process


def whole_cap(stage):
    """What the cap allows is given, to the byte of the books, and not more of the card."""
    said, books, card, _ = alone_in(stage, 4 * GIB, ("alloc_until_refused", 64 * MIB, "hold"), "held")
    stage.figure("one process fills 4 GiB", held=int(said["held"]), by_books=books, by_nvml=card)
    stage.promise("the card gives one process no more than its cap", card <= 4 * GIB + BLOCK, f"{card - 4 * GIB} bytes above it")


def managed(stage):
    """Managed memory beyond the cap stays on the host, also where the program asks for it on the card."""
    cap = 2 * GIB
    before = settled(stage)
    one = stage.machine.container(memory=cap).start("managed")
    one.wait_for("free", stage.patience())
    answers = [one.ask(line, "rc", stage.patience())["rc"] for line in (f"take {GIB}", f"take {4 * GIB}", "prefetch")]
    time.sleep(0.1)
    card = used(stage) - before
    one.finish(5)
    kept = answers == ["0"] * 3 and GIB <= card <= cap + BLOCK
    stage.promise("managed memory beyond the cap is not on the card", kept, f"answers {answers}, {card} bytes of the card")


def context_and_code(stage):
    """What contexts and code take is charged as NVML says that the process holds."""
    _, books, card, process = alone_in(stage, 4 * GIB, ("load",), "ready")
    stage.figure("a context with code and 16 MiB", by_books=books, by_nvml=card, of_the_process=process)
    off = abs((books or 0) - card)
    stage.promise("contexts and code are charged as the card has them", off <= 16 * MIB, f"{off} bytes apart")


def contexts_of_many(stage):
    """Contexts count: many processes under a small cap."""
    before = settled(stage)
    container = stage.machine.container(memory=GIB)
    started = [container.start("hold") for _ in range(8)]
    here = 0
    for one in started:
        try:
            one.wait_for("pid", stage.patience())
            here += 1
        except Failed:
            continue
    card = used(stage) - before
    for one in started:
        one.finish(5)
    stage.promise("contexts of 8 processes stay within a cap of 1 GiB", card <= GIB + 8 * BLOCK, f"{here} have a context, {card} bytes of the card")


def blocks_of_many(stage):
    """Blocks count: allocations just above a block's half."""
    said, _, card, _ = alone_in(stage, 2 * GIB, ("alloc_until_refused", MIB + 4096, "hold"), "held")
    stage.promise("allocations of 1 MiB + 4 KiB stay within a cap of 2 GiB", card <= 2 * GIB + BLOCK, f"asked {said['held']}, {card} bytes of the card")


def killed(stage):
    """A holder's memory is there again after SIGKILL, for the next process and on the card."""
    before = settled(stage)
    container = stage.machine.container(memory=4 * GIB)
    first = container.start("hold")
    first.wait_for("pid", stage.patience())
    first.ask(f"alloc {3 * GIB}", "rc", stage.patience())
    first.kill()
    second = container.start("hold")
    second.wait_for("pid", stage.patience())
    answer = second.ask(f"alloc {3 * GIB}", "rc", stage.patience())["rc"]
    card = used(stage) - before
    second.finish(5)
    stage.promise("memory of a killed process is there for the next one", answer == "0", f"answer {answer}, {card} bytes of the card")


def race(stage):
    """Four processes of four threads race for the last bytes."""
    before = settled(stage)
    cap = 4 * GIB
    container = stage.machine.container(memory=cap)
    started = [container.start("race_for_last_bytes", 4, 256 * MIB, 200) for _ in range(4)]
    for one in started:
        one.wait_for("ready", stage.patience())
    watch = stage.machine.bare().start("card", "watch")
    watch.wait_for("used", stage.patience())
    for one in started:
        one.tell("go")
    sums = {"refusals": 0, "admitted": 0}
    for one in started:
        said = one.wait_for("rest", stage.patience())
        for key in sums:
            sums[key] += int(said.get(key, 0))
    seen = watch.finish(5)
    most = seen.number("most") - before
    for one in started:
        one.finish(5)
    stage.figure("the race", **sums, most_by_nvml=most, looks=seen.number("times"), above=most - cap)
    stage.promise("a race never takes more of the card than the cap", sums["refusals"] > 0 and most <= cap + 4 * BLOCK, f"{most - cap} bytes above it, {sums['refusals']} refusals")
