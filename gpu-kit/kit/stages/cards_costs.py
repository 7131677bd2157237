"""What the card itself takes, without the library: calls, events, blocks, contexts; costs.toml for the simulator."""

from kit.programs import Failed

WEIGHT = 20
LEAST = 4
HOLDERS = 8


def run(stage):
    bare = stage.machine.bare()
    seen = {}
    for subject in ("start", "calls", "events", "memory", "streams"):
        if stage.has(1, subject):
            seen.update(times(stage, bare, subject))
    if stage.has(1, "blocks"):
        blocks(stage, bare)
    if stage.has(1, "footprint"):
        seen.update(footprint(stage, bare))
    if stage.has(2, "NVML's calls"):
        seen.update(nvml(stage, bare))
    write_profile(stage, seen)


def told_by(bare, stage, *command):
    """What a program says, as numbers in the order in which it said them."""
    outcome = bare.run(*command, limit=stage.patience()).must()
    return {key: int(value) for key, value in outcome.pairs}


def times(stage, bare, subject):
    """The figures of one subject of the program `costs`."""
    told = told_by(bare, stage, "costs", subject)
    for key, value in told.items():
        name = key[: -len("_p50_ns")]
        if key.endswith("_p50_ns"):
            stage.figure(name, p50_ns=value, p99_ns=told[f"{name}_p99_ns"])
    for key, value in told.items():
        if not key.endswith(("_p50_ns", "_p99_ns")):
            stage.figure(key, value=value)
    return told


def blocks(stage, bare):
    """How much of the card allocations of a size take."""
    told = told_by(bare, stage, "costs", "blocks")
    for key, asked in told.items():
        if key.startswith("asked_"):
            size = key[len("asked_") :]
            stage.figure(
                f"allocations of {size}",
                asked=asked,
                by_cuda=told[f"cuda_{size}"],
                by_nvml=told[f"nvml_{size}"],
                nvml_to_asked=told[f"nvml_{size}"] / asked,
            )


def footprint(stage, bare):
    """What contexts, code and heaps take, by each source."""
    told = told_by(bare, stage, "costs", "footprint")
    before = told["before_nvml_bytes"]
    for key, value in told.items():
        if key.endswith("_process_bytes"):
            name = key[: -len("_process_bytes")]
            card = told[f"{name}_nvml_bytes"] - before
            stage.figure(f"bytes after {name}", card=card, process=value, cuda_used=told[f"{name}_cuda_bytes"])
    return told


def nvml(stage, bare):
    """NVML's calls with one process on the card, and with more."""
    seen = {}
    for holders in (1, HOLDERS):
        started = [bare.start("hold") for _ in range(holders)]
        try:
            for one in started:
                one.wait_for("pid", stage.patience())
            told = told_by(bare, stage, "card", "times")
        except Failed as why:
            stage.skip(f"NVML's calls beside {holders} processes", why)
            continue
        finally:
            for one in started:
                one.finish(5)
        for name in ("nvml_processes", "nvml_memory", "nvml_utilization"):
            least, mean, most = (told[f"{name}_{which}_ns"] for which in ("least", "mean", "most"))
            stage.figure(f"{name} beside {holders}", least_ns=least, mean_ns=mean, most_ns=most)
            seen[f"{name}_{holders}"] = mean
        seen["nvml_init"] = told["nvml_init_ns"]
    return seen


def each_process(seen):
    """What each further process adds to NVML's list of them."""
    return (seen[f"nvml_processes_{HOLDERS}"] - seen["nvml_processes_1"]) // (HOLDERS - 1)


# The simulator's table `[latency]` (cuda-shim/README.md): how each key follows from what was measured, in nanoseconds.
LATENCY = {
    "launch": lambda seen: seen["launch_idle_p50_ns"],
    "record": lambda seen: seen["event_record_p50_ns"],
    "query": lambda seen: seen["event_query_p50_ns"],
    "event": lambda seen: seen["queued_no_work_p50_ns"],
    "dispatch": lambda seen: seen["alone_less_call_timed_20us_p50_ns"] - seen["queued_no_work_p50_ns"],
    "gap": lambda seen: seen["gap_timed_20us_p50_ns"],
    "gap_after_event": lambda seen: seen["queued_timed_20us_p50_ns"] - seen["queued_no_work_p50_ns"],
    "synchronize": lambda seen: seen["ctx_synchronize_idle_p50_ns"],
    "wake": lambda seen: seen["timed_20us_and_wait_p50_ns"] - 20_000 - seen["launch_idle_p50_ns"] - seen["ctx_synchronize_idle_p50_ns"],
    "init": lambda seen: seen["init_ns"],
    "context": lambda seen: seen["context_ns"],
    "module": lambda seen: seen["module_load_ns"],
    "module_launch": lambda seen: seen["first_launch_ns"] - seen["other_first_launch_ns"],
    "function_launch": lambda seen: seen["other_first_launch_ns"] - seen["second_launch_ns"],
    "allocate": lambda seen: seen["alloc_2MiB_p50_ns"],
    "free": lambda seen: seen["free_64MiB_p50_ns"],
    "memory_info": lambda seen: seen["mem_get_info_p50_ns"],
    "nvml_init": lambda seen: seen["nvml_init"],
    "processes": lambda seen: seen["nvml_processes_1"] - each_process(seen),
    "each_process": each_process,
}
# What else is of use to whoever reads the table.
OTHERS = (
    "init_ns",
    "context_ns",
    "module_load_ns",
    "first_launch_ns",
    "launch_idle_p99_ns",
    "launch_queued_p50_ns",
    "launch_and_wait_p50_ns",
    "event_elapsed_p50_ns",
    "ctx_synchronize_idle_p50_ns",
    "mem_get_info_p50_ns",
    "alloc_4KiB_p50_ns",
    "alloc_2MiB_p50_ns",
    "alloc_64MiB_p50_ns",
    "free_64MiB_p50_ns",
    "nvml_init",
    "nvml_processes_1",
    f"nvml_processes_{HOLDERS}",
    "concurrent",
)


def write_profile(stage, seen):
    """The card's costs as a table that a machine file of the simulator can take over."""
    with open(stage.path("costs.toml"), "w", encoding="utf-8") as file:
        file.write(profile(seen))


def profile(seen):
    """What was measured, by the names of the programs' figures, as TOML."""
    lines = ["# What a card takes, measured by the GPU kit's stage `costs`; medians.", "[latency]"]
    for key, of in LATENCY.items():
        try:
            lines.append(f'{key} = "{max(of(seen), 0)}ns"')
        except KeyError:
            continue
    lines += ["", "[measured]"]
    lines += [f"{name} = {seen[name]}" for name in OTHERS if name in seen]
    return "\n".join(lines) + "\n"
