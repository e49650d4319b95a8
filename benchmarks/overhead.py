"""Overhead of hybrid ES: a step of `fit` with moving masks over one of plain Keras.

Each case trains the same network on the same batches by the same Adam; the masked ones
at 95 %, unstructured, with a population of 8 and the defaults of each strategy. The
baseline is the faster of plain Keras with XLA and without. `Static` shows what masks
cost that stay as they are, `GradualMagnitude` with `masked_out="learn"` what it costs
to choose the largest weights anew in each step, and `GuidedES` that and its judgements.
"""

import statistics

import numpy as np

from benchmarks.timing import Row, interleaved, median_ratio

SUITE = "overhead"
SPARSITY, POPULATION, CLASSES = 0.95, 8, 10
LEARNING = "GradualMagnitude, learning"
METHODS = ("Static", "SNES", "BernoulliNES", "GuidedNES", "GuidedES", LEARNING)

# Network, batch, steps in a measurement, bound of the ratio.
CASES = {
    "LeNet-300-100, batch 128": ("lenet", 128, 64, "<= 1.5"),
    "LeNet-300-100, batch 512": ("lenet", 512, 32, "<= 1.25"),
    "GRU 256 over 64 steps, batch 128": ("gru", 128, 32, "<= 1.1"),
    "CIFAR convnet, batch 128": ("cifar_convnet", 128, 32, "<= 1.05"),
}
QUICK = ("LeNet-300-100, batch 128",)


def run(quick=False):
    """Return the rows of this suite."""
    cases = QUICK if quick else CASES
    return [row for name in cases for row in measured(name, quick)]


def measured(name, quick):
    """Return the rows of one network and batch size."""
    network, batch, steps, target = CASES[name]
    data = batches(network, batch, steps)
    models = {"Keras": plain(network, False), "Keras, XLA": plain(network, True)}
    models |= {method: masked(network, method) for method in METHODS}
    fits = {
        key: lambda model=model: model.fit(data, verbose=0)
        for key, model in models.items()
    }
    # A convolutional epoch takes ten seconds and more.
    rounds = 3 if quick else (5 if network == "cifar_convnet" else 9)
    seconds = interleaved(fits, rounds=rounds)
    milliseconds = {
        key: statistics.median(times) / steps * 1e3 for key, times in seconds.items()
    }
    baseline = min(milliseconds["Keras"], milliseconds["Keras, XLA"])
    return [
        Row(
            SUITE,
            f"{name}: {method}",
            milliseconds[method],
            "ms",
            baseline,
            median_ratio(seconds, method, "Keras", "Keras, XLA"),
            None if method == "Static" else target,
            {"all_ms": milliseconds},
        )
        for method in METHODS
    ]


def shape(network):
    """Return the shape of one example."""
    return {"lenet": (28, 28, 1), "gru": (64, 64), "cifar_convnet": (32, 32, 3)}[
        network
    ]


def batches(network, batch, steps):
    """Return random examples as a dataset that costs next to nothing."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    # A few batches in turn: memory is not what is measured.
    count = batch * min(steps, 16)
    x = rng.random((count, *shape(network)), dtype="float32")
    y = rng.integers(0, CLASSES, count)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch, drop_remainder=True)
    return data.cache().repeat().take(steps).prefetch(2)


def built(network):
    """Return the plain network."""
    import keras

    import models

    if network in models.ARCHITECTURES:
        return models.ARCHITECTURES[network].build(shape(network), CLASSES)
    return keras.Sequential(
        [
            keras.Input(shape(network)),
            keras.layers.GRU(256),
            keras.layers.Dense(CLASSES, name="logits"),
        ]
    )


def compiled(model, optimizer, jit_compile):
    """Compile a network for classification."""
    import keras

    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    return model


def plain(network, jit_compile):
    """Return the dense network, compiled."""
    import keras

    return compiled(built(network), keras.optimizers.Adam(1e-3), jit_compile)


def masked(network, method):
    """Return the masked network, compiled as is the default."""
    import keras

    import keras_es

    model = keras_es.sparsify(built(network), SPARSITY, exclude=["logits"])
    alone = method in ("Static", "GuidedES")
    arguments = {} if alone else {"population_size": POPULATION}
    if method == LEARNING:
        schedule = keras_es.schedules.ConstantSparsity()
        arguments = {"masked_out": "learn", "sparsity_schedule": schedule}
    cls = getattr(keras_es.optimizers, method.split(",")[0])
    return compiled(model, cls(keras.optimizers.Adam(1e-3), **arguments), "auto")
