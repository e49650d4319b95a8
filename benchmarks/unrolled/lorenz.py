"""log a and log r of a Lorenz system from its z, by each estimator."""

import math
import time

import numpy as np

from benchmarks.unrolled import report as tables

SEEDS = 5
T, W, SIGMA, DT = 2000, 100, 0.04, 0.005
START = (3.116, 3.7)
TRUTH = (math.log(10.0), math.log(28.0))
STARTS, CURVE_STARTS, TARGET = 10_000, 1000, 60.0

# Particles, updates, learning rate, and after which step a tenth of it.
CASES = {
    "NRES": (200, 5000, 1e-5, None),
    "PES": (200, 10_000, 1e-5, 1000),
    "PES_100": (200, 10_000, 1e-5, 1000),
    "TruncatedES": (200, 5000, 3e-4, None),
    "FullES": (10, 2000, 3e-5, None),
}


def make_task(horizon=T):
    """Return the task: two systems side by side, the true one and the learner's."""
    import keras
    import tensorflow as tf

    from keras_es import unrolled

    def moved(s, a, r):
        x, y, z = s
        change = (a * (y - x), x * (r - z) - y, x * y - 8.0 / 3.0 * z)
        return tuple(u + DT * c for u, c in zip(s, change))

    class Lorenz(unrolled.Task):
        def build(self):
            for name, value in zip(("log_a", "log_r"), START):
                start = keras.initializers.Constant(value)
                setattr(self, name, self.add_weight(shape=(), initializer=start))

        def initial_state(self, seed, data=None):
            x = tf.constant([1.2, 1.3, 1.6]) + unrolled.normal((3,), seed)
            x = tuple(tf.unstack(x))
            return x, x

        def step(self, state, t, seed, data=None):
            true = moved(state[0], 10.0, 28.0)
            own = moved(state[1], tf.exp(self.log_a), tf.exp(self.log_r))
            return (true, own), tf.square(own[2] - true[2])

    task = Lorenz()
    task.horizon = horizon
    return task


def make_estimator(case, seed, particles=None):
    """Return the estimator of a case with its optimizer."""
    import keras

    from keras_es import unrolled

    count, _, rate, change = CASES.get(case, CASES["NRES"])
    if change is not None:
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [change], [rate, rate / 10.0]
        )
    common = dict(particles=particles or count, sigma=SIGMA, seed=seed)
    sgd = keras.optimizers.SGD(rate)
    if case == "FullES":
        return unrolled.FullES(sgd, **common)
    common["unroll_length"] = W
    kinds = {
        "NRES": lambda: unrolled.NRES(sgd, **common),
        "PES": lambda: unrolled.PES(sgd, **common),
        "PES_100": lambda: unrolled.PES(sgd, noise="window", **common),
        "GPES_500": lambda: unrolled.GPES(sgd, period=500, **common),
        "TruncatedES": lambda: unrolled.TruncatedES(sgd, **common),
    }
    return kinds[case]()


def test_losses(starts):
    """Return a function from (log a, log r) to the mean loss over so many starts."""
    import tensorflow as tf

    from keras_es import unrolled

    task = make_task()
    task.build()
    task.built = True
    model = unrolled.UnrolledModel(task)
    model.compile(unrolled.FullES("sgd", particles=starts, sigma=SIGMA, seed=1000))

    def loss(values):
        for weight, value in zip(model.trainable_variables, values):
            weight.assign(tf.cast(value, tf.float32))
        return model.evaluate(verbose=0, return_dict=True)["loss"]

    return loss


def run(case, seed):
    """Train and return the row."""
    from keras_es import unrolled

    _, updates, _, _ = CASES[case]
    model = unrolled.UnrolledModel(make_task())
    length = T if case == "FullES" else W
    # FullES moves as far with an update as others with twenty.
    every = 10 if case == "FullES" else 50
    model.compile(make_estimator(case, seed), steps_per_execution=every)
    loss = test_losses(CURVE_STARTS)
    curve, done, timed = [(0, loss(START), *START)], 0, [0.0, 0.0]
    while done < updates:
        often = 1 if done < 20 * every else 5
        begun = time.perf_counter(), time.process_time()
        model.fit(steps_per_epoch=every, epochs=often, verbose=0)
        if done:  # The first call compiles.
            timed[0] += time.perf_counter() - begun[0]
            timed[1] += time.process_time() - begun[1]
        done += often * every
        values = [float(v.numpy()) for v in model.trainable_variables]
        curve.append((done * length, loss(values), *values))
    second, cpu = (t / (updates - every) for t in timed)
    reached = [steps for steps, value, *_ in curve if value < TARGET]
    found = {"final_loss": test_losses(STARTS)(values), "final": values}
    found |= {"updates": updates, "steps_to_target": reached[0] if reached else None}
    for name, of_one in (("seconds", second), ("cpu_seconds", cpu)):
        found[name] = of_one * updates
        found[f"{name}_to_target"] = reached[0] / length * of_one if reached else None
    return found | {"curve": [[float(v) for v in row] for row in curve]}


def report(rows, path):
    """Draw the curves and return the lines of the table."""
    lines = [
        "| | test loss at the end | steps to loss < 60 | CPU seconds to it | of all |",
        "|---|---|---|---|---|",
    ]
    by_case = tables.by_case(rows, CASES)
    for case, mine in by_case.items():
        reached = [r for r in mine if r["steps_to_target"] is not None]
        count = f" ({len(reached)} of {len(mine)})" if len(reached) < len(mine) else ""
        cells = (
            tables.spread([r["final_loss"] for r in mine]),
            tables.spread([r["steps_to_target"] for r in reached], "{:,.0f}") + count,
            tables.spread([r["cpu_seconds_to_target"] for r in reached], "{:.2f}"),
            tables.spread([r["cpu_seconds"] for r in mine], "{:.1f}"),
        )
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    figure, (left, right) = tables.make_figure(2)
    for color, (case, mine) in tables.colored(by_case):
        tables.band(left, [[p[:2] for p in r["curve"][1:]] for r in mine], case, color)
        for r in mine:
            points = np.array(r["curve"])[:, 2:]
            right.plot(points[:, 0], points[:, 1], color=color, lw=0.8)
    left.axhline(TARGET, color="#999999", lw=0.8)
    left.set(
        xscale="log", yscale="log", xlabel="sequential unroll steps",
        ylabel="test loss (mean of (z - z*)²)",
    )  # fmt: skip
    left.legend(fontsize=8)
    right.plot(*START, "ko", ms=5)
    right.plot(*TRUTH, "k*", ms=10)
    right.set(
        xlabel="log a", ylabel="log r", title="from the dot; the truth is the star"
    )
    figure.savefig(path, dpi=110)
    return lines
