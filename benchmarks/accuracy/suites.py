"""What is compared: data, network, patterns and sparsities of each suite.

Within a suite all methods share data order, batch, number of steps, optimizer and its
schedule, allocation, first weights and, where they have one, the first mask.
"""

import dataclasses

from keras_es import patterns


@dataclasses.dataclass(frozen=True)
class Case:
    """Patterns of the masked layers, in order (one stands for all), and a sparsity."""

    label: str
    patterns: tuple
    sparsity: float

    @property
    def name(self):
        """Label and sparsity, such as "weights, 95 %"."""
        return f"{self.label}, {100 * self.sparsity:g} %"


@dataclasses.dataclass(frozen=True)
class Suite:
    """One comparison.

    Attributes:
        dataset: Name of the data set.
        model: Name in `models.ARCHITECTURES`.
        steps: Training steps of each run.
        batch_size: Examples in a step; each costs one forward and backward pass,
            whatever the method.
        cases: What is compared.
        seeds: Number of seeds.
        exclude: Layers that stay dense.
        allocation: Of the sparsity among layers.
        augment: Whether images are shifted and flipped.
        tuned_on: Indices of the cases on which `--tune` searches.
    """

    dataset: str
    model: str
    steps: int
    batch_size: int
    cases: tuple
    seeds: int = 5
    exclude: tuple = ("logits",)
    allocation: str = "uniform"
    augment: bool = False
    tuned_on: tuple = (0,)


def _weights(*sparsities):
    return tuple(Case("weights", (patterns.Unstructured(),), s) for s in sparsities)


def _blocks(label, sizes, *sparsities):
    chosen = tuple(patterns.Block(*size) for size in sizes)
    return tuple(Case(label, chosen, s) for s in sparsities)


def _channels(*sparsities):
    return tuple(Case("channels", (patterns.Channel(),), s) for s in sparsities)


SUITES = {
    "digits": Suite(
        "digits",
        "mlp",
        steps=600,
        batch_size=64,
        cases=(*_weights(0.98), *_blocks("blocks 8x8", [(8, 8)], 0.95)),
    ),
    "mnist-lenet": Suite(
        "mnist",
        "lenet",
        steps=4000,
        batch_size=128,
        cases=_weights(0.8, 0.9, 0.95, 0.98, 0.99),
        # The best learning rate is another at each.
        tuned_on=(2, 3),
    ),
    "mnist-lenet-coarse": Suite(
        "mnist",
        "lenet",
        steps=4000,
        batch_size=128,
        cases=(
            *_blocks("blocks 28x30, 30x10", [(28, 30), (30, 10)], 0.9, 0.95),
            *_blocks("blocks 8x10, 10x10", [(8, 10), (10, 10)], 0.95),
            *_channels(0.8, 0.9),
            # For what is sparse from the first step.
            *_blocks("blocks 8x10, 10x10", [(8, 10), (10, 10)], 0.98, 0.99),
        ),
        tuned_on=(1,),
    ),
    "fashion-lenet": Suite(
        "fashion_mnist",
        "lenet",
        steps=4000,
        batch_size=128,
        # Nothing is tuned on it.
        cases=_weights(0.95, 0.98),
    ),
    "mnist-conv": Suite(
        "mnist",
        "mnist_11k",
        steps=2000,  # four epochs, so that its eighty runs fit an hour
        batch_size=128,
        # The last layer has seven in ten of the weights.
        exclude=(),
        allocation="erk",
        cases=_weights(0.9, 0.95),
        tuned_on=(1,),
    ),
    "cifar-small": Suite(
        "cifar10",
        "cifar_small",
        steps=3910,  # ten epochs
        batch_size=128,
        seeds=3,
        allocation="erk",
        augment=True,
        # The first convolution has 27 inputs, which no block divides.
        exclude=("logits", "first"),
        cases=(*_weights(0.95), *_blocks("blocks 16x8", [(16, 8)], 0.95)),
    ),
    "cifar-resnet20": Suite(
        "cifar10",
        "resnet20",
        steps=7820,  # twenty epochs
        batch_size=128,
        seeds=1,
        allocation="erk",
        augment=True,
        exclude=("logits", "first"),
        cases=_weights(0.95),
    ),
}
