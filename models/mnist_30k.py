"""`mnist_30k`: the convolutional network of about 30,000 weights of Lenc et al."""

import keras
from keras import layers


def build(input_shape: tuple[int, ...], num_classes: int) -> keras.Sequential:
    """Two 5 x 5 convolutions, each pooled, a layer norm, classes: 28,938 parameters.

    Lenc, Elsen, Schaul, Simonyan 2019, "Non-differentiable supervised learning with
    evolution strategies and hybrid methods", arXiv 1906.03139. The norm has no scale
    and offset: the layer after it has both already.
    """
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(16, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.LayerNormalization(center=False, scale=False),
            layers.Dense(num_classes, name="logits"),
        ],
        name="mnist_30k",
    )
