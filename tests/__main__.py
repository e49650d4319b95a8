"""Runs all tests, one group after the other in processes of their own.

    python -m tests -n 2

Arguments are those of pytest. TensorFlow keeps what XLA has compiled for as long as a
process lives: in one process the tests would take twenty gigabytes of memory, and slow
each other down.
"""

import subprocess
import sys
from pathlib import Path

FOLDERS = ("optimizers", "conformance", "training", "distribution")
"""Folders of tests that are a group; the last one is all else."""

BY_FILE = "distribution"
"""Each file runs in one worker of -n, lest both start the processes that it shares."""

NOTHING_COLLECTED = 5


def groups():
    """Return lists of paths that hold each test once."""
    tests = Path(__file__).parent
    large = [[str(tests / name)] for name in FOLDERS]
    folders = (p for p in tests.iterdir() if p.is_dir() and p.name not in FOLDERS)
    others = [*folders, *tests.glob("test_*.py"), tests.parent / "keras_es"]
    return [*large, sorted(str(p) for p in others if p.name != "__pycache__")]


def main(arguments):
    """Run pytest on each group; return 0 if nothing failed."""
    failed, parallel = 0, any(a.startswith("-n") for a in arguments)
    for paths in groups():
        command = [sys.executable, "-m", "pytest", *arguments, *paths]
        if parallel and paths[0].endswith(BY_FILE):
            command.append("--dist=loadfile")
        status = subprocess.run(command, cwd=Path(__file__).parents[1]).returncode
        if status not in (0, NOTHING_COLLECTED):
            failed = failed or status
            if status < 0 or status == 2:  # stopped by a signal or Ctrl-C
                break
    return abs(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
