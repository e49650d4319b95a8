"""What all benchmarks share: interleaved timing, peak memory, rows of a table."""

import dataclasses
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Before the libraries load; each suite runs in a process of its own.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

LIBRARIES = ("keras", "tensorflow", "numpy", "jax", "jaxlib", "evosax", "pygad")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        suite: Name of the suite.
        case: What was measured, unique within the suite.
        value: The number, in `unit`.
        unit: Such as "ms", "examples/s" or "MiB".
        baseline: The same of what it is compared with, or None.
        ratio: What the target is about, usually value over baseline; None if the
            target is about the value itself.
        target: A bound as one would write it, such as "<= 1.05" or ">= 2.5".
        detail: More that the JSON should hold; "curve" and "x" put the row's value
            into a curve of the picture instead of a bar.
    """

    suite: str
    case: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    target: str | None = None
    detail: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.target is not None:
            self.bound  # noqa: B018 - a bound that cannot be read fails here

    @property
    def bound(self):
        """The target as (sign, number); the sign is "<=" or ">="."""
        sign, number = self.target[:2], self.target[2:]
        if sign not in ("<=", ">="):
            raise ValueError(
                '`target` must be a bound such as "<= 1.05" or ">= 2". '
                f"Received: target={self.target!r}"
            )
        return sign, float(number)

    @property
    def met(self):
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        number = self.value if self.ratio is None else self.ratio
        sign, bound = self.bound
        return number <= bound if sign == "<=" else number >= bound


def interleaved(cases, rounds=7, warmup=1):
    """Time functions in turn, so that whatever slows the machine slows all of them.

    Args:
        cases: Dict from name to a function without arguments, which returns when its
            work is done; it may return seconds of its own, where not all that it
            does is to count.
        rounds: How often each is timed.
        warmup: How often each runs before that.

    Returns:
        Dict from name to the list of `rounds` seconds. Each round begins with
        another case.
    """
    names = list(cases)
    for _ in range(warmup):
        for name in names:
            cases[name]()
    seconds = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            own = cases[name]()
            elapsed = time.perf_counter() - start
            seconds[name].append(own if isinstance(own, float) else elapsed)
    return seconds


def median_ratio(seconds, case, *baselines):
    """Return the median over rounds of a case's time over the fastest baseline's.

    The baseline is the one with the smallest median. Ratios are taken within a
    round, for another load on the machine slows both in it.
    """
    medians = {name: statistics.median(seconds[name]) for name in baselines}
    fastest = seconds[min(medians, key=medians.get)]
    return statistics.median(a / b for a, b in zip(seconds[case], fastest))


class ProcessFailedError(RuntimeError):
    """A function failed in a process of its own; `exit_code` is that of the process."""

    def __init__(self, name, exit_code):
        self.exit_code = exit_code
        super().__init__(
            f"{name} failed in its process. Received: exit code={exit_code}"
        )


def in_subprocess(function, *args, env=None):
    """Call a function in a new process.

    Args:
        function: Function at the top of a module.
        *args: Its arguments, of what JSON can hold.
        env: Environment variables to add.

    Returns:
        (result as JSON has it, peak resident memory of the process in bytes).

    Raises:
        ProcessFailedError: If the process failed; its error is on stderr.
    """
    module = function.__module__
    if module == "__main__":
        module = sys.modules["__main__"].__spec__.name
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        call = json.dumps([module, function.__qualname__, args, str(path)])
        code = f"import benchmarks.timing as t; t._answer({call!r})"
        root = str(Path(__file__).resolve().parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(env or {})}
        done = subprocess.run([sys.executable, "-c", code], env=environ, check=False)
        if done.returncode:
            name = f"{module}.{function.__qualname__}"
            raise ProcessFailedError(name, done.returncode)
        answer = json.loads(path.read_text(encoding="utf-8"))
    return answer["result"], answer["peak_bytes"]


def peak_memory(function, *args, env=None):
    """Return the peak resident memory, in bytes, of a process that calls a function.

    What the interpreter and its libraries take is part of it: compare with a process
    that only loads them.
    """
    return in_subprocess(function, *args, env=env)[1]


def _answer(call):
    module, name, args, path = json.loads(call)
    try:
        result = getattr(importlib.import_module(module), name)(*args)
    except KeyboardInterrupt:  # of which the process that waits for it says a line
        sys.exit(130)
    answer = {"result": result, "peak_bytes": own_peak()}
    Path(path).write_text(json.dumps(answer), encoding="utf-8")


def own_peak():
    """Return the peak resident memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss of a new process begins with that of its parent on Linux.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peer(name, suite):
    """Import a peer's package, or say which rows are left out and return None."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(
            f"{suite}: rows against {name} are left out, it cannot be imported "
            f"({error}); pip install 'keras_es[bench]'",
            file=sys.stderr,
        )
        return None


def machine_info(packages=()):
    """Return processor, cores, memory and versions, as the JSON of results has them.

    Args:
        packages: Names of packages besides `LIBRARIES`.
    """
    versions = {"python": platform.python_version()}
    for name in (*LIBRARIES, *packages):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1
        ),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }


def _cpu_model():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
