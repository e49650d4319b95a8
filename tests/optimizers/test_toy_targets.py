"""A table of methods and small targets on which evolution must beat a fixed mask."""

import functools

import keras
import numpy as np
import pytest

import keras_es
from keras_es import patterns
from keras_es.optimizers import OPTIMIZERS
from tests.reference import problems

INPUTS = 16
METHODS = ["snes", "open_es", "bernoulli_nes", "guided_es"]


def half_of_the_inputs_are_noise():
    random = np.random.default_rng(0)
    x = random.normal(size=(512, INPUTS)).astype("float32")
    informative = random.permutation(INPUTS)[: INPUTS // 2]
    signs = random.choice([-1.0, 1.0], size=(INPUTS // 2, 1))
    return x, (x[:, informative] @ signs).astype("float32")


def one_layer():
    return [keras_es.layers.MaskedDense(1, sparsity=0.5, mask_seed=1)]


def blocks():
    pattern = patterns.Block(1, 8)
    hidden = keras_es.layers.MaskedDense(8, sparsity=0.5, pattern=pattern, mask_seed=1)
    return [hidden, keras.layers.Dense(1)]


TARGETS = {"one layer": one_layer, "blocks": blocks}


@functools.cache
def final_loss(target, method):
    keras.utils.set_random_seed(0)
    model = keras_es.ESSequential([keras.Input((INPUTS,)), *TARGETS[target]()])
    kwargs = {}
    if method != "static":
        kwargs = {"population_size": 8, "batch_mode": "full", "sigma": 1.0, "seed": 1}
        if method != "snes":
            kwargs["score_optimizer"] = keras.optimizers.Adam(0.05)
    optimizer = OPTIMIZERS[method](keras.optimizers.Adam(0.05), **kwargs)
    problems.compiled(optimizer, model, loss="mse", steps_per_execution=8)
    x, y = half_of_the_inputs_are_noise()
    model.fit(x, y, epochs=30, batch_size=64, verbose=0)
    return model.evaluate(x, y, verbose=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", TARGETS)
def test_evolution_finds_the_informative_inputs(target, method):
    static = final_loss(target, "static")
    assert 3.5 < static < 4.5  # half of eight inputs of variance one are missed
    assert final_loss(target, method) < 0.75 * static
