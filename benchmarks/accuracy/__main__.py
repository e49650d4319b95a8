"""Accuracy of every method on equal steps, batch, optimizer and allocation.

    python -m benchmarks.accuracy --suite=digits
    python -m benchmarks.accuracy --suite=mnist-lenet,mnist-lenet-coarse --tune

Runs that are in the results already are skipped, so a comparison that was stopped goes
on. With --tune each method is tried in nine configurations on a validation split of the
training set, and the best of each is written down as its default for all suites. Then
the test set is looked at, once for each run. --report shows the runs that are there.
With --picture all suites are one table and one picture.
"""

import json
import sys
from pathlib import Path

from benchmarks.accuracy import methods, report, training
from benchmarks.accuracy.results import Results, key
from benchmarks.accuracy.suites import SUITES
from benchmarks.command import (
    RESULTS,
    make_parser,
    require_positive,
    split_names,
    stoppable,
)
from benchmarks.timing import in_subprocess


def parse(argv):
    """Return the flags of a command line."""
    parser = make_parser("accuracy", __doc__)
    add = parser.add_argument
    add("--suite", required=True, help=f"of {', '.join(SUITES)}; commas between")
    variants = ", ".join(methods.VARIANTS)
    note = f"default: %(default)s; also {variants}"
    add("--methods", default=",".join(methods.METHODS), help=note)
    add("--sparsity", help="only these, like 0.9,0.95; default: all of the suite")
    add("--seeds", type=int, help="number of seeds; default: that of the suite")
    add("--steps", type=int, help="training steps; default: those of the suite")
    add("--tune", action="store_true", help="search on a validation split")
    add("--report", action="store_true", help="train nothing, show what is there")
    add("--picture", metavar="NAME", help="of one picture of all; default: one a suite")
    add("--output", metavar="DIR", default=str(RESULTS), help="default: docs/results")
    add(
        "--config",
        default=str(methods.CHOSEN),
        help="file of configurations, read by runs, written by --tune; default: "
        "%(default)s",
    )
    flags = parser.parse_args(argv)
    flags.suite = split_names(parser, "suite", flags.suite, SUITES)
    flags.methods = split_names(parser, "methods", flags.methods, methods.NAMES)
    try:
        flags.sparsity = flags.sparsity and [*map(float, flags.sparsity.split(","))]
    except ValueError:
        parser.error(
            f"--sparsity: expected numbers with commas between. "
            f"Received: {flags.sparsity!r}"
        )
    require_positive(parser, flags, "seeds", "steps")
    return flags


def trials(flags, suite):
    """Yield (index of the case, list of (method, config, seed)) of a suite."""
    chosen, dense_done = SUITES[suite], False
    for index, case in enumerate(chosen.cases):
        if flags.tune and index not in chosen.tuned_on:
            continue
        if flags.sparsity and case.sparsity not in flags.sparsity:
            continue
        found = []
        for method in flags.methods:
            # A dense network is the same in all cases.
            if method == "dense" and dense_done:
                continue
            found += _trials_of(flags, method, chosen.seeds)
        dense_done = True
        yield index, found


def _trials_of(flags, method, seeds):
    if flags.tune:
        # Not the seeds of the comparison.
        first, seeds, configs = 1000, flags.seeds or 1, methods.grid(method)
    else:
        first, seeds = 0, flags.seeds or seeds
        configs = [methods.configuration(method, flags.config)]
    return [(method, c, first + s) for c in configs for s in range(seeds)]


def run_suite(flags, suite):
    """Train what is not in the results yet; return all rows of this call, old and new.

    One process for each method in each case.
    """
    split = "validation" if flags.tune else "test"
    path = Path(flags.output) / f"accuracy-{suite}.jsonl"
    steps = flags.steps or SUITES[suite].steps
    wanted = []
    for index, found in trials(flags, suite):
        done = {key(row) for row in Results(path).rows()}
        for method in dict.fromkeys(m for m, _, _ in found):
            case = SUITES[suite].cases[index]
            mine = [trial for trial in found if trial[0] == method]
            keys = [_key(suite, case, trial, split, steps) for trial in mine]
            wanted += keys
            todo = [trial for trial, k in zip(mine, keys) if k not in done]
            if todo and not flags.report:
                in_subprocess(
                    training.run_all, suite, index, todo, split, steps, str(path)
                )
    rows = {key(row): row for row in Results(path).rows()}
    return [rows[k] for k in wanted if k in rows]


def _key(suite, case, trial, split, steps):
    method, config, seed = trial
    name = "dense" if method == "dense" else case.name
    run = {"suite": suite, "case": name, "method": method, "config": config}
    return key({**run, "seed": seed, "split": split, "steps": steps})


def write_chosen(rows, path):
    """Write the best configuration of each method; others stay."""
    path = Path(path)
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    text = json.dumps({**old, **methods.best(rows)}, indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def show(flags, rows, title, picture):
    """Print the tables of some rows, and draw their picture, if there are any."""
    if not rows:
        return
    print(f"\n{title}: test accuracy in percent\n")
    print("\n".join([*report.table(rows), "", *report.ahead(rows, flags.methods[0])]))
    report.draw(rows, f"{title}: {rows[0]['steps']:,} steps", picture)
    print(f"\nWrote {picture}")


def main(argv=None):
    """Run, print the tables, draw the pictures."""
    flags = parse(argv)
    every = []
    for suite in flags.suite:
        rows = run_suite(flags, suite)
        every += rows
        if not (flags.tune or flags.picture):
            show(flags, rows, suite, Path(flags.output) / f"accuracy-{suite}.png")
    if flags.picture and not flags.tune:
        path = Path(flags.output) / f"accuracy-{flags.picture}.png"
        show(flags, every, ", ".join(flags.suite), path)
    if flags.tune and every:
        write_chosen(every, flags.config)
        print(Path(flags.config).read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(stoppable("accuracy", main))
