"""Small strategies of pure evolution and what tests of them share."""

import keras
import numpy as np
import tensorflow as tf

import keras_es
from keras_es.optimizers import PURE
from tests.reference import problems

NAMES = sorted(PURE)
MEMBERS = 12


def make(name, /, members=MEMBERS, **kwargs):
    """Make a strategy of that name with few members."""
    if name == "alopex":
        return PURE[name](**kwargs)
    if name == "genetic_algorithm":
        kwargs = {"parents": 4, "elite_candidates": 2, **kwargs}
    return PURE[name](None, population_size=members, **kwargs)


@keras.saving.register_keras_serializable(package="test_pure")
class Sign(keras.layers.Layer):
    """Hard signs, whose gradient fails."""

    def call(self, x):
        @tf.custom_gradient
        def sign(x):
            def gradient(*upstream):
                raise AssertionError("a gradient was taken")

            return tf.sign(x), gradient

        return sign(x)


def make_model(layers=(), masked=False):
    """A network with hard signs; masked if wanted; the same at each call."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((problems.INPUTS,)),
            keras.layers.Dense(problems.HIDDEN, name="hidden"),
            *layers,
            Sign(),
            keras.layers.Dense(1, activation="sigmoid", name="out"),
        ]
    )
    if masked:
        pattern = keras_es.patterns.Block(4, 2)
        return keras_es.sparsify(model, 0.5, pattern=pattern, exclude=["out"])
    return keras_es.es_model(model)


def compiled(name, /, model=None, jit_compile=False, **kwargs):
    """Compile a model with a strategy of that name."""
    model = make_model() if model is None else model
    model.compile(
        make(name, **kwargs),
        loss="binary_crossentropy",
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    return model


def with_noise_on_outputs(model, x, y):
    """Return the variables that have no noise themselves, but their layers' outputs."""
    said = tf.function(
        lambda: model.optimizer.population(model, x, y, None).evaluate().guidance,
        autograph=False,
    )()
    pairs = zip(model.optimizer.search.variables, said)
    return [v for v, gradient in pairs if gradient is not None]


def member_losses(model, optimizer):
    """Losses of the members of the coming step, one plain evaluation each."""
    x, y = problems.data()
    loss = keras.losses.BinaryCrossentropy()
    variables = optimizer.search.variables
    start = [v.numpy() for v in variables]
    losses = []
    for values in zip(*(np.asarray(v) for v in optimizer.ask())):
        for variable, value in zip(variables, values):
            variable.assign(value)
        losses.append(float(loss(y, model(x))))
    for variable, value in zip(variables, start):
        variable.assign(value)
    return losses


def member_losses_masked(model):
    """As `member_losses`, with the masks that members decode from their scores."""
    x, y = problems.data()
    loss = keras.losses.BinaryCrossentropy()
    variables = model.optimizer.search.variables
    masked = keras_es.masked_weights(model)
    start = [v.numpy() for v in [*variables, *(m.kernel_mask for m in masked)]]
    losses = []
    for values in zip(*(np.asarray(v) for v in model.optimizer.ask())):
        for variable, value in zip(variables, values):
            variable.assign(value)
        for m in masked:
            m.kernel_mask.assign(m.expand(m.decode(m.mask_scores.value)))
        losses.append(float(loss(y, model(x))))
    for variable, value in zip([*variables, *(m.kernel_mask for m in masked)], start):
        variable.assign(value)
    return losses
