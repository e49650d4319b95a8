"""Small models of every kind that `sparsify` must take, by name."""

import functools

import keras
import numpy as np

import keras_es


@keras.saving.register_keras_serializable(package="tests")
class FeedForward(keras.layers.Layer):
    """A user's composite: its own config, sublayers with names given by Keras."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.expand = keras.layers.Dense(units, activation="relu")

    def build(self, input_shape):
        self.contract = keras.layers.Dense(input_shape[-1])
        self.expand.build(input_shape)
        self.contract.build((*input_shape[:-1], self.units))

    def call(self, x):
        return x + self.contract(self.expand(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras_es.ESMixin, keras.Model):
    """A user's model, written with plain layers."""

    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = FeedForward(units)
        self.out = keras.layers.Dense(3)

    def call(self, x):
        return self.out(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def sequential():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(3),
        ]
    )


def two_inputs_and_outputs():
    a, b = keras.Input((8,), name="a"), keras.Input((4,), name="b")
    x = keras.layers.Concatenate()([a, keras.layers.Dense(8)(b)])
    outputs = {"x": keras.layers.Dense(3)(x), "y": keras.layers.Dense(2)(x)}
    return keras.Model({"a": a, "b": b}, outputs)


def nested():
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)], name="inner")
    y = keras.Input((8,))
    middle = keras.Model(y, keras.layers.Dense(8)(inner(y)), name="middle")
    x = keras.Input((8,))
    return keras.Model(x, keras.layers.Dense(3)(middle(x)))


def shared():
    x = keras.Input((8,))
    layer = keras.layers.Dense(8, activation="tanh")
    return keras.Model(x, keras.layers.Dense(3)(layer(layer(x))))


def attention():
    x = keras.Input((5, 8))
    y = keras.layers.MultiHeadAttention(2, 4)(x, x)
    y = keras.layers.LayerNormalization()(x + y)
    return keras.Model(x, keras.layers.Dense(3)(y))


def recurrent():
    return keras.Sequential(
        [
            keras.Input((5, 8)),
            keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True)),
            keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True)),
            keras.layers.SimpleRNN(4),
        ]
    )


def time_distributed():
    return keras.Sequential(
        [
            keras.Input((5, 6, 6, 2)),
            keras.layers.TimeDistributed(keras.layers.Conv2D(4, 3)),
            keras.layers.Reshape((5, 64)),
            keras.layers.TimeDistributed(keras.layers.Dense(3)),
        ]
    )


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(8, 3, use_bias=False),
            keras.layers.DepthwiseConv2D(3),
            keras.layers.SeparableConv2D(4, 3),
            keras.layers.Reshape((4, 4)),
            keras.layers.Conv1D(4, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def composite():
    x = keras.Input((8,))
    y = FeedForward(16)(FeedForward(16, name="first")(x))
    return keras.Model(x, keras.layers.Dense(3)(y))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8), "float32"))
    return model


MASKED = {
    sequential: 2,
    two_inputs_and_outputs: 3,
    nested: 3,
    shared: 2,
    attention: 5,
    recurrent: 10,
    time_distributed: 2,
    convolutional: 4,
    composite: 5,
    subclassed: 3,
}
"""Builder -> number of weights that `sparsify` masks."""


def fill(model, seed=1):
    """Set all weights: none is zero by chance, statistics are not 0 and 1."""
    rng = np.random.default_rng(seed)
    for variable in [*model.trainable_variables, *model.non_trainable_variables]:
        if variable.dtype == "float32":
            # Positive, because moving variances are among them.
            variable.assign(0.05 + 0.3 * rng.random(variable.shape))
    return model


@functools.cache
def dense(make):
    """Return the one filled plain model that tests share which only look at it."""
    return fill(make())


@functools.cache
def masked(make):
    """Return the one filled masked model that tests share which only look at it."""
    return fill(keras_es.sparsify(dense(make), 0.75))


def inputs(model, batch=4, seed=2):
    """Return a batch for a model in the structure of its inputs."""
    rng = np.random.default_rng(seed)

    def draw(shape):
        return rng.normal(size=(batch, *shape[1:])).astype("float32")

    if isinstance(model, Subclassed):
        return draw((None, 8))
    if isinstance(model, keras.Sequential):
        return draw(model.inputs[0].shape)
    return keras.tree.map_structure(lambda t: draw(t.shape), model.input)
