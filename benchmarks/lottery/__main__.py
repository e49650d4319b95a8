"""Lottery tickets found by evolution and by gradients, and what is claimed of them.

    python -m benchmarks.lottery --suite=mlp --seeds=3
    python -m benchmarks.lottery --suite=mlp --kind=es --score=snr,random --seeds=1

Tickets of every score go down round by round, side by side; then come controls,
transfers, and the optima. Rows are added to docs/results/lottery.jsonl, one for each
(case, round); what is there already is skipped. Tickets and checkpoints are kept in
--work, so that a stop in the midst of a fit loses nothing. --report only prints the
tables and draws the pictures.
"""

import sys
from pathlib import Path

from benchmarks.command import (
    RESULTS,
    make_parser,
    require_positive,
    split_names,
    stoppable,
)
from benchmarks.lottery import report
from benchmarks.lottery.suites import DATASETS, KEEP, NAMES, ROUNDS, SCORES, SUITES
from benchmarks.lottery.training import Lines, Study

PARTS = ("find", "controls", "transfers", "optima")


def parse(argv):
    """Return the flags of a command line."""
    parser = make_parser("lottery", __doc__)
    add = parser.add_argument
    add("--suite", default="mlp", help=f"of {', '.join(SUITES)}; commas between")
    add("--dataset", help="only these; default: all of the suite")
    add("--kind", help="only these: es, gradient; default: all. Not of transfers")
    add("--score", help="only these; default: all of the suite")
    add("--part", help=f"only these: {', '.join(PARTS)}; default: all")
    add("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    add("--keep", type=float, default=KEEP, help="default: %(default)s")
    add("--at", help="rounds of controls, commas between; default: all")
    add("--generations", type=int, help="steps of a fit; default: the suite's")
    add("--seeds", type=int, default=3, help="number of seeds; default: %(default)s")
    add("--report", action="store_true", help="run nothing")
    add("--work", metavar="DIR", default="lottery-work", help="default: %(default)s")
    add("--output", metavar="DIR", default=str(RESULTS), help="default: docs/results")
    flags = parser.parse_args(argv)
    if not 0 < flags.keep < 1:
        parser.error(
            f"--keep: expected a share between 0 and 1. Received: {flags.keep}"
        )
    require_positive(parser, flags, "rounds", "generations", "seeds")
    at = (flags.at or "1").split(",")
    if not all(r.isdecimal() and int(r) for r in at):
        parser.error(f"--at: expected rounds from 1 on. Received: {flags.at}")
    flags.at = [int(r) for r in at] if flags.at else None
    known = {
        "suite": SUITES, "dataset": dict.fromkeys(DATASETS),
        "kind": dict.fromkeys(SCORES), "score": dict.fromkeys(NAMES),
        "part": dict.fromkeys(PARTS),
    }  # fmt: skip
    for name, values in known.items():
        given = getattr(flags, name)
        if given is not None:
            setattr(flags, name, split_names(parser, name, given, values))
    flags.part = flags.part or list(PARTS)
    chosen = studies(flags)
    if not chosen:
        parser.error(
            f"--dataset: expected one of a suite, {_datasets(flags.suite)}. "
            f"Received: {','.join(flags.dataset)}"
        )
    if flags.part == ["find"] and not any(cases(s, flags) for s in chosen):
        kinds = {kind: list(of) for kind, of in SCORES.items()}
        parser.error(
            f"--score: expected one of the kind in --kind: {kinds}. "
            f"Received: --score={','.join(flags.score)}"
        )
    if flags.report and not (Path(flags.output) / "lottery.jsonl").exists():
        parser.error(
            "--output: expected a folder with the lottery.jsonl of earlier runs, for "
            f"--report runs nothing. Received: {flags.output}"
        )
    return flags


def _datasets(suites):
    return {name: list(SUITES[name].datasets) for name in suites}


def cases(study, flags):
    """Return the (kind, score) of a study that flags ask for."""
    return [
        (kind, score)
        for kind, scores in study.suite.scores.items()
        if kind in (flags.kind or [kind])
        for score in scores
        if score in (flags.score or [score])
    ]


def studies(flags):
    """Return the studies that flags ask for, seed by seed."""
    return [
        Study(name, dataset, seed, flags)
        for name in flags.suite
        for seed in range(flags.seeds)
        for dataset in SUITES[name].datasets
        if dataset in (flags.dataset or [dataset])
    ]


def run(flags):
    """Do what is not in the results yet."""
    chosen = studies(flags)
    for study in chosen if "find" in flags.part else []:
        # Side by side: a part of the study then has all scores at some rounds.
        for upto in range(1, flags.rounds + 1):
            for kind, score in cases(study, flags):
                if score != "final" or upto == flags.rounds:
                    study.find(kind, score, upto)
    for study in chosen:
        for kind in study.suite.scores if "controls" in flags.part else ():
            if kind in (flags.kind or [kind]):
                study.controls(kind, flags.rounds)
        if "transfers" in flags.part:
            study.transfers(flags.rounds)
        if "optima" in flags.part:
            study.optima(flags.rounds)


def main(argv=None):
    """Run, print the tables of all that is known, draw the pictures."""
    flags = parse(argv)
    if not flags.report:
        try:
            run(flags)
        except Exception as stopped:
            if not hasattr(stopped, "exit_code"):
                raise
            went_on = "; the same command goes on from there"
            print(f"{stopped}{went_on if hasattr(stopped, 'signum') else ''}")
            return stopped.exit_code
    rows = Lines(Path(flags.output) / "lottery.jsonl").rows()
    print("\n".join(report.tables(rows)))
    report.draw(rows, Path(flags.output))
    return 0


if __name__ == "__main__":
    sys.exit(stoppable("lottery", main))
