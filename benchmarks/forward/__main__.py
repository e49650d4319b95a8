"""Training without backpropagation, on real data, on test functions, and its memory.

    python -m benchmarks.forward --suite=mlp,conv --seeds=3
    python -m benchmarks.forward --memory --paths --speed
    python -m benchmarks.forward --limit=600 --depths=16

Results are added to docs/results/forward.jsonl (runs) and forward.json (the rest);
what is there already is skipped. --tune tries the rates of a suite for each method,
and further ones as long as the best is the largest or the smallest, on held-out
training examples, writes to forward-validation.jsonl and prints the best first: runs of
as many steps then have the best, others that of the suite.
"""

import json
import math
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
from benchmarks.forward import memory, paths, report, speed, training
from benchmarks.forward.suites import SUITES
from benchmarks.timing import in_subprocess

DEPTHS = (4, 16, 64, 256)
METHODS = ("forward", "backward", "recomputed")

FURTHER_RATES = 3
"""How many rates `--tune` adds, at most, while the best is the largest or smallest."""


def parse(argv):
    """Return the flags of a command line."""
    parser = make_parser("forward", __doc__)
    add = parser.add_argument
    add("--suite", help=f"of {', '.join(SUITES)}; commas between")
    add("--method", action="append", help="only this one; default: all of the suite")
    add("--seeds", type=int, default=3, help="number of seeds; default: %(default)s")
    add("--steps", type=int, help="default: those of the suite")
    add("--tune", action="store_true", help="try the rates listed; no test set")
    add("--memory", action="store_true", help="peak memory against depth")
    add("--limit", type=int, metavar="MIB", help="which methods train in so much: "
        "each in a process that is ended when it has taken more besides its libraries "
        "and its data")  # fmt: skip
    add("--depths", help=f"layers of these two; default: {','.join(map(str, DEPTHS))}")
    add("--speed", action="store_true", help="processor time of a step")
    add("--paths", action="store_true", help="Beale's and Rosenbrock's functions")
    add("--output", metavar="DIR", default=str(RESULTS), help="default: docs/results")
    flags = parser.parse_args(argv)
    flags.suite = (
        split_names(parser, "suite", flags.suite, SUITES) if flags.suite else []
    )
    require_positive(parser, flags, "seeds", "steps", "limit")
    if flags.steps and flags.steps % training.POINTS:
        parser.error(
            f"--steps: expected a multiple of {training.POINTS}, the points of the "
            f"curve. Received: {flags.steps}"
        )
    known = {m: None for suite in flags.suite for m in SUITES[suite].methods}
    known |= dict.fromkeys(METHODS)
    for method in flags.method or []:
        split_names(parser, "method", method, known)
    depths = (flags.depths or ",".join(map(str, DEPTHS))).split(",")
    if not all(depth.isdigit() and int(depth) for depth in depths):
        parser.error(f"--depths: expected numbers of layers. Received: {flags.depths}")
    flags.depths = [int(depth) for depth in depths]
    for depth in flags.depths if flags.limit else []:
        least = memory.least_limit(depth)
        if flags.limit < least:
            parser.error(
                f"--limit: expected at least {least:,} MiB for {depth} layers (--depths"
                "), which their weights and the outputs of two take. "
                f"Received: {flags.limit}"
            )
    return flags


def run_suite(flags, suite):
    """Run what is not in the results yet, each method in a process of its own."""
    chosen, steps = SUITES[suite], flags.steps or SUITES[suite].steps
    best = report.best_rates(Results(runs_path(flags, tune=True)).rows())
    for method, config in chosen.methods.items():
        if method not in (flags.method or [method]):
            continue
        if flags.tune:
            tune(flags, suite, method, config, steps)
        else:
            rate = best.get((suite, method, steps), config["rate"])
            run_missing(flags, suite, method, [{**config, "rate": rate}], steps)


def tune(flags, suite, method, config, steps):
    """Try the rates of a suite, and further ones while the best is at an end."""
    group, rates = (suite, method, steps), SUITES[suite].rates
    most = len(rates) + FURTHER_RATES
    while True:
        tried = [{**config, "rate": rate} for rate in rates]
        run_missing(flags, suite, method, tried, steps)
        known = report.rates(Results(runs_path(flags)).rows()).get(group)
        if not known or len(known) >= most:
            break
        best = max(known, key=known.get)
        if best not in (min(known), max(known)):
            break
        rates = [next_rate(best, 1 if best == max(known) else -1)]


def next_rate(rate, direction):
    """Return the next of ..., 0.1, 0.3, 1, 3, ... above (1) or below (-1) a rate."""
    place = round(2 * math.log10(rate)) + direction
    return float(f"{(1, 3)[place % 2]}e{place // 2}")


def run_missing(flags, suite, method, configs, steps):
    """Run a method with configs, for each seed, where that is not in the results."""
    split = "validation" if flags.tune else "test"
    done = {key(row) for row in Results(runs_path(flags)).rows()}
    first = 1000 if flags.tune else 0  # Not the seeds of the results.
    trials = []
    for seed in range(first, first + flags.seeds):
        for config in configs:
            run = {"suite": suite, "case": "mnist", "method": method}
            run |= {"config": config, "seed": seed, "split": split, "steps": steps}
            trials += [] if key(run) in done else [(config, seed)]
    if trials:
        in_subprocess(
            training.run_all, suite, method, trials, split, steps,
            str(runs_path(flags)),
        )  # fmt: skip


def runs_path(flags, tune=None):
    """Return the file of the runs, or of those that `tune` rates."""
    tune = flags.tune if tune is None else tune
    name = "forward-validation.jsonl" if tune else "forward.jsonl"
    return Path(flags.output) / name


def measure(flags):
    """Measure memory and paths that are not known yet, and return all that is."""
    path = Path(flags.output) / "forward.json"
    known = json.loads(path.read_text()) if path.exists() else {}

    def once(name, function, *args, env=None):
        if name not in known:
            known[name] = in_subprocess(function, *args, env=env)[0]
            path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            print(f"{name}: {str(known[name])[:100]}", flush=True)

    for depth in flags.depths if flags.memory else []:
        for method in flags.method or METHODS:
            name = f"memory, {method}, {depth}"
            once(name, memory.step, depth, method, env=memory.ENVIRONMENT)
    for depth in flags.depths if flags.limit else []:
        for method in flags.method or METHODS:
            name = f"limit {flags.limit}, {method}, {depth}"
            once(name, memory.fits, depth, method, flags.limit)
    if flags.speed:
        once("speed", speed.measure)
    for name in paths.FUNCTIONS if flags.paths else []:
        for kind in paths.KINDS:
            once(f"path, {name}, {kind}", paths.run, name, kind)
    return known


def main(argv=None):
    """Run, print the tables of all that is known, draw the pictures."""
    flags = parse(argv)
    for suite in flags.suite:
        run_suite(flags, suite)
    rows, known = Results(runs_path(flags)).rows(), measure(flags)
    if flags.tune:
        print("\n".join(report.tuned(rows)))
        return 0
    print("\n".join([*report.table(rows), "", *report.measured(known)]))
    report.draw(rows, known, Path(flags.output))
    return 0


if __name__ == "__main__":
    sys.exit(stoppable("forward", main))
