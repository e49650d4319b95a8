"""All weights by losses alone, on real data.

    python -m benchmarks.pure --suite=binary
    python -m benchmarks.pure --suite=mnist-11k,mnist-30k --seeds=1

Results are added to docs/results/pure.jsonl; runs that are there already are skipped.
--validation looks at held-out training examples in place of the test set and writes to
pure-validation.jsonl: with --config that is how settings were chosen. --tune does it
with the settings that a suite lists, as many for each side, and prints the best first.
"""

import json
import sys
from pathlib import Path

from benchmarks.accuracy.results import Results, key
from benchmarks.command import (
    RESULTS,
    make_parser,
    require_positive,
    split_names,
    stoppable,
)
from benchmarks.pure import report, training
from benchmarks.pure.suites import SUITES
from benchmarks.timing import in_subprocess


def parse(argv):
    """Return the flags of a command line."""
    parser = make_parser("pure", __doc__)
    add = parser.add_argument
    add("--suite", required=True, help=f"of {', '.join(SUITES)}; commas between")
    add("--method", action="append", help="only this one; default: all of the suite")
    add("--seeds", type=int, default=3, help="number of seeds; default: %(default)s")
    add("--generations", type=int, help="default: those of the suite")
    add("--config", type=json.loads, default={}, help="JSON of settings to change")
    add("--validation", action="store_true", help="do not look at the test set")
    add("--tune", action="store_true", help="try the settings listed; no test set")
    add("--output", metavar="DIR", default=str(RESULTS), help="default: docs/results")
    flags = parser.parse_args(argv)
    flags.suite = split_names(parser, "suite", flags.suite, SUITES)
    require_positive(parser, flags, "seeds", "generations")
    if flags.generations and flags.generations % training.POINTS:
        parser.error(
            f"--generations: expected a multiple of {training.POINTS}, the points of "
            f"the curve. Received: {flags.generations}"
        )
    methods = {m: None for suite in flags.suite for m in SUITES[suite].methods}
    flags.validation = flags.validation or flags.tune
    for suite in flags.suite if flags.tune else []:
        if not SUITES[suite].tried:
            have = [name for name, other in SUITES.items() if other.tried]
            parser.error(f"--tune: expected a suite of {have}. Received: {suite!r}")
    for method in flags.method or []:
        split_names(parser, "method", method, methods)
    return flags


def run_suite(flags, suite):
    """Run what is not in the results yet, each in a process of its own."""
    chosen = SUITES[suite]
    split = "validation" if flags.validation else "test"
    path = output_path(flags)
    done = {key(row) for row in Results(path).rows()}
    # Not the seeds of the results.
    first = 1000 if flags.validation else 0
    for seed in range(first, first + flags.seeds):
        for method, config in settings(flags, suite):
            generations = config.pop("generations", chosen.generations)
            generations = flags.generations or generations
            run = {"suite": suite, "case": chosen.dataset, "method": method}
            run |= {"config": config, "seed": seed}
            run |= {"split": split, "steps": generations}
            if key(run) not in done:
                trials = [(method, config, seed)]
                in_subprocess(
                    training.run_all, suite, trials, split, generations, str(path)
                )


def settings(flags, suite):
    """Return the (method, config) that are wanted, in turn."""
    chosen = SUITES[suite]
    wanted = []
    for method, config in chosen.methods.items():
        if method in (flags.method or [method]):
            tried = chosen.tried[method] if flags.tune else [{}]
            wanted += [(method, {**config, **more, **flags.config}) for more in tried]
    return wanted


def output_path(flags):
    """Return the file of the results."""
    name = "pure-validation.jsonl" if flags.validation else "pure.jsonl"
    return Path(flags.output) / name


def main(argv=None):
    """Run, print the table of all that is known, draw the picture."""
    flags = parse(argv)
    for suite in flags.suite:
        run_suite(flags, suite)
    rows = Results(output_path(flags)).rows()
    order = list(SUITES)
    rows = sorted(rows, key=lambda row: (order.index(row["suite"]), row["seed"]))
    if flags.tune:
        print("\n".join(report.tuned(rows, flags.suite)))
    if not flags.validation:
        targets = {name: suite.target for name, suite in SUITES.items()}
        print("\n".join(report.table(rows, targets)))
        report.draw(rows, targets, Path(flags.output) / "pure.png")
    return 0


if __name__ == "__main__":
    sys.exit(stoppable("pure", main))
