"""How time and memory of a step grow with the population and with the weights.

Each point is a process of its own, for its peak memory: a step of `fit` of hybrid ES
(`SNES`, all members in each step, masks by blocks and by single weights), and a
generation of pure ES. A row compares the growth of a quantity with that of what it
depends on: 1 is linear, less is better. Growth with devices: `benchmarks.scaling`.
"""

import statistics
import time

from benchmarks.timing import Row, in_subprocess, own_peak

SUITE = "growth"
POPULATIONS = (2, 8, 32, 128, 256)
WEIGHTS = (10**4, 10**5, 10**6, 10**7, 10**8)
KINDS = ("hybrid, 8x8 blocks", "hybrid, single weights", "pure")
# Each curve varies one of the two and holds the other.
FIXED_POPULATION, FIXED_WEIGHTS = 8, 10**6
BATCH, ROUNDS = 64, 5


def run(quick=False):
    """Return the rows."""
    populations = POPULATIONS[:2] if quick else POPULATIONS
    weights = WEIGHTS[:2] if quick else WEIGHTS
    kinds = KINDS[2:] if quick else KINDS
    points = []
    for kind in kinds:
        points += [_point(kind, "population", n) for n in populations]
        points += [_point(kind, "weights", n) for n in weights]
    return _curves(points) + _growth(points)


def _point(kind, against, number):
    """Measure one point in a process of its own."""
    population = number if against == "population" else FIXED_POPULATION
    weights = number if against == "weights" else FIXED_WEIGHTS
    seconds, _ = in_subprocess(measure, kind, population, weights)
    print(f"growth: {kind}, {against} {number:,}: {seconds}", flush=True)
    return {"kind": kind, "against": against, "x": number, **seconds}


def measure(kind, population, weights):
    """Return seconds of a step (or generation) and the peak of memory in bytes."""
    width = round(weights**0.5 / 8) * 8
    step = (
        _pure(population, width) if kind == "pure" else _hybrid(kind, population, width)
    )
    step()
    # A generation of the largest takes ten seconds.
    times = []
    while len(times) < ROUNDS and sum(times) < 60.0:
        start = time.perf_counter()
        count = step()
        times.append((time.perf_counter() - start) / count)
    return {
        "seconds": statistics.median(times),
        "peak": own_peak(),
    }


def _network(width):
    import keras

    return keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.Dense(width, activation="relu", name="wide"),
            keras.layers.Dense(10, name="logits"),
        ]
    )


def _examples(width):
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.random((BATCH, width), dtype="float32")
    return x, rng.integers(0, 10, BATCH)


def _hybrid(kind, population, width):
    """Return a function that takes steps of `fit` and returns how many."""
    import keras
    import tensorflow as tf

    import keras_es
    from keras_es.optimizers import SNES, Turns

    blocks = "blocks" in kind
    model = keras_es.sparsify(
        _network(width),
        0.95,
        pattern=keras_es.patterns.Block(8, 8) if blocks else None,
        exclude=["logits"],
    )
    optimizer = SNES("sgd", population, turns=Turns(population, 1))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=True)
    batches = tf.data.Dataset.from_tensors(_examples(width)).repeat()

    def steps():
        model.fit(batches, steps_per_epoch=2, verbose=0)
        return 2

    return steps


def _pure(population, width):
    """Return a function that runs a generation and returns 1."""
    import keras

    from benchmarks.population import generations

    run_one = generations(
        _network(width), _examples(width), keras.optimizers.SGD(1e-4), population
    )

    def step():
        run_one()
        return 1

    return step


def _curves(points):
    rows = []
    for quantity, unit, scale in (("seconds", "ms", 1e3), ("peak", "MiB", 2.0**-20)):
        name = {"seconds": "time", "peak": "peak memory of the process"}[quantity]
        rows += [
            Row(
                SUITE,
                f"{p['kind']}, {name} at {p['against']} {p['x']:,}",
                p[quantity] * scale,
                unit,
                detail={
                    "curve": f"{name} against {p['against']}: {p['kind']}",
                    "x": p["x"],
                },
            )
            for p in points
        ]
    return rows


def _growth(points):
    """Return rows of growth from the middle of each curve to its end."""
    rows = []
    for kind, against in dict.fromkeys((p["kind"], p["against"]) for p in points):
        curve = [p for p in points if (p["kind"], p["against"]) == (kind, against)]
        # Where what is done in any case no longer hides the growth.
        first, last = curve[len(curve) // 2 if len(curve) > 2 else 0], curve[-1]
        times = last["x"] / first["x"]
        for quantity in ("seconds", "peak"):
            growth = last[quantity] / first[quantity]
            name = "time" if quantity == "seconds" else "peak memory"
            rows.append(
                Row(
                    SUITE,
                    f"{kind}: growth of {name}, {against} "
                    f"{first['x']:,} to {last['x']:,} (times {times:g})",
                    growth,
                    "times",
                    ratio=growth / times,
                    target="<= 1",
                )
            )
        if against == "population":
            extra = last["peak"] - first["peak"]
            rows.append(
                Row(
                    SUITE,
                    f"{kind}: memory of {last['x'] - first['x']} more members over "
                    "their noise",
                    extra / 2**20,
                    "MiB",
                    ratio=extra / (4 * FIXED_WEIGHTS * (last["x"] - first["x"])),
                    target="<= 0.05",
                )
            )
    return rows
