"""The models that train.py knows, each from one builder function.

A builder takes the shape of one image and the number of classes and returns a plain
Keras model: float32 images in [0, 1] of shape [batch, height, width, channels] go in,
logits of shape [batch, num_classes] come out. Those of speech are in `SPEECH`, say
themselves what goes in, and return the loss of each example. Nothing in here knows of
masks; `Architecture.dense_layers` names what `keras_es.sparsify` is to leave dense.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from models import (
    cifar_convnet,
    cifar_small,
    digits_mlp,
    lenet,
    mnist_11k,
    mnist_30k,
    resnet20,
    sparse_wavernn,
    text_to_mel,
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


@dataclasses.dataclass(frozen=True)
class SpeechArchitecture:
    """A builder, the layers that stay dense, and what `compile` is given.

    Args:
        build: Function of what `keras_es.runs` gives it.
        dense_layers: Names, or regular expressions, for `keras_es.sparsify`.
        compile_arguments: Function that returns new loss and metrics.
        context: Frames before and behind a piece that the model looks at.
        speak: Function (model, frames [n, 80]) -> int16 samples, of a vocoder.
    """

    build: Callable[..., keras.Model]
    dense_layers: tuple[str, ...]
    compile_arguments: Callable[[], dict[str, Any]]
    context: int = 0
    speak: Callable | None = None


SPEECH = {
    "sparse_wavernn": SpeechArchitecture(
        sparse_wavernn.SparseWaveRNN,
        sparse_wavernn.DENSE_LAYERS,
        lambda: {
            "loss": sparse_wavernn.DualSoftmax(),
            "metrics": [sparse_wavernn.Bits()],
        },
        context=sparse_wavernn.CONTEXT,
        speak=lambda model, mel: sparse_wavernn.Generator(model)(mel[None])[0],
    ),
    "text_to_mel": SpeechArchitecture(
        text_to_mel.build,
        tuple(f"text_to_mel/{name}" for name in text_to_mel.DENSE_LAYERS),
        text_to_mel.compile_arguments,
    ),
}

ALL = ARCHITECTURES | SPEECH

__all__ = ["ALL", "ARCHITECTURES", "SPEECH", "Architecture", "SpeechArchitecture"]
