"""Which steps XLA compiles, and what `compile` takes over from Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.optimizers import SNES, Static
from tests.training.common import cross_entropy, data, mlp, sparse_mlp


def with_layer(layer, shape=(8, 8, 3)):
    return keras.Sequential(
        [keras.Input(shape), layer, keras.layers.Flatten(), keras.layers.Dense(3)]
    )


def conv_inside():
    """The convolution sits two levels down."""
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
    return with_layer(keras.Sequential([keras.Input((8, 8, 3)), inner]))


AUTO_ON_CPU = {
    "dense": (mlp, True),
    "conv": (lambda: with_layer(keras.layers.Conv2D(2, 3)), False),
    "depthwise": (lambda: with_layer(keras.layers.DepthwiseConv2D(3)), False),
    "conv in a nested model": (conv_inside, False),
}


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="the rule is for CPUs"
)
@pytest.mark.parametrize("build, compiles", AUTO_ON_CPU.values(), ids=AUTO_ON_CPU)
def test_auto_on_cpu(build, compiles):
    model = keras_es.sparsify(build(), 0.5)
    model.compile(SNES("sgd"), "mse")
    assert model.jit_compile is compiles


@pytest.mark.parametrize("choice", [True, False])
def test_the_users_choice_is_kept(choice):
    model = keras_es.sparsify(with_layer(keras.layers.Conv2D(2, 3)), 0.5)
    model.compile(SNES("sgd"), "mse", jit_compile=choice)
    assert model.jit_compile is choice


def test_auto_follows_run_eagerly():
    model = sparse_mlp()
    model.compile(SNES("sgd"), "mse", run_eagerly=True)
    assert not model.jit_compile and model.run_eagerly


@pytest.mark.parametrize("make", [lambda: SNES("sgd", 4), lambda: Static("sgd")])
def test_xla_and_plain_steps_agree(make):
    x, y = data()
    weights = []
    for jit_compile in (True, False):
        keras.utils.set_random_seed(0)
        model = sparse_mlp(keras.layers.BatchNormalization())
        model.compile(make(), cross_entropy(), jit_compile=jit_compile)
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        weights.append([np.asarray(w, "float32") for w in model.weights])
    for got, want in zip(*weights, strict=True):
        np.testing.assert_allclose(got, want, 1e-4, 1e-5)


def test_optimizer_by_config():
    config = keras.saving.serialize_keras_object(SNES("adam", population_size=4))
    model = sparse_mlp()
    model.compile(config, cross_entropy(), jit_compile=False)
    assert model.optimizer.population_size == 4
    assert isinstance(model.optimizer.inner_optimizer, keras.optimizers.Adam)


def test_optimizer_by_name_of_keras():
    model = sparse_mlp()
    model.compile("adam", cross_entropy(), jit_compile=False)
    model.train_on_batch(*data())
    assert isinstance(model.optimizer, keras.optimizers.Adam)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_steps_are_traced_once(jit_compile):
    x, y = data(n=24)
    model = sparse_mlp()
    model.compile(SNES("sgd", 4), cross_entropy(), jit_compile=jit_compile)
    traces = []
    original = model.train_step
    model.train_step = lambda batch: traces.append(1) or original(batch)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0)
    model.fit(x, y, batch_size=8, verbose=0)
    assert len(traces) == 1


def test_learning_rate_of_the_weights_can_be_set():
    model = sparse_mlp()
    model.compile(SNES("sgd", 4), cross_entropy(), jit_compile=False)
    model.optimizer.learning_rate = 0.0
    model.optimizer.build(model.trainable_variables)
    before = [v.numpy() for v in model.trainable_variables]
    model.train_on_batch(*data())
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, variable)


def test_learning_rate_callbacks():
    model = sparse_mlp()
    model.compile(SNES("sgd", 4), cross_entropy(), jit_compile=False)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.5**epoch)
    history = model.fit(*data(), epochs=3, verbose=0, callbacks=[schedule]).history
    np.testing.assert_allclose(history["learning_rate"], [1.0, 0.5, 0.25])
