"""The models that train.py knows, each from one builder function.

A builder takes the shape of one image and the number of classes and returns a plain
Keras model: float32 images in [0, 1] of shape [batch, height, width, channels] go in,
logits of shape [batch, num_classes] come out. Nothing in here knows of masks;
`Architecture.dense_layers` names what `keras_es.sparsify` is to leave dense.
"""

import dataclasses
from collections.abc import Callable

import keras

from models import (
    cifar_convnet,
    cifar_small,
    digits_mlp,
    lenet,
    mnist_11k,
    mnist_30k,
    resnet20,
)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A builder, and the names of the layers that stay dense.

    The last layer is among them in all of them: it has few weights, and a class that
    loses all of its inputs is lost for good.
    """

    build: Callable[[tuple[int, ...], int], keras.Model]
    dense_layers: tuple[str, ...] = ("logits",)


ARCHITECTURES = {
    "mlp": Architecture(digits_mlp.build),
    "lenet": Architecture(lenet.build),
    "mnist_11k": Architecture(mnist_11k.build),
    "mnist_30k": Architecture(mnist_30k.build),
    "cifar_small": Architecture(cifar_small.build),
    "cifar_convnet": Architecture(cifar_convnet.build),
    "resnet20": Architecture(resnet20.build),
}

__all__ = ["ARCHITECTURES", "Architecture"]
