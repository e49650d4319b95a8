"""Results as JSON lines, one for each run, written as they come."""

import json
import math
import os
import statistics
from pathlib import Path

KEYS = ("suite", "case", "method", "config", "seed", "split", "steps")
"""What tells one run from another."""


def key(row, names=KEYS):
    """Return what identifies a run, a string."""
    return json.dumps([row[name] for name in names], sort_keys=True)


def mean_and_standard_error(values):
    """Return the mean and s / sqrt(n), s the sample standard deviation; NaN for n=1."""
    count = len(values)
    error = statistics.stdev(values) / math.sqrt(count) if count > 1 else math.nan
    return statistics.fmean(values), error


class Results:
    """A file of rows.

    Args:
        path: The file, made with the first row.
        keys: Names of what tells one row from another.
    """

    def __init__(self, path, keys=KEYS):
        self.path, self.keys = Path(path), keys

    def rows(self):
        """Return all rows, one for each run; a line cut short by a stop is left out."""
        if not self.path.exists():
            return []
        found = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                found[key(row, self.keys)] = row
            except (json.JSONDecodeError, KeyError):
                continue
        return list(found.values())

    def add(self, row):
        """Append a row, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            # After a line that a stop cut short, begin a new one.
            file.write("\n" * (cut and self.path.stat().st_size > 0))
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
