"""Bits per sample of spoken digits: methods at equal steps, sizes at equal non-zeros.

Each run is one of train.py, in a process and a folder of its own: one that was stopped
goes on, and one that is finished is read from the results.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.accuracy.results import Results, mean_and_standard_error
from benchmarks.command import RESULTS, split_names

ROOT = Path(__file__).resolve().parents[2]

FILE = "speech.jsonl"

KEYS = (
    "suite", "method", "units", "sparsity", "seed", "epochs", "recordings", "frames",
    "batch",
)  # fmt: skip

FRAMES, BATCH, RATE = 4, 16, 0.002

METHODS = (
    "static", "gradual_magnitude", "rigl", "guided_es", "snes", "straight_through",
    "open_es",
)  # fmt: skip
"""In the order in which they are run."""

SPARSITIES = (0.95, 0.9)

SIZES = ((224, 0.0), (448, 0.75), (896, 0.94))
"""Units and sparsity of about as many non-zeros in R, O1 and O3: 3 n² + n² / 2."""

WHOLE = (448, 0.958)
"""As many in the whole network as 224 dense units, whose other layers grow with n too.

Of 896 units those other layers alone are more.
"""

MASKED = "guided_es"
"""The method of the sparse ones of `SIZES`."""


def add_flags(parser):
    """Add what these suites take to the flags of the command."""
    digits = Path(os.environ.get("KERAS_ES_DATA_DIR", "."), "free_spoken_digit")
    parser.add_argument("--dataset", default=str(digits / "recordings"))
    parser.add_argument("--recordings", type=int, default=20, help=(
        "of a digit and of a speaker, 5 of them for test; default: %(default)s"
    ))  # fmt: skip
    parser.add_argument("--epochs", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--methods", help=(
        f"of {', '.join(('none', *METHODS))}; none is dense; default: all"
    ))  # fmt: skip
    parser.add_argument("--sparsities", help="those of the runs; default: all")
    parser.add_argument("--most", type=int, help="runs in this call; default: all")
    parser.add_argument("--utterances", type=int, default=60, help=(
        "that each voice of sound says; default: %(default)s"
    ))  # fmt: skip
    parser.add_argument("--report", action="store_true", help="show, and run nothing")
    parser.add_argument("--work", default="runs/speech", help="default: %(default)s")


def check_flags(parser, flags):
    """Read the lists of flags, and end the program if a flag is wrong."""
    if flags.recordings <= 5:
        parser.error(
            "--recordings: expected more than the 5 for test. "
            f"Received: {flags.recordings}"
        )
    if flags.methods:
        known = ("none", *METHODS)
        flags.methods = split_names(parser, "methods", flags.methods, known)
    if flags.sparsities:
        own = {*SPARSITIES, *dict(SIZES).values(), WHOLE[1]}
        known = [f"{sparsity:g}" for sparsity in sorted(own)]
        found = split_names(parser, "sparsities", flags.sparsities, known)
        flags.sparsities = [float(name) for name in found]


def cases(suite, flags):
    """Return the runs of a suite, those first that say most."""
    return [
        case
        for case in _all_cases(suite, flags)
        if not flags.methods or case["method"] in flags.methods
        if not flags.sparsities or case["sparsity"] in flags.sparsities
    ]


def _all_cases(suite, flags):
    found = []
    for seed in range(flags.seeds):
        if suite == "sizes":
            for units, sparsity in (*SIZES, WHOLE):
                method = MASKED if sparsity else "none"
                found.append((method, units, sparsity, seed))
            continue
        found.append(("none", 224, 0.0, seed))
        for sparsity in SPARSITIES:
            found += [(method, 224, sparsity, seed) for method in METHODS]
    names = ("method", "units", "sparsity", "seed")
    settings = {
        "suite": suite, "epochs": flags.epochs, "recordings": flags.recordings,
        "frames": FRAMES, "batch": BATCH,
    }  # fmt: skip
    return [dict(zip(names, case, strict=True)) | settings for case in found]


def name_of(case):
    """Return the name of the folder of a run."""
    return "-".join(str(case[k]) for k in KEYS)


def method_name(case):
    """Return what the method of a run is called in tables."""
    return "dense" if case["method"] == "none" else case["method"]


def label(case):
    """Return what a run is called in pictures."""
    sparsity = "" if case["method"] == "none" else f" {case['sparsity']:.0%}"
    return method_name(case) + sparsity


def command(case, dataset, workdir):
    """Return the command line of a run."""
    flags = {
        "dataset": dataset, "model": "sparse_wavernn",
        "mask_optimizer": case["method"], "sparsity": case["sparsity"],
        "seed": case["seed"], "epochs": case["epochs"], "batch_size": case["batch"],
        "learning_rate": RATE, "workdir": workdir,
        "options": f"units={case['units']},frames={case['frames']}",
    }  # fmt: skip
    if case["method"] != "none":
        flags["block_shape"] = "16x1"
    script = str(ROOT / "train.py")
    return [sys.executable, script, *(f"--{k}={v}" for k, v in flags.items())]


def linked(dataset, folder, recordings):
    """Return a folder of links to the first recordings of each digit and speaker."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(dataset).resolve().glob("*.wav")):
        index = path.stem.rpartition("_")[2]
        own = folder / path.name
        if index.isdigit() and int(index) < recordings and not own.exists():
            own.symlink_to(path)
    return folder


def run(suite, flags):
    """Do the runs that are not in the results yet; return all rows of the suite.

    Args:
        suite: "bits" or "sizes".
        flags: Those of `add_flags`.
    """
    results = Results(RESULTS / FILE, KEYS)
    known = {tuple(row[k] for k in KEYS) for row in results.rows()}
    todo = [c for c in cases(suite, flags) if tuple(c[k] for k in KEYS) not in known]
    work = Path(flags.work).resolve()
    for case in [] if flags.report else todo[: flags.most]:
        data = linked(
            flags.dataset, work / f"digits-{flags.recordings}", flags.recordings
        )
        name = name_of(case)
        subprocess.run(
            command(case, data, work / name), check=True, cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        row = case | result(work / name / "summary.json")
        results.add(row)
        print(f"{name}: {row['bits']:.4f} bits ({row['seconds']:.0f} s)", flush=True)
    return [row for row in results.rows() if row["suite"] == suite]


def result(path):
    """Return what a finished run achieved."""
    summary = json.loads(path.read_text(encoding="utf-8"))
    return {
        "bits": summary["test_bits"],
        "steps": summary["steps"],
        "nonzeros": summary["nonzero_parameters"],
        "by_gate": {
            row["weight"]: round(row["sparsity"], 4) for row in summary["layers"]
        },
        "seconds": summary["train_seconds"],
        "steps_per_second": summary["steps_per_second"],
    }


def table(rows):
    """Return the lines of a table of rows, means over seeds."""
    groups = {}
    for row in rows:
        key = row["steps"], row["sparsity"], row["units"], row["method"]
        groups.setdefault(key, []).append(row)
    lines = [
        "| method | units | sparsity | non-zeros | steps | seeds | bits per sample |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for (steps, sparsity, units, _), group in sorted(groups.items()):
        mean, error = mean_and_standard_error([row["bits"] for row in group])
        cell = f"{mean:.3f}" + (f" ± {error:.3f}" if len(group) > 1 else "")
        lines.append(
            f"| {method_name(group[0])} | {units} | {100 * sparsity:.3g}% | "
            f"{group[0]['nonzeros']:,} | "
            f"{steps:,} | {len(group)} | {cell} |"
        )
    return "\n".join(lines)


SUITES = {name: functools.partial(run, name) for name in ("bits", "sizes")}
