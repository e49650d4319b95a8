"""`mnist_11k`: a convolutional network of about 11,000 weights."""

import keras
from keras import layers


def build(input_shape: tuple[int, ...], num_classes: int) -> keras.Sequential:
    """Two 5 x 5 convolutions of 8 and 16, each pooled, classes: 11,274 parameters."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(8, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(num_classes, name="logits"),
        ],
        name="mnist_11k",
    )
