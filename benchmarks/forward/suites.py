"""What is trained, by which methods, with what settings."""

import dataclasses

import models
from benchmarks.pure import networks


def mlp(input_shape, num_classes, width=1024):
    """Two hidden layers of 1,024 units: 1,863,690 weights on MNIST."""
    from keras import Input, Sequential, layers

    hidden = [layers.Dense(width, activation="relu") for _ in range(2)]
    return Sequential(
        [Input(input_shape), layers.Flatten(), *hidden, layers.Dense(num_classes)]
    )


def method(name, config, steps, seed):
    """Return the optimizer of a run, its rate along a cosine to 0.

    Args:
        name: "backpropagation", "weights", "outputs" (forward gradients of), with a
            number of directions after a space, "difference" or "difference outputs",
            "open_es".
        config: Dict: `rate`, and `step` or `sigma` and `population`.
        steps: Number of steps.
        seed: Seed of directions and noise.
    """
    import keras

    from keras_es import optimizers

    rate = keras.optimizers.schedules.CosineDecay(config["rate"], steps)
    adam = keras.optimizers.Adam(rate)
    if name == "backpropagation":
        return optimizers.Static(adam)
    if name == "open_es":
        return optimizers.OpenES(
            None, config["population"], sigma=config["sigma"], mean_optimizer=adam,
            seed=seed,
        )  # fmt: skip
    kind, *number = name.rsplit(" ", 1) if name[-1].isdigit() else (name,)
    directions = int(number[0]) if number else 1
    perturb = "outputs" if "outputs" in kind else "weights"
    if kind.startswith("difference"):
        return optimizers.FiniteDifference(
            adam, directions, perturb=perturb, step=config["step"], seed=seed
        )
    return optimizers.ForwardGradient(adam, directions, perturb=perturb, seed=seed)


@dataclasses.dataclass(frozen=True)
class Suite:
    """One data set and network.

    Attributes:
        network: Function (input_shape, num_classes) -> plain Keras model.
        methods: Dict from the name of a method to its settings.
        steps: Of each run.
        batch_size: Examples of each step.
        target: Test accuracy that is wanted of the method `aimed`.
        aimed: Name of a method.
        rates: Those that `--tune` tries for each method.
    """

    network: object
    methods: dict
    steps: int
    batch_size: int = 128
    target: float | None = None
    aimed: str | None = None
    rates: tuple = (0.0003, 0.001, 0.003)


def _methods(rates, step=0.001, sigma=0.02):
    found = {name: {"rate": rate} for name, rate in rates.items()}
    for name in found:
        if name.startswith("difference"):
            found[name]["step"] = step
        if name == "open_es":
            found[name] |= {"population": 16, "sigma": sigma}
    return found


COMPARED = (
    "backpropagation", "outputs 16", "outputs 4", "outputs 1", "weights 16",
    "weights 4", "weights 1", "difference", "open_es",
)  # fmt: skip
"""What networks with gradients are trained by."""

SUITES = {
    "mlp": Suite(
        mlp,
        _methods(dict.fromkeys(COMPARED, 0.001)),
        steps=300,
    ),
    "mlp-long": Suite(
        mlp, _methods({"outputs 16": 0.0005}), steps=25000, target=0.975,
        aimed="outputs 16",
    ),
    "conv": Suite(
        models.ARCHITECTURES["mnist_11k"].build,
        _methods(dict.fromkeys(COMPARED, 0.003)),
        steps=300,
        rates=(0.001, 0.003, 0.01),
    ),
    "binary": Suite(
        networks.binary,
        _methods(
            dict.fromkeys(("difference outputs 16", "difference 16", "open_es"), 0.1),
            step=0.5,
            sigma=0.5,
        ),
        steps=300,
        rates=(0.01, 0.03, 0.1),
    ),
}  # fmt: skip
