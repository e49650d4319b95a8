"""Tangents of what has gradients of its own; estimates of losses with more parts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.noise.directions import layers_with_directions
from keras_es.optimizers import ForwardGradient, Static
from keras_es.populations.derivatives import along_tangent
from tests.optimizers.test_directional import directions_of, flat, gradients, rows
from tests.reference.estimates import assert_unbiased

layers = keras.layers

EXAMPLES = 6


@tf.custom_gradient
def rounded(x):
    """Thirds, which pass gradients straight through, and twice as large."""
    return tf.round(3.0 * x) / 3.0, lambda dy: 2.0 * dy


class RoundingCell(layers.Layer):
    """A step of a recurrent layer that rounds."""

    state_size = output_size = 2

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel")

    def call(self, x, states, training=False):
        state = rounded(x @ tf.convert_to_tensor(self.kernel) + 0.5 * states[0])
        return state, [state]


class Through(layers.Layer):
    """A function of its input times a weight."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def build(self, shape):
        self.w = self.add_weight(shape=shape[1:], initializer="uniform", name="w")

    def call(self, x):
        return self.function(x + 20.0 * self.w)


def image(x):
    return tf.image.resize(tf.reshape(x, (EXAMPLES, 2, 2, 1)), (3, 5))


def shown(x):
    """Quantized between bounds that move too, of all and of each column."""
    low, high = -0.5 * tf.reduce_mean(x**2, 0), tf.reduce_mean(x**2, 0)
    bounds = tf.reduce_mean(low), tf.reduce_mean(high)
    return (
        tf.quantization.fake_quant_with_min_max_args(x, -1.0, 1.5)
        + 2.0 * tf.quantization.fake_quant_with_min_max_vars(x, *bounds)
        + 3.0 * tf.quantization.fake_quant_with_min_max_vars_per_channel(x, low, high)
    )


LOST = {
    "rounding": lambda x: x * rounded(x),
    "in a branch": lambda x: tf.cond(x[0, 0] < 99.0, lambda: x * rounded(x), lambda: x),
    "resized": image,
    "resized in a function": lambda x: tf.function(image, autograph=False)(x),
    "quantized for show": shown,
}
"""Functions whose tangents TensorFlow's forward mode loses, or takes of another."""


def assert_exact(model, xy, directions=2):
    """Estimates are the mean of (g . v) v of reverse mode's gradient g."""
    variables, size = model.trainable_variables, directions
    optimizer = ForwardGradient("sgd", size, seed=3)
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.build(variables)
    found = flat(gradients(model, xy))
    model.compile(Static("sgd"), "mse", jit_compile=False)
    model.optimizer.build(variables)
    want = flat(gradients(model, xy))
    v = directions_of(optimizer, variables, draws=size)
    v = np.concatenate([d.reshape(size, -1) for d in v], axis=1)
    c = v @ want
    assert np.abs(c).max() > 1e-3
    np.testing.assert_allclose(found, c @ v / size, rtol=2e-4, atol=1e-5 * abs(c).max())


def test_what_has_a_gradient_of_its_own_has_the_tangent_of_it():
    """All in one model: a branch for each, added up."""
    keras.utils.set_random_seed(1)
    x = keras.Input((4,))
    parts = [
        layers.Flatten()(Through(f, name=f"f{i}")(x))
        for i, f in enumerate(LOST.values())
    ]
    sequence = layers.Reshape((2, 2))(x)
    parts.append(layers.RNN(RoundingCell())(sequence))
    frozen = keras_es.layers.MaskedGRU(2, sparsity=0.5, mask_seed=1)
    parts.append(frozen(layers.Dense(2)(sequence)))
    parts.append(layers.Flatten()(layers.Conv1D(2, 2, padding="causal")(sequence)))
    model = keras_es.es_model(
        keras.Model(x, layers.Dense(1)(layers.Concatenate()(parts)))
    )
    for weight in frozen.masked_weights:  # what is masked out is not 0 itself
        weight.kernel.assign(tf.random.stateless_normal(weight.kernel.shape, (1, 2)))
    frozen.trainable = False
    random = np.random.default_rng(0)
    inputs = tf.constant(random.normal(size=(EXAMPLES, 4)).astype("float32"))
    assert_exact(model, (inputs, tf.ones((EXAMPLES, 1))))


def test_without_a_graph_a_gradient_of_ones_own_has_its_tangent_too():
    squares = tf.custom_gradient(lambda x: (x**2, lambda dy: 3.0 * dy))
    x, v = tf.constant([0.4, -1.2]), tf.constant([1.0, -2.0])
    found, _ = along_tangent(lambda values: (squares(values[0]), None), [x], [v])
    np.testing.assert_allclose(found, 3.0 * v, rtol=1e-6)


@pytest.mark.parametrize(
    "layer, name",
    [
        (layers.Dense(3, "softsign", name="first"), "first.*Dense"),
        (layers.Rescaling(1.0, name="second"), None),
    ],
)
def test_layers_of_keras_are_named_and_errors_of_a_model_are_its_own(layer, name):
    """One direction alone is the only pass: nothing has called the model before."""

    calls = []

    def fails(y, y_pred):
        calls.append(y)
        if len(calls) > 1:  # The first is of Keras, which builds metrics.
            raise KeyError("of a user")
        return keras.ops.square(y - y_pred)

    model = keras_es.es_model(
        keras.Sequential([keras.Input((4,)), layers.Dense(2), layer])
    )
    model.compile(
        ForwardGradient("sgd"), fails if name is None else "mse", jit_compile=False
    )
    kind = KeyError if name is None else ValueError
    match = "of a user" if name is None else f"through layer '{name}(.|\n)*Received"
    with pytest.raises(kind, match=match):
        model.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0)
    assert keras.config.is_traceback_filtering_enabled()


class Back(layers.Layer):
    """x W^T, with the kernel of another layer."""

    def __init__(self, other, **kwargs):
        super().__init__(**kwargs)
        self.other = other

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(self.other.kernel))


class OfATable(layers.Layer):
    """Adds what a layer says of some learned vectors."""

    def build(self, shape):
        self.table = self.add_weight(shape=(7, shape[-1]), name="table")
        self.dense = layers.Dense(shape[-1])
        self.dense.build((7, shape[-1]))

    def call(self, x):
        return x + keras.ops.mean(self.dense(self.table), axis=0)


def tied():
    """Two layers with one kernel, one of their own, and losses that layers add."""
    x = keras.Input((4,))
    first = layers.Dense(3, "tanh", activity_regularizer="l2", name="first")
    y = Back(first, name="back")(first(x))
    y = layers.Dense(3, "relu", activity_regularizer="l2", name="apart")(y)
    y = layers.ActivityRegularization(l2=0.3)(OfATable()(y))
    return keras.Model(x, y)


def estimates(optimizer, model, xy, steps):
    """Estimates of some steps, and the gradient of reverse mode."""
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.build(model.trainable_variables)
    found = rows(model, xy, steps)
    model.compile(Static("sgd"), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return found, flat(gradients(model, xy))


def test_tied_weights_and_losses_that_layers_add_are_parts_of_the_gradient():
    keras.utils.set_random_seed(1)
    model = keras_es.es_model(tied())
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=(EXAMPLES, 4)).astype("float32"))
    assert [layer.name for layer in layers_with_directions(model, x)] == ["apart"]
    optimizer = ForwardGradient("sgd", 2, perturb="outputs", seed=3)
    found, truth = estimates(optimizer, model, (x, tf.ones((EXAMPLES, 3))), 1000)
    assert_unbiased(found, truth, 1e-6)


def test_shares_of_a_batch_come_to_all_of_its_examples():
    """Of five examples two directions see four: not always the same."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    model = keras_es.es_model(model)
    xy = tf.constant([[1.0], [2.0], [3.0], [4.0], [50.0]]), tf.ones((5, 1))
    optimizer = ForwardGradient("sgd", 2, batch_mode="split", seed=3)
    found, truth = estimates(optimizer, model, xy, 500)
    assert_unbiased(found, truth)


def test_a_mean_that_is_divided_by_the_weights_has_no_parts():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model = keras_es.es_model(model)
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    model.compile(ForwardGradient("sgd", perturb="outputs"), loss, jit_compile=False)
    with pytest.raises(ValueError, match="sum_over_batch_size(.|\n)*Received"):
        model.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0)
