"""Metrics that calls and losses update, and losses that members cannot have."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_es
from keras_es.optimizers import SNES, ForwardGradient, OpenES
from tests.training.common import cross_entropy, data

WEIGHTS = {"p": 2.0, "q": 0.5}


@keras.saving.register_keras_serializable(package="test_counted_metrics")
class Size(layers.Layer):
    """Notes how large its inputs are; not a number where its bias rose."""

    def __init__(self):
        super().__init__()
        self.size = keras.metrics.Mean(name="size")

    def build(self, shape):
        self.bias = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        self.size.update_state(keras.ops.abs(x))
        return keras.ops.where(self.bias > 0.0, float("nan"), x)


def two_outputs(regularizer=None):
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    hidden = Size()(layers.Dense(4, "tanh", kernel_regularizer=regularizer)(x))
    outputs = {"p": layers.Dense(3, name="p")(hidden), "q": layers.Dense(1)(hidden)}
    return keras_es.es_model(keras.Model(x, outputs))


def fitted(model, optimizer):
    """Train on 20 examples and return the model and its logs."""
    model.compile(
        optimizer,
        loss={"p": cross_entropy(), "q": "mse"},
        loss_weights=WEIGHTS,
        metrics={"p": ["accuracy"]},
        jit_compile=False,
    )
    history = model.fit(*two_targets(), 10, shuffle=False, verbose=0).history
    return {name: value[-1] for name, value in history.items()}


def two_targets():
    x, y = data(20)
    return x, {"p": y, "q": x[:, :1]}


def test_members_that_are_the_mean_have_its_metrics():
    model = two_outputs("l2")
    still = {"sigma": 0.0, "mean_optimizer": keras.optimizers.SGD(0.0)}
    logs = fitted(model, OpenES(None, 4, **still))
    x, y = two_targets()
    true = model.evaluate(x, y, batch_size=10, verbose=0, return_dict=True)
    assert {"p_loss", "q_loss", "size", "p_accuracy"} <= set(true)
    for name, value in true.items():
        assert logs[name] == pytest.approx(value, rel=1e-4), name


def test_losses_of_outputs_are_those_of_valid_members():
    logs = fitted(two_outputs(), OpenES(None, 8, sigma=0.3, seed=1))
    assert logs["nonfinite_members"] > 0 and logs["p_loss"] > 0.0
    parts = sum(weight * logs[f"{name}_loss"] for name, weight in WEIGHTS.items())
    assert logs["loss"] == pytest.approx(parts, rel=1e-4)


@pytest.mark.parametrize("method", [OpenES, ForwardGradient])
def test_time_steps_that_masking_leaves_out_do_not_count(method):
    x, y = np.ones((2, 4, 3), "float32"), np.ones((2, 4, 1), "float32")
    x[:, 2:] = 0.0
    inputs = [keras.Input((4, 3)), layers.Masking(), layers.Dense(1)]
    model = keras_es.ESSequential(inputs)
    optimizer = OpenES(None, 4) if method is OpenES else ForwardGradient("sgd")
    model.compile(optimizer, "mse", metrics=["mse"], jit_compile=False)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["mse"] == pytest.approx(logs["loss"], rel=1e-5)


@pytest.mark.parametrize("optimizer", [SNES(None, 4), SNES("sgd", 4)], ids=["", "sgd"])
def test_one_loss_for_each_example_is_refused(optimizer):
    x = keras.Input((6,))
    model = keras_es.es_model(keras.Model(x, layers.Dense(3)(x)))
    model.compile(optimizer, cross_entropy(reduction=None), jit_compile=False)
    with pytest.raises(ValueError, match=r"must be a scalar.*Received: .*shape=\("):
        model.train_on_batch(*data(4))


def test_layers_that_assign_to_their_weights_are_refused():
    x = keras.Input((6,))
    outputs = layers.SpectralNormalization(layers.Dense(3))(x)
    model = keras_es.es_model(keras.Model(x, outputs))
    model.compile(OpenES(None, 4), cross_entropy(), jit_compile=False)
    with pytest.raises(ValueError, match="assigns to weights.*Received: .*kernel"):
        model.train_on_batch(*data(4))
