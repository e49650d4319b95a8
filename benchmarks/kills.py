"""Kill a training run at random moments, and see that it ends in the same bits.

    python -m benchmarks.kills --kills=20

A run of train.py under `--strategy=mirrored` on two virtual devices is killed (SIGKILL)
or stopped (SIGTERM) again and again, and started again each time. After each stop the
newest whole checkpoint is compared, bit by bit, with that of an undisturbed run at the
same step. Results go to docs/results/kills.json.
"""

import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np

from benchmarks.command import RESULTS, make_parser, stoppable
from keras_es.runs import checkpoints

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = RESULTS / "kills.json"
TRAIN = (
    "--strategy=mirrored", "--virtual_devices=2", "--batch_size=128",
    "--sparsity=0.75", "--jit_compile=false",
)  # fmt: skip
KEEP_ALL = """
import sys
sys.path.insert(0, {root!r})
from keras_es import callbacks
callbacks.AtomicCheckpoint.__init__.__defaults__ = (10**6, None, None)
import train
sys.exit(train.main(["train.py", *sys.argv[1:]]))
"""


def parse(argv):
    """Return the flags of a command line."""
    parser = make_parser("kills", __doc__)
    parser.add_argument("--kills", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", default=str(OUTPUT), help="default: %(default)s")
    return parser.parse_args(argv)


def start(script, workdir, epochs):
    """Start a run in the background."""
    return subprocess.Popen(
        [sys.executable, *script, *TRAIN, f"--epochs={epochs}", f"--workdir={workdir}"],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Wait for a run that nobody stops."""
    _, errors = process.communicate(timeout=3600)
    if process.returncode:
        raise RuntimeError(errors[-2000:])


def arrays(path):
    """Return all arrays of a model file by name: weights, optimizer, noise."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item)

    with zipfile.ZipFile(path) as archive:
        content = archive.read("model.weights.h5")
    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(visit)
    return found


def same_bits(path, reference):
    """Tell whether two model files hold the same arrays, bit by bit."""
    ours, theirs = arrays(path), arrays(reference)
    return ours.keys() == theirs.keys() and all(
        ours[name].tobytes() == theirs[name].tobytes() for name in ours
    )


def stop_at_random(rng, workdir, epochs):
    """Start the run, stop it after a random time; say how and when."""
    process = start([str(ROOT / "train.py")], workdir, epochs)
    delay, signum = rng.uniform(1.0, 30.0), rng.choice([signal.SIGKILL, signal.SIGTERM])
    began = time.monotonic()
    try:
        process.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signum)
        process.communicate(timeout=3600)
    return {
        "signal": signum.name,
        "seconds": round(time.monotonic() - began, 2),
        "exit_code": process.returncode,
    }


def judge(workdir, reference):
    """Say at which step the newest whole checkpoint is and whether it is exact."""
    path, progress, damaged = checkpoints.latest(workdir / "checkpoints")
    if path is None:
        return {"step": 0, "exact": True, "incomplete": damaged}
    twin = reference / "checkpoints" / path.name
    # SIGTERM stops within an epoch, where the undisturbed run saves nothing: such a
    # step is judged by the epochs that follow from it.
    exact = same_bits(path, twin) if twin.exists() else None
    return {"step": progress.step, "exact": exact, "incomplete": damaged}


def run(flags):
    """Return the rows: one for each stop, and one for the end of each run."""
    rows, rng = [], random.Random(flags.seed)
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder, "reference")
        keep_all = ["-c", KEEP_ALL.format(root=str(ROOT))]
        finish(start(keep_all, reference, flags.epochs))
        stops = number = 0
        while stops < flags.kills or not rows[-1].get("end"):
            workdir = Path(folder, f"run{number}")
            if (workdir / "summary.json").exists() or stops == flags.kills:
                finish(start([str(ROOT / "train.py")], workdir, flags.epochs))
                rows.append({"end": True, **judge(workdir, reference)})
                number += 1
            else:
                row = stop_at_random(rng, workdir, flags.epochs)
                if row["exit_code"]:
                    stops += 1
                    rows.append(row | judge(workdir, reference))
            print(rows[-1] if rows else "", flush=True)
    return rows


def main(argv=None):
    """Run, write the JSON, and return 0 if all were exact."""
    flags = parse(argv)
    output = Path(flags.output)
    output.parent.mkdir(parents=True, exist_ok=True)  # before an hour of work
    rows = run(flags)
    stops = [row for row in rows if not row.get("end")]
    ends = [row for row in rows if row.get("end")]
    inexact = [row for row in rows if row["exact"] is False]
    summary = {
        "command": " ".join(("train.py", *TRAIN, f"--epochs={flags.epochs}")),
        "stops": len(stops),
        "runs_ended": len(ends),
        "all_exact": not inexact and all(row["exact"] for row in ends),
        "rows": rows,
    }
    output.write_text(json.dumps(summary, indent=1) + "\n")
    print(f"{len(stops)} stops, {len(ends)} runs ended, {len(inexact)} not exact")
    return 0 if summary["all_exact"] else 1


if __name__ == "__main__":
    sys.exit(stoppable("kills", main))
