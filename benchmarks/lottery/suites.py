"""What is studied: data, networks, methods, scores and their budgets."""

import dataclasses

import numpy as np

import models

KEEP = 0.8
"""Share of the weights left that a round keeps, if nothing else is asked for."""

ROUNDS = 20

SCORES = {
    "es": ("snr", "magnitude", "final"),
    "gradient": ("magnitude", "snip", "final"),
}
"""Scores of each kind of method; the first is the one whose tickets are studied."""

CONTROLS = ("random", "layerwise_random", "reinitialized")
"""Controls, of the tickets of the first score."""

NAMES = (*dict.fromkeys(s for scores in SCORES.values() for s in scores), *CONTROLS)
"""All scores and controls."""

DATASETS = ("mnist", "fashion_mnist")


@dataclasses.dataclass(frozen=True)
class Suite:
    """One network and its budget.

    Attributes:
        network: Function (input_shape, num_classes) -> plain Keras model.
        pooled: Whether images are pooled to half their sides.
        datasets: Names of data sets.
        generations: Of each fit by evolution.
        gradient_steps: Of each fit by gradients, about as long in wall time.
        population: Members of a generation.
        batch_size: Examples of a generation; all members see all of them.
        sigma: First std of the weights.
        mean_rate: First learning rate of the mean of SNES, which falls to 0 along a
            cosine.
        rate: Learning rate of Adam, which falls to 0 along a cosine.
        std_rate: Learning rate of the std of SNES, None for its own.
        search: "snes" or "sep_cma_es".
        scores: Dict from kind of method to scores.
        controls: Names of controls.
    """

    network: object
    pooled: bool
    datasets: tuple
    generations: int
    gradient_steps: int
    population: int
    batch_size: int
    sigma: float
    mean_rate: float
    rate: float = 0.003
    std_rate: float | None = None
    search: str = "snes"
    scores: dict = dataclasses.field(default_factory=lambda: SCORES)
    controls: tuple = CONTROLS


def mlp(input_shape, num_classes):
    """196-32-10: 6,592 weights and 42 biases."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input(input_shape),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(num_classes, name="logits"),
        ]
    )


_MLP = Suite(
    mlp, pooled=True, datasets=DATASETS, generations=600, gradient_steps=5000,
    population=128, batch_size=256, sigma=0.05, mean_rate=1.5,
)  # fmt: skip

# Where the std of a weight may have more to say than chance.
_ONLY_SNR = dataclasses.replace(
    _MLP, scores={"es": ("snr", "magnitude")}, controls=("random",)
)

SUITES = {
    "mlp": _MLP,
    "mlp-long": dataclasses.replace(_ONLY_SNR, generations=2400),
    "mlp-std-rate": dataclasses.replace(_ONLY_SNR, std_rate=0.3),
    "mlp-sep-cma-es": dataclasses.replace(_ONLY_SNR, search="sep_cma_es"),
    "cnn": Suite(
        models.ARCHITECTURES["mnist_11k"].build, pooled=False, datasets=("mnist",),
        generations=600, gradient_steps=5000,
        population=128, batch_size=64, sigma=0.05, mean_rate=1.5,
        scores={"es": ("snr",)}, controls=("random",),
    ),
}  # fmt: skip


def strategy(suite, kind, seed, steps):
    """Return what trains: "es", "pgpe" or "gradient" (Adam along a cosine)."""
    import keras

    from keras_es import optimizers

    cosine = keras.optimizers.schedules.CosineDecay
    if kind == "gradient":
        return keras.optimizers.Adam(cosine(suite.rate, steps))
    common = {
        "population_size": suite.population, "sigma": suite.sigma, "seed": seed,
    }  # fmt: skip
    if kind == "pgpe":
        return optimizers.PGPE(None, **common)
    if suite.search == "sep_cma_es":
        return optimizers.SepCMAES(None, **common)
    rates = {
        "mean_learning_rate": cosine(suite.mean_rate, steps),
        "std_learning_rate": suite.std_rate,
    }
    return optimizers.SNES(None, **rates, **common)


def steps_of(suite, kind, flags):
    """Return the steps of a fit."""
    own = suite.gradient_steps if kind == "gradient" else suite.generations
    return flags.generations or own


def examples(dataset, pooled):
    """Return ((x, y) of training, (x, y) of test).

    Pixels have mean 0, each over the training set, and together a std near 1: where
    all are positive, what searches alike in all directions is far slower.
    """
    from keras_es import datasets

    data = datasets.load(dataset)
    found = []
    for images, labels in (
        (data.x_train, data.y_train), (data.x_test, data.y_test)
    ):  # fmt: skip
        x = images.astype("float32") * np.float32(data.scale)
        if pooled:
            n, height, width, channels = x.shape
            x = x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
        found.append((x, labels))
    x = found[0][0]
    mean, std = x.mean(0), np.sqrt(np.square(x - x.mean(0)).mean())
    return [((x - mean) / std, labels) for x, labels in found]
