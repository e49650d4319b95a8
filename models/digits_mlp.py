"""`mlp`: a small multilayer perceptron for any images."""

import keras
from keras import layers


def build(input_shape: tuple[int, ...], num_classes: int) -> keras.Sequential:
    """Flatten, 256, 128, classes; sizes that blocks of up to 16 x 16 divide."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(128, activation="relu"),
            layers.Dense(num_classes, name="logits"),
        ],
        name="mlp",
    )
