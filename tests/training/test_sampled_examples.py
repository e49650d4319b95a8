"""Members that see those examples of the batch whose losses are large."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_es
from keras_es.noise import Outputs
from keras_es.optimizers import SNES, OpenES, Sampled
from tests.reference.estimates import assert_unbiased
from tests.training.common import cross_entropy, data

EXAMPLES = 32


def network(*between):
    keras.utils.set_random_seed(0)
    model = [keras.Input((6,)), layers.Dense(8, "tanh"), *between, layers.Dense(3)]
    return keras_es.es_model(keras.Sequential(model))


def trained(
    model=None, batch_size=16, epochs=2, jit_compile=False, loss=None, fit=(), **kwargs
):
    model = network() if model is None else model
    arguments = {"batch_mode": Sampled(4), "seed": 1, **kwargs}
    optimizer = OpenES(None, 4, **arguments)
    loss = cross_entropy() if loss is None else loss
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=jit_compile)
    x, y = data(EXAMPLES)
    model.fit(x, y, batch_size, epochs, shuffle=False, verbose=0, **dict(fit))
    return model


@functools.cache
def weights(**kwargs):
    return trained(**kwargs).get_weights()


def still():
    """Settings with which all members are the mean, which does not move."""
    return {"sigma": 0.0, "mean_optimizer": keras.optimizers.SGD(0.0)}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fitness", [None, "sparse_categorical_crossentropy"])
def test_the_losses_of_members_are_unbiased(weighted, fitness):
    x, y = data(EXAMPLES)
    weight = np.linspace(0.0, 2.0, EXAMPLES) if weighted else None
    keras.utils.set_random_seed(0)
    softmax = [keras.Input((6,)), layers.Dense(3, "softmax")]
    model = keras_es.es_model(keras.Sequential(softmax))
    optimizer = OpenES(None, 2, batch_mode=Sampled(8), fitness=fitness, **still())
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    true = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    found = []
    for _ in range(100):
        logs = model.train_on_batch(x, y, weight, return_dict=True)
        model.reset_metrics()
        assert logs["population_spread"] < 1e-6
        found.append(logs["population_loss"])
    assert np.std(found) > 0.01
    assert_unbiased(found, true["loss"])


def test_hard_examples_are_drawn_more_often():
    """A loss of 0 but for one example: that is all that members can learn from."""
    x = np.eye(EXAMPLES, dtype="float32")
    y = np.zeros((EXAMPLES, 1), "float32")
    y[5] = 1.0
    keras.utils.set_random_seed(0)
    zeros = layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras_es.es_model(keras.Sequential([keras.Input((EXAMPLES,)), zeros]))
    optimizer = OpenES(None, 2, batch_mode=Sampled(2), **still())
    model.compile(optimizer, "mse", jit_compile=False)
    for _ in range(20):
        logs = model.train_on_batch(x, y, return_dict=True)
        model.reset_metrics()
        # Drawn once or twice of two, with weight 1/(n p).
        p = 0.8 + 0.2 / EXAMPLES
        once = 1 / (2 * EXAMPLES * p)
        assert np.isclose(logs["population_loss"], [once, 2 * once], rtol=1e-4).any()


def test_metrics_are_those_of_the_mean_on_the_whole_batch():
    x, y = data(EXAMPLES)
    model = network(layers.Dropout(0.5))
    optimizer = OpenES(None, 4, batch_mode=Sampled(4), **still())
    model.compile(optimizer, cross_entropy(), metrics=["accuracy"], jit_compile=False)
    want = model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["accuracy"] == pytest.approx(want)


def test_a_batch_that_is_no_larger_is_seen_whole():
    whole = trained(batch_mode=None)
    for count in (16, 100):
        # Of tensors on their own the size of the batch is known.
        model = network()
        model.compile(
            OpenES(None, 4, batch_mode=Sampled(count), seed=1),
            cross_entropy(),
            jit_compile=False,
        )
        x, y = data(EXAMPLES)
        batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16, True)
        model.fit(batches, epochs=2, shuffle=False, verbose=0)
        for a, b in zip(whole.get_weights(), model.get_weights()):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_last_batch_may_be_smaller_than_what_is_drawn():
    model = trained(batch_size=15)
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_structures_of_inputs_and_outputs():
    keras.utils.set_random_seed(0)
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((4, 2), name="b")}
    flat = layers.Flatten()(inputs["b"])
    hidden = layers.Dense(5)(layers.Concatenate()([inputs["a"], flat]))
    outputs = {
        "one": layers.Dense(2, name="one")(hidden),
        "each": layers.Dense(1, name="each")(inputs["b"]),
    }
    model = keras_es.es_model(keras.Model(inputs, outputs))
    model.compile(
        OpenES(None, 4, noise=Outputs(0.1), batch_mode=Sampled(3)),
        loss={"one": "mse", "each": "mae"},
        jit_compile=False,
    )
    random = np.random.default_rng(0)
    x = {"a": random.normal(size=(8, 3)), "b": random.normal(size=(8, 4, 2))}
    y = {"one": random.normal(size=(8, 2)), "each": random.normal(size=(8, 4, 1))}
    history = model.fit(x, y, epochs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_a_mean_that_fails_does_not_stop_the_draw():
    @keras.saving.register_keras_serializable(package="test_sampled_examples")
    class Fails(layers.Layer):
        """Not a number for half of the examples."""

        def call(self, x):
            return keras.ops.where(x[:, :1] > 0, float("nan"), x)

    model = trained(network(Fails()), batch_mode=Sampled(2))
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_one_fitness_for_all_examples_is_refused():
    def worst(y, y_pred):
        return tf.reduce_max(y_pred)

    with pytest.raises(ValueError, match="a value for each example.*Received"):
        trained(fitness=worst)


def test_a_loss_that_adds_examples_up_is_refused():
    with pytest.raises(ValueError, match='be a mean over.*Received: reduction="sum"'):
        trained(loss=cross_entropy(reduction="sum"))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="batch_mode=Sampled.* is of pure.*Received"):
        SNES("adam", batch_mode=Sampled(8))
    with pytest.raises(ValueError, match="`count` must be an.*Received"):
        SNES(None, batch_mode=Sampled(0))
