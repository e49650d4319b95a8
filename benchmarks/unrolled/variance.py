"""Variance of one window's gradient on the Lorenz task, by how often noise is drawn."""

import numpy as np

from benchmarks.unrolled import lorenz
from benchmarks.unrolled import report as tables

SEEDS = 1
PARTICLES, WINDOWS = 200, 200
PLACES = {
    "start": lorenz.START,
    "near the optimum": tuple(v + 0.02 for v in lorenz.TRUTH),
}
PERIODS = {"NRES": 2000, "GPES_1000": 1000, "GPES_500": 500, "GPES_200": 200}
PERIODS |= {"PES_100": 100, "GPES_20": 20, "PES": 1}
CASES = tuple(PERIODS)


def make_estimator(case, seed):
    """Return the estimator of a case, whose steps move nothing."""
    from keras_es import unrolled

    common = dict(
        particles=PARTICLES, unroll_length=lorenz.W, sigma=lorenz.SIGMA, seed=seed
    )
    if case == "NRES":
        return unrolled.NRES("sgd", **common)
    return unrolled.GPES("sgd", period=PERIODS[case], **common)


def window_gradients(task, estimator, windows):
    """Return the gradient of each window under weights that rest, [windows, d]."""
    import keras

    from keras_es import unrolled

    kept = []

    @keras.saving.register_keras_serializable()
    class Recorder(keras.optimizers.SGD):
        """Adds up what it is given in a variable, and moves nothing."""

        def build(self, variables):
            super().build(variables)
            self.seen = [
                self.add_variable_from_reference(v, name="seen") for v in variables
            ]

        def update_step(self, gradient, variable, learning_rate):
            self.seen[self._get_variable_index(variable)].assign(gradient)

    recorder = Recorder(0.0)
    estimator.inner_optimizer = recorder
    model = unrolled.UnrolledModel(task)
    model.compile(estimator)
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: kept.append(
            np.concatenate([np.ravel(v.numpy()) for v in recorder.seen])
        )
    )
    model.fit(steps_per_epoch=windows, callbacks=[record], verbose=0)
    return np.stack(kept)


def run(case, seed):
    """Measure and return the row."""
    found = {}
    for place, values in PLACES.items():
        task = lorenz.make_task()
        task.build()
        task.built = True
        for weight, value in zip(task.trainable_variables, values):
            weight.assign(value)
        rows = window_gradients(task, make_estimator(case, seed), WINDOWS)
        found[place] = {
            "trace": float(rows.var(axis=0, ddof=1).sum()),
            "mean": rows.mean(axis=0).tolist(),
        }
    return {"period": PERIODS[case], **found}


def report(rows, path):
    """Draw the variance over K and return the lines of the table."""
    lines = [
        f"| trace of the variance, {PARTICLES} particles | K | at the start "
        "| near the optimum |",
        "|---|---|---|---|",
    ]
    by_case = tables.by_case(rows, CASES)
    for case, mine in by_case.items():
        cells = [f"{np.mean([r[p]['trace'] for r in mine]):.3g}" for p in PLACES]
        lines.append(f"| {case} | {PERIODS[case]} | " + " | ".join(cells) + " |")
    figure, (axes,) = tables.make_figure(1)
    for place, color in zip(PLACES, tables.COLORS):
        points = [
            (PERIODS[c], np.mean([r[place]["trace"] for r in m]))
            for c, m in by_case.items()
        ]
        axes.plot(*zip(*sorted(points)), "o-", color=color, label=place)
    axes.set(
        xscale="log", yscale="log", xlabel="K, steps between draws (1: PES, T: NRES)",
        ylabel="trace of the gradient's variance",
    )  # fmt: skip
    axes.axvline(lorenz.W, color="#999999", lw=0.8)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    return lines
