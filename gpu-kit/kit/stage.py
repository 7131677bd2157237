"""One stage: its time, its rows on disk as they come, its promises, its table."""

import json
import os
import time
import traceback

from kit.programs import HERE

# Seconds that any program of the kit has at least.
PATIENCE = 15


class Stage:
    """What a stage's module is given to measure with and to write down by."""

    def __init__(self, name, limit, out, machine):
        self.name = name
        self.machine = machine
        self.out = out
        self.limit = limit
        self.rows = []
        self.broken = None
        self._end = time.monotonic() + limit
        self._start = time.monotonic()
        self._file = open(os.path.join(out, f"{name}.jsonl"), "w", encoding="utf-8")

    def left(self):
        """Seconds that the stage still has."""
        return self._end - time.monotonic()

    def patience(self):
        """How long a program may take before it counts as hanging. A stage's end is no reason to call it that."""
        return max(self.left(), PATIENCE)

    def has(self, seconds, what):
        """Whether there is time for a step that takes so long; if not, it is skipped and written down."""
        if self.left() >= seconds:
            return True
        self.skip(what, f"takes {seconds:.1f} s, and {max(self.left(), 0):.1f} s of the stage's {self.limit:.0f} s are left")
        return False

    def path(self, name):
        """A file of this name among the results."""
        return os.path.join(self.out, name)

    def _write(self, row):
        row = {"stage": self.name, "at_s": round(time.monotonic() - self._start, 3), **row}
        # Where the kit lies on this machine says nothing about the card.
        text = json.dumps(row).replace(HERE + os.sep, "")
        self.rows.append(json.loads(text))
        self._file.write(text + "\n")
        self._file.flush()

    def figure(self, name, **values):
        """A row of figures."""
        self._write({"row": "figure", "name": name, **values})

    def note(self, name, text):
        """A fact that is no number."""
        self._write({"row": "note", "name": name, "text": str(text)})

    def promise(self, name, kept, seen):
        """A promise that was put to the test, and what was seen."""
        self._write({"row": "promise", "name": name, "kept": bool(kept), "seen": str(seen)})

    def skip(self, name, why):
        """What could not be tried, and why."""
        self._write({"row": "skip", "name": name, "why": str(why)})

    def run(self, module):
        """Runs the stage; whatever happens in it, the next one comes."""
        try:
            if self.limit < module.LEAST:
                self.skip("all of it", f"needs {module.LEAST} s, and the budget leaves {self.limit:.1f} s")
            else:
                module.run(self)
        except KeyboardInterrupt:
            self.skip("the rest", "the run was cut off")
            raise
        except Exception as why:  # pylint: disable=broad-except
            self.broken = f"{type(why).__name__}: {why}"
            self._write({"row": "broken", "why": self.broken, "trace": traceback.format_exc()})
        finally:
            self.machine.end_all()
            self.took = time.monotonic() - self._start
            self._file.close()

    def of(self, kind):
        """All rows of one kind."""
        return [row for row in self.rows if row["row"] == kind]

    def result(self):
        """In one word."""
        if self.broken or any(not row["kept"] for row in self.of("promise")):
            return "broken" if self.broken else "missed"
        return "kept" if self.of("promise") else "measured" if self.of("figure") else "skipped"

    def table(self):
        """The stage for people."""
        lines = [f"== {self.name}: {self.result()}, {self.took:.1f} s"]
        for names, rows in by_columns(self.of("figure")):
            lines += columns([("", *names)] + [(row["name"], *(shown(row.get(key)) for key in names)) for row in rows])
        lines += [f"  {row['name']}: {row['text']}" for row in self.of("note")]
        for row in self.of("promise"):
            lines.append(f"  {'kept' if row['kept'] else 'MISSED'}  {row['name']}: {row['seen']}")
        lines += [f"  skipped {row['name']}: {row['why']}" for row in self.of("skip")]
        lines += [f"  BROKEN: {row['why']}" for row in self.of("broken")]
        return "\n".join(lines) + "\n"


FIXED = ("stage", "at_s", "row", "name")


def by_columns(rows):
    """Figures that follow each other and have the same columns make one table."""
    tables = []
    for row in rows:
        names = tuple(key for key in row if key not in FIXED)
        if not tables or tables[-1][0] != names:
            tables.append((names, []))
        tables[-1][1].append(row)
    return tables


def shown(value):
    """A figure with as many digits as say something."""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "-" if value is None else str(value)


def columns(rows):
    """Rows of words as lines, in columns."""
    widths = [max(len(str(row[at])) for row in rows) for at in range(len(rows[0]))]
    return ["  " + "  ".join(str(word).ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows]
