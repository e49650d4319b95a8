"""A network of some dozen weights, its data and what trains it."""

import keras
import numpy as np

from keras_es import lottery
from keras_es.optimizers import SNES

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 32)
DATA = (X, Y)
PLAIN = {"jit_compile": False}
"""Arguments of `compile`: XLA compiles longer than these models train."""


def build():
    layers = [keras.Input((6,)), keras.layers.Dense(5, "tanh", name="hidden")]
    return keras.Sequential([*layers, keras.layers.Dense(3, "softmax", name="out")])


def snes(**kwargs):
    return SNES(None, 8, sigma=0.2, seed=5, **kwargs)


def find(
    strategy=None, rounds=2, keep=0.5, score="snr", data=DATA, network=build, **kwargs
):
    keras.utils.set_random_seed(4)
    kwargs = {"steps": 4, "batch_size": 8, "compile_arguments": PLAIN, **kwargs}
    kwargs.setdefault("verbose", 0)
    return lottery.find(
        network, strategy or snes(), data, rounds, keep, score, **kwargs
    )
