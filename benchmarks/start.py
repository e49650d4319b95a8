"""How soon training begins, and whether its data keeps up.

Import: `import keras_es` over `import keras` (with TensorFlow), each in new processes
that take turns. First step: from the start of the process to the end of the first
batch of `fit`, sparse with SNES over plain Keras. Input: steps of `train.py`'s data
sets over the same steps on one batch held in memory, both through `fit` and both
without the steps in which it begins; 1 means that the step never waits. What the
pipeline gives by itself is in the JSON.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.timing import Row, interleaved

SUITE = "start"
ROOT = Path(__file__).resolve().parents[1]

IMPORTS = {"keras": "import keras", "keras_es": "import keras, keras_es"}

FIRST_STEP = """
import keras, numpy as np
from models import ARCHITECTURES
architecture = ARCHITECTURES[{model!r}]
model = architecture.build({shape}, 10)
optimizer = "adam"
if {sparse}:
    import keras_es
    model = keras_es.sparsify(model, sparsity=0.95, exclude=architecture.dense_layers)
    optimizer = keras_es.optimizers.SNES("adam")
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer, loss)
x = np.zeros((128, *{shape}), "float32")
model.fit(x, np.arange(128) % 10, batch_size=128, verbose=0)
"""

MODELS = {"lenet": (28, 28, 1), "cifar_convnet": (32, 32, 3)}

INPUTS = {
    # data set: (model, batch, whether images are augmented), as train.py has them
    "digits": ("mlp", 64, False),
    "mnist": ("lenet", 128, False),
    "cifar10": ("cifar_convnet", 128, True),
}


BEGINNING = 10  # steps that are not timed


def run(quick=False):
    """Return the rows."""
    rows = [import_row(3 if quick else 9)]
    for model in ("lenet",) if quick else MODELS:
        rows.append(first_step_row(model, 3 if quick else 5))
    for name in ("digits",) if quick else INPUTS:
        row = input_row(name, 3 if quick else 7)
        if row is not None:
            rows.append(row)
    return rows


def import_row(rounds):
    """Compare the import of the package with that of Keras."""
    cases = {name: _process(code) for name, code in IMPORTS.items()}
    seconds = interleaved(cases, rounds=rounds)
    return _row("import", seconds, "keras_es", "keras", "<= 1.05")


def first_step_row(model, rounds):
    """Compare the time to the end of the first step with plain Keras."""
    cases = {
        name: _process(
            FIRST_STEP.format(model=model, shape=MODELS[model], sparse=sparse)
        )
        for name, sparse in (("keras", False), ("keras_es", True))
    }
    seconds = interleaved(cases, rounds=rounds)
    return _row(f"first step, {model}", seconds, "keras_es", "keras", "<= 1.5")


def _process(code):
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run_process():
        subprocess.run([sys.executable, "-c", code], env=environ, cwd=ROOT, check=True)

    return run_process


def _row(case, seconds, name, baseline, target):
    ratios = [a / b for a, b in zip(seconds[name], seconds[baseline])]
    return Row(
        SUITE,
        case,
        statistics.median(seconds[name]),
        "s",
        statistics.median(seconds[baseline]),
        statistics.median(ratios),
        target,
        {"ratios": ratios},
    )


def input_row(name, rounds):
    """Compare steps on the real pipeline with steps on a batch held in memory."""
    import keras_es

    model_name, batch_size, augment = INPUTS[name]
    try:
        data = keras_es.datasets.load(name)
    except FileNotFoundError as error:
        print(f"start: {name} is left out, it is not there: {error}", file=sys.stderr)
        return None
    model = _sparse_model(model_name, data)
    stream = data.train_batches(batch_size, seed=0, augment=augment)
    held = stream.take(1).cache().repeat()
    steps = _steps_in_two_seconds(model, held)
    cases = {
        "pipeline": lambda: _steady(model, stream, steps),
        "held": lambda: _steady(model, held, steps),
        "alone": lambda: [None for _ in stream.take(steps)],
    }
    seconds = interleaved(cases, rounds=rounds)
    rates = {case: [steps / s for s in values] for case, values in seconds.items()}
    ratios = [a / b for a, b in zip(rates["pipeline"], rates["held"])]
    return Row(
        SUITE,
        f"input, {name}" + (", augmented" if augment else ""),
        statistics.median(rates["pipeline"]),
        "steps/s",
        statistics.median(rates["held"]),
        statistics.median(ratios),
        ">= 0.95",
        {
            "ratios": ratios,
            "steps": steps,
            "batches_alone_per_s": statistics.median(rates["alone"]),
        },
    )


def _sparse_model(name, data):
    import keras

    import keras_es
    from models import ARCHITECTURES

    architecture = ARCHITECTURES[name]
    plain = architecture.build(data.input_shape, data.num_classes)
    model = keras_es.sparsify(plain, sparsity=0.9, exclude=architecture.dense_layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras_es.optimizers.GuidedNES("adam"), loss, metrics=["accuracy"])
    return model


def _fit(model, batches, steps, callbacks=()):
    model.fit(
        batches,
        steps_per_epoch=steps,
        verbose=0,
        shuffle=False,
        callbacks=list(callbacks),
    )


def _steady(model, batches, steps):
    """Return the seconds of so many steps after the first ones of a `fit`.

    `train.py` makes its iterator once for all epochs, so that is not part of a step.
    """
    import keras

    times = []

    def ended(*_, **__):
        times.append(time.perf_counter())

    clock = keras.callbacks.LambdaCallback(on_train_batch_end=ended)
    _fit(model, batches, BEGINNING + steps, [clock])
    return times[-1] - times[BEGINNING - 1]


def _steps_in_two_seconds(model, batches):
    """Return how many steps take about two seconds, after the first was compiled."""
    _fit(model, batches, 2)
    return max(10, int(20 / _steady(model, batches, 10)))
