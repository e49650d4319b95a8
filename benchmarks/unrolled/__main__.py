"""Online evolution strategies on unrolled tasks.

    python -m benchmarks.unrolled --suite=lorenz,learned_optimizer,recurrent,rl
    python -m benchmarks.unrolled --suite=speed

Results are added to docs/results/unrolled.jsonl; runs that are there already are
skipped. Each suite prints its table and draws its picture. `rl` needs the `rl` extra,
`speed` compares with JAX if the `bench` extra is there (--jax names another Python).
"""

import importlib
import json
import os
import sys
from pathlib import Path

from benchmarks.command import (
    RESULTS,
    make_parser,
    require_positive,
    split_names,
    stoppable,
)
from benchmarks.timing import in_subprocess, machine_info

SUITES = ("lorenz", "variance", "learned_optimizer", "recurrent", "rl", "speed")
KEY = ("suite", "case", "seed")


def parse(argv):
    """Return the flags of a command line."""
    parser = make_parser("unrolled", __doc__)
    add = parser.add_argument
    add("--suite", required=True, help=f"of {', '.join(SUITES)}; commas between")
    add("--seeds", type=int, help="number of seeds; default: those of the suite")
    add("--case", action="append", help="only this one; default: all of the suite")
    add("--report", action="store_true", help="run nothing, show what is there")
    add("--jax", metavar="PYTHON", default=sys.executable, help="a Python that has JAX")
    add("--output", metavar="DIR", default=str(RESULTS), help="default: docs/results")
    flags = parser.parse_args(argv)
    flags.suite = split_names(parser, "suite", flags.suite, SUITES)
    require_positive(parser, flags, "seeds")
    return flags


def module_of(suite):
    """Return the module of a suite: SEEDS, CASES, run(case, seed), report(rows)."""
    return importlib.import_module(f"benchmarks.unrolled.{suite}")


def run_case(suite, case, seed):
    """Run one case in this process and return its row."""
    return module_of(suite).run(case, seed)


def read(path):
    """Return the rows of a file of results."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run_suite(flags, suite, path):
    """Run what is not in the results yet, each in a process of its own."""
    module = module_of(suite)
    done = {tuple(row[k] for k in KEY) for row in read(path)}
    for seed in range(flags.seeds or module.SEEDS):
        for case in module.CASES:
            if case not in (flags.case or [case]) or (suite, case, seed) in done:
                continue
            row, peak = in_subprocess(
                run_case, suite, case, seed, env={"KERAS_ES_JAX": flags.jax}
            )
            row = {"suite": suite, "case": case, "seed": seed, **row}
            row |= {"peak_mib": round(peak / 2**20), "machine": machine_info()}
            row["load"] = round(os.getloadavg()[0], 1)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print({k: v for k, v in row.items() if k not in ("curve", "machine")})


def main(argv=None):
    """Run, print the tables of all that is known, draw the pictures."""
    flags = parse(argv)
    output = Path(flags.output)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "unrolled.jsonl"
    for suite in flags.suite:
        if not flags.report:
            run_suite(flags, suite, path)
        rows = [row for row in read(path) if row["suite"] == suite]
        if rows:
            picture = output / f"unrolled-{suite}.png"
            print("\n".join(module_of(suite).report(rows, picture)))
    return 0


if __name__ == "__main__":
    sys.exit(stoppable("unrolled", main))
