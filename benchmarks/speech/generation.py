"""The suite `generation`: microseconds a sample, whole network, one core.

Weights are random: what a product costs hangs on where its zeros are alone. Cases take
turns in one process, bound to one core; times are of the processor, and medians over
rounds. The floor is what it takes to read the active weights once, at the rate at which
this core reads as many bytes in a loop.
"""

import os
import statistics
import time

import numpy as np

from benchmarks.timing import in_subprocess, interleaved, median_ratio

RATE, HOP, UNITS, MELS = 22_050, 276, 896, 80
VOICES = (1, 8)
CASES = ((0.0, False), (0.9, False), (0.95, False), (0.98, False), (0.95, True),
         (0.98, True))  # fmt: skip
"""(sparsity, whether O2 and O4 have it too)."""

GOALS = {(0.95, 1): 1.0, (0.98, 1): 3.0}
"""(sparsity, voices) -> times real time."""

GOAL_OF_8 = 3.0
"""Samples a second of eight voices over those of one."""

ONE_THREAD = {
    name: "1"
    for name in (
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    )
}


def run(flags):
    """Return the rows, measured in a process of one thread."""
    found = []
    for voices in VOICES:
        found += in_subprocess(measure, voices, flags.rounds, env=ONE_THREAD)[0]
    return found


def measure(voices, rounds, cases=CASES, units=UNITS, frames=20):
    """Return the rows of so many voices."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    mel = np.random.default_rng(0).normal(-5, 3, (voices, frames, MELS))
    made = {case: generator(*case, voices, units) for case in map(tuple, cases)}
    speaking = {case: _speaking(g, mel) for case, g in made.items()}
    seconds = interleaved(speaking, rounds, warmup=2)
    dense = next(iter(made))
    count = frames * HOP * voices
    rows = []
    for case, own in seconds.items():
        microseconds = statistics.median(own) / count * 1e6
        active = active_bytes(made[case].program)
        rows.append({
            "sparsity": case[0], "outputs": case[1], "voices": voices,
            "microseconds": microseconds,
            "real_time": 1e6 / RATE / microseconds,
            "fastest": min(own) / count * 1e6,
            "over_dense": 1 / median_ratio(seconds, case, dense),
            "bytes": active,
            "floor": read_seconds(active) / voices * 1e6,
            "in_blocks": made[case].in_blocks,
        })  # fmt: skip
    return rows


def generator(sparsity, outputs, voices, units=UNITS):
    """Return a generator of a network with random masks in blocks of 16 x 1.

    Args:
        sparsity: Of R, O1 and O3.
        outputs: Whether O2 and O4 have it too.
        voices: Utterances that are spoken at once.
        units: Hidden units.
    """
    import keras

    import keras_es
    from models.sparse_wavernn import DENSE_LAYERS, Generator, SparseWaveRNN

    keras.utils.set_random_seed(0)
    model = SparseWaveRNN(units, HOP, MELS)
    if sparsity:
        block = keras_es.patterns.Block(16, 1)
        dense = [name for name in DENSE_LAYERS if not outputs or "O" not in name]
        model = keras_es.sparsify(model, sparsity, pattern=block, exclude=dense)
    return Generator(model, voices)


def _speaking(generator, mel):
    def speak():
        # Time of the processor: one core speaks, and what else it does is not speech.
        start = time.process_time()
        generator(mel)
        return time.process_time() - start

    return speak


def active_bytes(program):
    """Return the bytes of the weights that a sample needs, indices among them."""
    return sum(
        int(np.prod(v.shape)) * v.dtype.size
        for product in program.products.values()
        for v in product.variables
    )


def read_seconds(size):
    """Return what it takes to read so many bytes once, in a loop."""
    numbers = np.ones(size // 4, "float32")
    seconds = []
    for _ in range(50):
        start = time.process_time()
        np.dot(numbers, numbers)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def table(rows):
    """Return the rows as text."""
    lines = [
        f"{'sparsity':>8} {'O2, O4':>6} {'voices':>6} {'us/sample':>10} {'fastest':>8} "
        f"{'x real time':>11} {'x dense':>8} {'floor us':>9}"
    ]
    for row in rows:
        goal = None if row["outputs"] else GOALS.get((row["sparsity"], row["voices"]))
        lines.append(
            f"{row['sparsity']:8.0%} {'sparse' if row['outputs'] else 'dense':>6} "
            f"{row['voices']:6d} {row['microseconds']:10.1f} {row['fastest']:8.1f} "
            f"{row['real_time']:11.2f} {row['over_dense']:8.2f} {row['floor']:9.1f}"
            + ("" if goal is None else f"  goal {goal:g}")
        )
    single = {_case(r): r["microseconds"] for r in rows if r["voices"] == 1}
    for row in rows:
        if row["voices"] > 1 and _case(row) in single:
            more = single[_case(row)] / row["microseconds"]
            lines.append(
                f"{row['sparsity']:8.0%}: {more:.2f} times the samples a second with "
                f"{row['voices']} voices  goal {GOAL_OF_8:g}"
            )
    return "\n".join(lines)


def _case(row):
    return row["sparsity"], row["outputs"]
