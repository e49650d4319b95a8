"""`lenet`: LeNet-300-100, the network that most papers on sparsity begin with."""

import keras
from keras import layers


def build(input_shape: tuple[int, ...], num_classes: int) -> keras.Sequential:
    """Flatten, 300, 100, classes: 266,610 parameters on MNIST.

    LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document
    recognition", with ReLU in place of the sigmoids.
    """
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            layers.Dense(300, activation="relu"),
            layers.Dense(100, activation="relu"),
            layers.Dense(num_classes, name="logits"),
        ],
        name="lenet",
    )
