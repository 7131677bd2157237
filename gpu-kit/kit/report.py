"""Where a run is, and what comes of it."""

import json
import os
import platform
import sys
import time


class Clock:
    """The budget of a whole run."""

    def __init__(self, budget):
        self.budget = budget
        self._start = time.monotonic()

    def passed(self):
        return time.monotonic() - self._start

    def left(self):
        return max(self.budget - self.passed(), 0.0)

    def show(self, name, about, limit):
        """Says where it is and how long the rest may take."""
        about = (about or "").strip().split("\n")[0]
        print(
            f"[{self.passed():.0f} s of {self.budget:.0f}] {name}: {about} At most {limit:.0f} s; the whole rest {self.left():.0f} s.",
            file=sys.stderr,
            flush=True,
        )


def kit_revision():
    """What the kit was built from."""
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "REVISION")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


def facts(stages):
    """What the first stage found out about the machine."""
    machine = next((stage for stage in stages if stage.name == "machine"), None)
    return {row["name"]: row["text"] for row in machine.of("note")} if machine else {}


def finish(out, stages, clock):
    """Writes the summary, says the verdict, answers the exit status."""
    promises = [row for stage in stages for row in stage.of("promise")]
    missed = [row for row in promises if not row["kept"]]
    broken = [stage for stage in stages if stage.broken]
    skipped = [row for stage in stages for row in stage.of("skip")]
    summary = {
        "kit": kit_revision(),
        "date": time.strftime("%Y-%m-%d"),
        "host": {"kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "machine": facts(stages),
        "budget_s": clock.budget,
        "took_s": round(clock.passed(), 1),
        "promises": {"kept": len(promises) - len(missed), "missed": len(missed)},
        "skipped": len(skipped),
        "stages": [
            {
                "name": stage.name,
                "result": stage.result(),
                "took_s": round(stage.took, 1),
                "rows": [{key: value for key, value in row.items() if key != "stage"} for row in stage.rows],
            }
            for stage in stages
        ],
    }
    with open(os.path.join(out, "summary.json"), "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1)
        file.write("\n")
    with open(os.path.join(out, "tables.txt"), "w", encoding="utf-8") as file:
        file.write("\n".join(stage.table() for stage in stages))
    print(
        f"{len(promises) - len(missed)} promises kept, {len(missed)} missed, {len(skipped)} things skipped,"
        f" {len(broken)} stages broken, in {clock.passed():.0f} s; all of it in {out}"
    )
    for row in missed:
        print(f"  missed: {row['stage']}: {row['name']}: {row['seen']}")
    for stage in broken:
        print(f"  broken: {stage.name}: {stage.broken}")
    return 1 if missed or broken else 0
