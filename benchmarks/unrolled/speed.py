"""Windows per second of `lorenz` beside plain JAX; growth in particles and horizon."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.unrolled import lorenz
from benchmarks.unrolled import report as tables

SEEDS = 1
ROUNDS, WINDOWS, GROWTH_WINDOWS, TOGETHER = 7, 2000, 500, 100
PARTICLES = (50, 100, 200, 400, 800, 1600)
HORIZONS = (100, 1000, 10_000, 100_000, 1_000_000)
CASES = (
    "beside JAX",
    *(f"{n} particles" for n in PARTICLES),
    *(f"horizon {t}" for t in HORIZONS),
)


def make_model(particles=200, horizon=lorenz.T, kind="NRES", burn_in=None):
    """Return a compiled model of `TOGETHER` updates in one call."""
    import keras

    from keras_es import unrolled

    model = unrolled.UnrolledModel(lorenz.make_task(horizon))
    estimator = getattr(unrolled, kind)(
        keras.optimizers.SGD(1e-5), particles=particles, unroll_length=lorenz.W,
        sigma=lorenz.SIGMA, burn_in=burn_in,
    )  # fmt: skip
    model.compile(estimator, steps_per_execution=TOGETHER)
    return model


def timed(model, windows=WINDOWS):
    """Return the (wall, CPU) seconds of `fit`."""
    begin = time.perf_counter(), time.process_time()
    model.fit(steps_per_epoch=windows, verbose=0)
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


def run(case, seed):
    """Measure and return the row."""
    if case == "beside JAX":
        return beside_jax()
    x = int(case.replace("horizon", "").replace("particles", ""))
    if "horizon" in case:
        # Without a burn-in, which takes as long as an episode.
        model = make_model(horizon=x, burn_in=False)
    else:
        model = make_model(particles=x)
    timed(model, TOGETHER)
    rounds = [timed(model, GROWTH_WINDOWS) for _ in range(ROUNDS)]
    return {
        "x": x,
        "seconds": statistics.median(s for s, _ in rounds) / GROWTH_WINDOWS,
        "cpu_seconds": statistics.median(s for _, s in rounds) / GROWTH_WINDOWS,
        "least_seconds": min(s for s, _ in rounds) / GROWTH_WINDOWS,
        "state_bytes": sum(np.asarray(v.value).nbytes for v in model.particles.weights),
    }


def beside_jax():
    """Time both sides in turn."""
    model = make_model()
    script = Path(__file__).with_name("jax_lorenz.py")
    python = os.environ.get("KERAS_ES_JAX", sys.executable)
    ours, theirs = [], []
    with subprocess.Popen(
        [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as peer:

        def ask(windows):
            print(windows, file=peer.stdin, flush=True)
            return tuple(map(float, peer.stdout.readline().split()))

        timed(model, TOGETHER), ask(TOGETHER)
        for turn in range(ROUNDS):
            sides = [(ours, lambda: timed(model)), (theirs, lambda: ask(WINDOWS))]
            for rows, measure in sides[:: 1 if turn % 2 else -1]:
                rows.append(measure())
        peer.stdin.close()
    return {
        "windows_per_second": WINDOWS / statistics.median(s for s, _ in ours),
        "of_jax": WINDOWS / statistics.median(s for s, _ in theirs),
        "ratio": statistics.median(b[0] / a[0] for a, b in zip(ours, theirs)),
        "cpu_ratio": statistics.median(b[1] / a[1] for a, b in zip(ours, theirs)),
        "ours": ours,
        "theirs": theirs,
    }


def report(rows, path):
    """Draw the growth and return the lines of the tables."""
    lines = []
    for row in rows:
        if "ratio" in row:
            lines += [
                f"{row['windows_per_second']:.0f} windows per second, plain JAX "
                f"{row['of_jax']:.0f}: ratio {row['ratio']:.2f} (of CPU time "
                f"{row['cpu_ratio']:.2f}); target >= 1.0",
                "",
            ]
    lines += [
        "| | ms a window | CPU ms | state of the particles, KiB | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    by_case = tables.by_case(rows, CASES[1:])
    for case, (r, *_) in by_case.items():
        lines.append(
            f"| {case} | {1e3 * r['seconds']:.2f} | {1e3 * r['cpu_seconds']:.2f} | "
            f"{r['state_bytes'] / 1024:.1f} | {r['peak_mib']} |"
        )
    figure, panels = tables.make_figure(2)
    for axes, word in zip(panels, ("particles", "horizon")):
        mine = [m[0] for c, m in by_case.items() if word in c]
        if not mine:
            continue
        x = [r["x"] for r in mine]
        axes.plot(
            x, [1e3 * r["cpu_seconds"] for r in mine], "o-", label="CPU ms a window"
        )
        axes.plot(x, [r["peak_mib"] for r in mine], "s--", label="peak memory, MiB")
        axes.set(xscale="log", yscale="log", xlabel=word)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    return lines
