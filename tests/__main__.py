"""Runs the tests, some files at a time in processes of their own.

    python -m tests -n 2          # what users run: all but those marked slow
    python -m tests -n 2 --all    # every test

Further arguments are files of tests, by default all, or those of pytest. TensorFlow
keeps what XLA has compiled for as long as a process lives: in one process the tests
would take twenty gigabytes of memory, and slow each other down.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
PACKAGE = "keras_es"
"""Its doctests are one file to us."""

DURATIONS = TESTS / "durations.json"
"""Seconds of a processor by file, of fast tests and of slow ones; see --record."""

KINDS = {"not slow": "fast", "slow": "slow", "slow and not release": "slow"}
"""What the file of durations calls the tests of a mark."""

LONG_RUNS = {"tests/test_pure_results.py"}
"""Where a program runs for so long that it pays to make it fast."""

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "MPLBACKEND": "Agg",
    "CUDA_VISIBLE_DEVICES": "-1",
}
"""Variables that are read when the libraries load; conftest.py has them too."""

SECONDS_OF_A_PROCESS = 150.0
UNKNOWN_FILE = 10.0
NOTHING_COLLECTED = 5


def parse(arguments):
    """Return (options, files, arguments of pytest)."""
    parser = argparse.ArgumentParser(
        prog="python -m tests",
        usage="%(prog)s [options] [files] [options of pytest]",
        allow_abbrev=False,
    )
    parser.add_argument("-n", type=int, default=1, help="processes at a time")
    parser.add_argument("--all", action="store_true", help="slow tests too")
    parser.add_argument("-m", default=None, help="marks, as in pytest -m")
    parser.add_argument("-x", action="store_true", help="end after a failure")
    parser.add_argument(
        "--record", action="store_true", help="keep the durations of files"
    )
    parser.add_argument(
        "--reports", type=Path, help="keep what pytest says here, a folder a process"
    )
    options, rest = parser.parse_known_args(arguments)
    if options.n < 1:
        parser.error(f"-n: expected at least 1. Received: {options.n}")
    if options.m is None:
        options.m = "" if options.all else "not slow"
    if options.record and options.m not in KINDS:
        parser.error(f"--record: expected -m in {list(KINDS)}. Received: {options.m!r}")
    if options.reports and options.reports.exists():
        parser.error(f"--reports: expected a new folder. Received: {options.reports}")
    named = [a for a in rest if (ROOT / a.partition("::")[0]).exists()]
    files = [file for a in named for file in files_of(a)] or all_files()
    return options, files, [a for a in rest if a not in named]


def files_of(path):
    """Return the files of tests in a folder, or what is none as it is."""
    if not (ROOT / path).is_dir() or path == PACKAGE:
        return [path]
    found = sorted((ROOT / path).rglob("test_*.py"))
    return [str(p.relative_to(ROOT)) for p in found]


def all_files():
    """Return the paths that hold each test once."""
    return [*files_of(TESTS.name), PACKAGE]


def expected_seconds(file, marks):
    """Return what a file took when durations were recorded last."""
    recorded = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
    if file not in recorded:
        return UNKNOWN_FILE
    kinds = [KINDS[marks]] if marks in KINDS else KINDS.values()
    return sum(recorded[file].get(kind, 0.0) for kind in kinds)


def batches(files, marks):
    """Return lists of files that take about as long, the longest first.

    Files that stand beside each other stay together, for they share what they compile.
    """
    seconds = {file: expected_seconds(file, marks) for file in files}
    found = [[]]
    for file in files:
        taken = sum(seconds[f] for f in found[-1])
        if found[-1] and taken + seconds[file] > SECONDS_OF_A_PROCESS:
            found.append([])
        found[-1].append(file)
    return sorted(found, key=lambda batch: -sum(seconds[f] for f in batch))


class Batch:
    """Some files in a process of pytest.

    Args:
        files: Paths from the root.
        options: Those of this program.
        arguments: Further ones of pytest.
        folder: Where the process's output goes.
    """

    def __init__(self, files, options, arguments, folder):
        self.files, self.start = files, time.monotonic()
        self.report, self.log = folder / "report.xml", folder / "log.txt"
        self.memory = folder / "kilobytes.txt"
        command = ["-q", "--durations=0", "--durations-min=5", "-m", options.m]
        command += [f"--junitxml={self.report}", "-p", "no:cacheprovider"]
        command += [*["-x"] * options.x, *arguments, *files]
        self.process = multiprocessing.get_context("fork").Process(
            target=run_pytest, args=(command, compilation(files), self.log, self.memory)
        )
        self.process.start()

    def ended(self):
        """Return whether the process has; note its memory and what came out."""
        if self.process.is_alive():
            return False
        self.status = self.process.exitcode
        self.seconds = time.monotonic() - self.start
        told = self.memory.read_text() if self.memory.exists() else 0
        self.gigabytes = int(told) / 2**20
        self.counts, self.durations = read(self.report)
        return True

    @property
    def failed(self):
        return self.status not in (0, NOTHING_COLLECTED)

    def __str__(self):
        counts = ", ".join(f"{n} {what}" for what, n in self.counts.items() if n)
        first, *others = self.files
        more = f" and {len(others)} more" if others else ""
        return (
            f"{counts or 'no tests'} in {self.seconds:.0f} s, "
            f"{self.gigabytes:.1f} GB: {first}{more}"
        )


def load_libraries(options):
    """Load what every process of pytest needs; it is there when they are forked.

    Processes that run beside others keep to one core.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    found = dict(QUIET)
    if options.n > 1:
        found |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "2"}
        found |= {"OMP_NUM_THREADS": "1"}
    for name, value in found.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # As in pytest, which comes too late for these.
        for name in ("tensorflow", "keras", "keras_es", "pytest"):
            importlib.import_module(name)


def run_pytest(command, variables, log, memory):
    """Run pytest in this process, and note what memory it took at most."""
    import pytest

    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update({**variables, **os.environ})
    os.chdir(ROOT)
    status = pytest.main(command)
    memory.write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    sys.exit(int(status))


def compilation(files):
    """Return the variables that say how programs are compiled for a test.

    XLA goes without LLVM's optimizations, and graphs without those of TensorFlow: they
    are most of the price of a short run, and what is tested is what they are given.
    Runs that are long have both, as users do.
    """
    if LONG_RUNS & set(files):
        return {}
    return {
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "KERAS_ES_TESTS_OPTIMIZE": "0",
    }


def read(report):
    """Return counts by outcome and [(seconds, file, test)] from pytest's report."""
    counts, durations = Counter(), []
    if not report.exists():
        return counts, durations
    for case in ElementTree.parse(report).iter("testcase"):
        outcomes = {child.tag for child in case}
        bad = {"failure": "failed", "error": "failed", "skipped": "skipped"}
        # A test may fail, and its teardown besides.
        outcome = min((bad[o] for o in outcomes if o in bad), default="passed")
        counts[outcome] += 1
        found = case.find("properties/property[@name='processor_seconds']")
        seconds = 0.0 if found is None else float(found.get("value"))
        durations.append((seconds, file_of(case.get("classname")), case.get("name")))
    return counts, durations


def file_of(classname):
    """Return the path of "tests.folder.test_file.Class", or of what has no test_."""
    parts = classname.split(".")
    if parts[0] == PACKAGE:
        return PACKAGE
    found = [i for i, part in enumerate(parts) if part.startswith("test_")]
    last = max(found, default=len(parts) - 1)
    return "/".join(parts[: last + 1]) + ".py"


def run(waiting, options, arguments, folder):
    """Run batches, some at a time; return those that ended, in that order."""
    running, done, total = [], [], len(waiting)
    try:
        while waiting or running:
            while waiting and len(running) < options.n:
                place = folder / f"{total - len(waiting):02}"
                place.mkdir(parents=True)
                running.append(Batch(waiting.pop(0), options, arguments, place))
            time.sleep(0.1)
            for batch in [b for b in running if b.ended()]:
                running.remove(batch)
                done.append(batch)
                print(f"[{len(done)}/{total}] {batch}", flush=True)
                if batch.failed:
                    print(batch.log.read_text(errors="replace"), flush=True)
                    waiting = [] if options.x else waiting
    finally:
        for batch in running:
            batch.process.kill()
    return done


def record(durations, marks):
    """Write the seconds by file to the file of durations."""
    kind = KINDS[marks]
    old = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
    found = {f: {k: v for k, v in old.get(f, {}).items() if k != kind} for f in old}
    for file, seconds in durations.items():
        found.setdefault(file, {})[kind] = round(seconds, 1)
    found = {f: found[f] for f in sorted(found) if f == PACKAGE or (ROOT / f).exists()}
    DURATIONS.write_text(json.dumps(found, indent=1) + "\n")


def by_folder(durations):
    """Return lines: seconds and folder."""
    found = defaultdict(float)
    for file, seconds in durations.items():
        found[str(Path(file).parent) if "/" in file else file] += seconds
    return [f"{s:8.1f} s  {folder}" for folder, s in sorted(found.items())]


def main(arguments):
    """Run pytest on each batch; return 0 if tests ran and none failed."""
    options, files, rest = parse(arguments)
    start, durations, counts = time.monotonic(), defaultdict(float), Counter()
    with tempfile.TemporaryDirectory(prefix="keras_es_tests") as folder:
        waiting = batches(files, options.m)
        load_libraries(options)
        done = run(waiting, options, rest, options.reports or Path(folder))
    tests = sorted((d for batch in done for d in batch.durations), reverse=True)
    for seconds, file, _ in tests:
        durations[file] += seconds
    for batch in done:
        counts.update(batch.counts)
    failed = [batch for batch in done if batch.failed]
    if options.record and not failed:
        record(durations, options.m)
    print("\nthe longest tests, in seconds of a processor:")
    print(*(f"{s:8.1f} s  {file}::{name}" for s, file, name in tests[:20]), sep="\n")
    print("by folder:", *by_folder(durations), sep="\n")
    memory = max(batch.gigabytes for batch in done)
    summary = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
    print(f"{summary or 'no tests ran'} in {time.monotonic() - start:.0f} s;", end=" ")
    print(f"a process took {memory:.1f} GB at most")
    if failed:
        print("failed:", *(f"  {batch}" for batch in failed), sep="\n")
    return 1 if failed or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
