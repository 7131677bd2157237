"""Programs on this machine: as they are, or as processes of a container with a region and limits of its own."""

import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(HERE, "bin")
LIBRARY = os.path.join(HERE, "lib", "libgpuquota.so")
GPUQUOTA = os.path.join(HERE, "lib", "gpuquota")
CUDA_SIM = os.path.join(HERE, "lib", "cuda-sim")
CLIENTS = os.path.join(HERE, "clients")

# Variables that say something to the library or to a peer of it; programs get only what a stage gives them.
FOREIGN = ("GPUQUOTA_", "CUDA_DEVICE_MEMORY", "CUDA_DEVICE_SM", "CUDA_MPS_")


def program(name):
    """A program of the kit."""
    return os.path.join(BIN, name)


def client(name):
    """A Python client of the kit."""
    return ["python3", os.path.join(CLIENTS, name)]


class Failed(Exception):
    """A program did not do what it must."""


class Machine:
    """This machine, and every program that was started on it."""

    def __init__(self, out):
        self.out = out
        self.home = tempfile.mkdtemp(prefix="gpu-kit-")
        self.programs = []
        self._containers = 0
        inherited = os.environ.items()
        self.environment = {key: value for key, value in inherited if not key.startswith(FOREIGN)}

    def bare(self, **variables):
        """Programs as they are."""
        return Setting(self, None, variables)

    def container(self, memory=None, cores=None, **variables):
        """A container of its own: a folder, a region, limits. Numbers are bytes and percent."""
        self._containers += 1
        folder = os.path.join(self.home, f"container_{self._containers}")
        os.mkdir(folder)
        region = os.path.join(folder, f"container_{self._containers}.cache")
        limits = {"GPUQUOTA_MEMORY": memory, "GPUQUOTA_CORES": cores, **variables}
        given = {key: str(value) for key, value in limits.items() if value is not None}
        return Setting(self, region, {"LD_PRELOAD": LIBRARY, "GPUQUOTA_REGION": region, **given})

    def end_all(self):
        """Ends what a stage left running, and forgets its containers."""
        for one in self.programs:
            one.kill()
        self.programs.clear()
        shutil.rmtree(self.home, ignore_errors=True)
        os.makedirs(self.home, exist_ok=True)

    def close(self):
        """Leaves nothing behind."""
        self.end_all()
        shutil.rmtree(self.home, ignore_errors=True)


class Setting:
    """How programs are started."""

    def __init__(self, machine, region, variables):
        self.machine = machine
        self.region = region
        self.variables = variables

    @property
    def folder(self):
        """The folder in which the container's region lies."""
        return os.path.dirname(self.region)

    def with_variables(self, **variables):
        """The same with more variables; one that is None is taken away."""
        return Setting(self.machine, self.region, {**self.variables, **variables})

    def start(self, *command):
        """Starts a program of the kit by its name, or a whole command."""
        words = [str(word) for word in command]
        if os.sep not in words[0] and os.path.exists(program(words[0])):
            words[0] = program(words[0])
        environment = {**self.machine.environment, **self.variables}
        environment = {key: value for key, value in environment.items() if value is not None}
        started = Program(words, environment)
        self.machine.programs.append(started)
        return started

    def run(self, *command, limit=30, text=None):
        """Runs a program to its end."""
        return self.start(*command).finish(limit, text)

    def inspect(self):
        """What `gpuquota inspect` says of the container."""
        done = subprocess.run([GPUQUOTA, "inspect", "--json", self.region], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"gpuquota inspect: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def device(self):
        """What it says of the first device that the container has met."""
        devices = self.inspect()["devices"]
        return devices[0] if devices else {}

    def limit(self, *options):
        """Changes the container's limits while its programs run."""
        done = subprocess.run([GPUQUOTA, "limit", self.region, *options], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"gpuquota limit {' '.join(options)}: {done.stderr.strip()}")


class Program:
    """A running program that says key=value lines and may be told lines."""

    def __init__(self, words, environment):
        self.words = words
        self.name = os.path.basename(words[0] if len(words) < 2 or "python" not in words[0] else words[1])
        self.said = []
        self.errors = []
        self._lines = queue.Queue()
        self._process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, self._lines.put), daemon=True),
            threading.Thread(target=self._read, args=(self._process.stderr, self.errors.append), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream, take):
        for line in stream:
            take(line.rstrip("\n"))

    def tell(self, line):
        """Writes a line to its standard input."""
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise Failed(f"{self.name} ended before it was told {line!r}: {self._story()}") from None

    def wait_for(self, key, limit):
        """The value of `key` the next time that it says it, and what it said on the way."""
        end = time.monotonic() + max(limit, 0.1)
        found = {}
        while True:
            try:
                line = self._lines.get(timeout=min(max(end - time.monotonic(), 0.001), 0.2))
            except queue.Empty:
                if self._process.poll() is not None and not self._readers[0].is_alive() and self._lines.empty():
                    raise Failed(f"{self.name} ended ({self.status()}) before it said {key}: {self._story()}") from None
                if time.monotonic() > end:
                    raise Failed(f"{self.name} did not say {key} in {limit:.0f} s: {self._story()}") from None
                continue
            self.said.append(line)
            said, equals, value = line.partition("=")
            if equals:
                found[said] = value
                if said == key:
                    return found

    def ask(self, line, key, limit):
        """Tells a line and waits for the answer."""
        self.tell(line)
        return self.wait_for(key, limit)

    def finish(self, limit=30, text=None):
        """Closes its standard input and waits for its end."""
        try:
            if text:
                self._process.stdin.write(text)
            self._process.stdin.close()
        except (BrokenPipeError, ValueError):
            pass
        try:
            self._process.wait(timeout=max(limit, 0.1))
            timed_out = False
        except subprocess.TimeoutExpired:
            self.kill()
            timed_out = True
        for reader in self._readers:
            reader.join(timeout=2)
        while not self._lines.empty():
            self.said.append(self._lines.get())
        return Outcome(self, timed_out)

    def kill(self):
        """SIGKILL to it and to what it started."""
        if self._process.poll() is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        self._process.wait()

    def status(self):
        """Its exit status so far, in words."""
        code = self._process.poll()
        return "running" if code is None else f"signal {-code}" if code < 0 else f"status {code}"

    def _story(self):
        return "; ".join((self.said[-4:] + self.errors[-4:]) or ["it said nothing"])


class Outcome:
    """How a program ended and what it said."""

    def __init__(self, ended, timed_out):
        self.code = ended._process.returncode
        self.timed_out = timed_out
        self.name = ended.name
        self.out = ended.said
        self.errors = ended.errors
        pairs = [line.partition("=") for line in ended.said if "=" in line]
        self.pairs = [(key, value) for key, _, value in pairs]

    @property
    def good(self):
        return self.code == 0

    def all(self, key):
        """Every value of a key, in order."""
        return [value for said, value in self.pairs if said == key]

    def text(self, key):
        """The last value of a key; None if it was never said."""
        values = self.all(key)
        return values[-1] if values else None

    def number(self, key):
        """The last value of a key as a whole number."""
        value = self.text(key)
        if value is None:
            raise Failed(f"{self.name} never said {key}: {self}")
        return int(value)

    def must(self):
        """It has to have ended well."""
        if not self.good:
            raise Failed(f"{self.name}: {self}")
        return self

    def skipped(self):
        """Why a client could not run here, if it says so."""
        return self.text("skipped") if self.code == 77 else None

    def __str__(self):
        end = "took too long" if self.timed_out else f"status {self.code}"
        tail = self.out[-6:] + self.errors[-6:]
        return f"{end}; {'; '.join(tail) if tail else 'it said nothing'}"


def in_parallel(jobs, width=8):
    """Runs functions beside each other and answers their results in order. For what measures no time."""
    results = [None] * len(jobs)
    waiting = queue.Queue()
    for at, job in enumerate(jobs):
        waiting.put((at, job))

    def work():
        while True:
            try:
                at, job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results[at] = job()
            except Exception as why:  # pylint: disable=broad-except
                results[at] = why

    threads = [threading.Thread(target=work) for _ in range(min(width, os.cpu_count() or 1, len(jobs)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
