"""How fast keras_es is: `python -m benchmarks.speed` prints the table.

Each suite runs in a process of its own. Results go to docs/results/speed.json, where
those of suites that did not run stay, and into the picture next to it.
"""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

from benchmarks import picture
from benchmarks.command import RESULTS, make_parser, split_names, stoppable
from benchmarks.timing import Row, in_subprocess, machine_info

SUITES = ("overhead", "block_sparse", "population", "growth", "start")


def parse(argv):
    """Return the flags of a command line."""
    parser = make_parser("speed", __doc__)
    parser.add_argument(
        "--suites",
        default=",".join(SUITES),
        help="names with commas between; default: %(default)s",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer rounds and smaller cases; nothing is written without --output",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="where results go; default: docs/results"
    )
    flags = parser.parse_args(argv)
    flags.suites = split_names(parser, "suites", flags.suites, SUITES)
    if flags.output is None and not flags.quick:
        flags.output = str(RESULTS)
    return flags


def run_suite(name, quick):
    """Run a suite in this process and return its rows and the machine as dicts."""
    suite = importlib.import_module(f"benchmarks.{name}")
    rows = [dataclasses.asdict(row) for row in suite.run(quick=quick)]
    return {"quick": quick, "machine": machine_info(), "rows": rows}


def table(rows):
    """Return the lines of a table of rows."""
    head = ("suite", "case", "value", "baseline", "ratio", "target", "")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    ]


def _cells(row):
    def number(value, unit=""):
        return "" if value is None else f"{value:,.4g} {unit}".strip()

    verdict = {None: "", True: "met", False: "MISSED"}[row.met]
    return (
        row.suite,
        row.case,
        number(row.value, row.unit),
        number(row.baseline, row.unit),
        number(row.ratio),
        row.target or "",
        verdict,
    )


def read(path):
    """Return the suites of a file of results, {} if there is none."""
    if not path.exists():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))["suites"]


def write(suites, folder):
    """Merge suites into speed.json of a folder and draw speed.png."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "speed.json"
    known = {**read(path), **suites}
    merged = {name: known[name] for name in SUITES if name in known}
    text = json.dumps({"suites": merged}, indent=1) + "\n"
    path.write_text(text, encoding="utf-8")
    rows = [Row(**row) for suite in merged.values() for row in suite["rows"]]
    picture.draw(rows, folder / "speed.png")
    print(f"Wrote {path} and {folder / 'speed.png'}")


def main(argv=None):
    """Run the suites; the exit code is 1 if one of them failed."""
    flags = parse(argv)
    suites, failed = {}, []
    for name in flags.suites:
        print(f"Running {name} ...", flush=True)
        try:
            suites[name], _ = in_subprocess(run_suite, name, flags.quick)
        except RuntimeError as error:
            failed.append(name)
            print(error, file=sys.stderr)
    rows = [Row(**row) for suite in suites.values() for row in suite["rows"]]
    print(json.dumps(machine_info()))
    print("\n".join(table(rows)))
    if flags.output is not None and suites:
        write(suites, Path(flags.output))
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(stoppable("speed", main))
