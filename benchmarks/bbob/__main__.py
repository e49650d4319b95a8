"""Strategies against those of evosax on its 24 BBOB functions.

    python -m benchmarks.bbob

The same algorithm with the same settings and budget on both sides, in 10 and 40
dimensions, 15 seeds: the lowest value that a member had in the whole search. It needs
the `bench` extra. Results go to docs/results/bbob.json and a picture next to it.
"""

import json
import sys
import time
from pathlib import Path

from benchmarks.bbob import report, settings
from benchmarks.command import RESULTS, make_parser, stoppable
from benchmarks.timing import in_subprocess, machine_info


def parse(argv):
    """Return the flags of a command line."""
    parser = make_parser("bbob", __doc__)
    names = list(settings.ALGORITHMS)
    parser.add_argument(
        "--algorithm", action="append", choices=names, help="may be given repeatedly"
    )
    parser.add_argument(
        "--report", action="store_true", help="run nothing, show what is there"
    )
    parser.add_argument(
        "--output", metavar="DIR", default=str(RESULTS), help="default: docs/results"
    )
    flags = parser.parse_args(argv)
    flags.algorithm = [] if flags.report else flags.algorithm or names
    return flags


def search_all(name):
    """Return the rows of an algorithm, one for each function and size."""
    return [row for size in settings.DIMENSIONS for row in search(name, size)]


def search(name, dimensions):
    """Return the rows of an algorithm in some dimensions, one for each function."""
    from benchmarks.bbob.ours import Ours
    from benchmarks.bbob.peer import Peer
    from benchmarks.bbob.problems import FUNCTIONS, Problems

    problems = Problems(dimensions)
    algorithm = settings.ALGORITHMS[name]
    sides = {"ours": Ours(algorithm, problems), "theirs": Peer(algorithm, problems)}
    rows = []
    for index, function in enumerate(FUNCTIONS):
        row = {"algorithm": name, "dimensions": dimensions, "function": function}
        for side, found in sides.items():
            row[side] = [float(v) for v in found.best(index)]
        rows.append(row)
    return rows


def main(argv=None):
    """Search, write the JSON, print the tables, draw the picture."""
    flags = parse(argv)
    output = Path(flags.output)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "bbob.json"
    data, start = {"rows": []}, time.perf_counter()
    if path.exists():
        data = json.loads(path.read_text(encoding="utf-8"))
    rows = [row for row in data["rows"] if row["algorithm"] not in flags.algorithm]
    for name in flags.algorithm:
        found, _ = in_subprocess(search_all, name)
        rows += found
        print(f"{name}: {time.perf_counter() - start:.0f} s")
    order = list(settings.ALGORITHMS)
    rows = [report.compared(row) for row in rows]
    rows.sort(key=lambda row: (order.index(row["algorithm"]), row["dimensions"]))
    if flags.algorithm:
        data["machine"] = machine_info()
        data["budget"] = {
            "members": settings.MEMBERS,
            "generations": settings.GENERATIONS,
            "seeds": settings.SEEDS,
        }
    data["rows"] = rows
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print("\n".join([*report.table(rows), "", *report.summary(rows)]))
    report.draw(rows, output / "bbob.png")
    return 0


if __name__ == "__main__":
    sys.exit(stoppable("bbob", main))
