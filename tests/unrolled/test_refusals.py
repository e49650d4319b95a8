"""Each wrong use has one clear message."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es import unrolled
from tests.unrolled.common import Powers

COMMON = dict(particles=4, unroll_length=4, sigma=0.1)


def nres(**kwargs):
    return unrolled.NRES("sgd", **{**COMMON, **kwargs})


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(particles=0), "`particles` must be an integer of at least 1"),
        (dict(unroll_length=2.0), "`unroll_length` must be an integer"),
        (dict(sigma=0.0), "`sigma` must be a finite number above 0"),
        (dict(clip=-1.0), "`clip` must be a finite number above 0"),
        (dict(locked=1), "`locked` must be True or False"),
        (dict(locked=True, burn_in=True), "`locked` begin at step 0"),
        (dict(seed=None), "`seed` must be an integer"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        nres(**arguments)
    assert "Received: " in str(caught.value)


def test_arguments_of_the_rules():
    with pytest.raises(ValueError, match="`period` must be an integer of at least 1"):
        unrolled.GPES("sgd", period=0, **COMMON)
    with pytest.raises(ValueError, match='`noise` must be "step" or "window"'):
        unrolled.PES("sgd", noise="episode", **COMMON)
    with pytest.raises(TypeError, match="unroll_length"):
        unrolled.FullES("sgd", **COMMON)


@pytest.mark.parametrize("cls", [unrolled.NRES, unrolled.PES, unrolled.TruncatedES])
def test_configs_give_the_estimator_back(cls):
    estimator = cls(keras.optimizers.Adam(0.1), clip=2.0, seed=3, **COMMON)
    config = keras.saving.serialize_keras_object(estimator)
    again = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(again) == config
    full = unrolled.FullES("adam", particles=2, sigma=0.2)
    assert type(full).from_config(full.get_config()).get_config() == full.get_config()


class Odd(unrolled.Task):
    """A task whose `initial_state` and `step` are given."""

    horizon = 8

    def __init__(self, step, initial=lambda: tf.zeros((2,)), **kwargs):
        super().__init__(**kwargs)
        self._step, self._initial = step, initial

    def build(self):
        self.weight = self.add_weight(shape=(), initializer="zeros")

    def initial_state(self, seed, data=None):
        return self._initial()

    def step(self, state, t, seed, data=None):
        return self._step(state)


@pytest.mark.parametrize(
    "step, message",
    [
        (lambda s: s, r"must return \(state, loss\) or \(state, loss, done\)"),
        (lambda s: (s, s), r"the loss of one particle, a float scalar.*shape \(2,\)"),
        (lambda s: (s, 1), "a float scalar.*dtype int32"),
        (lambda s: (s, None), "a float scalar.*dtype string"),
        (lambda s: (s, 0.0, 1.0), "`done` as a boolean scalar"),
        (
            lambda s: (s[:1], 0.0),
            r"shapes and dtypes.*shape \(1,\).*after shape \(2,\)",
        ),
        (lambda s: (tf.cast(s, "int32"), 0.0), "int32 after shape"),
        (lambda s: ((s, s), 0.0), "structure, shapes and dtypes"),
    ],
)
def test_steps_that_return_something_else(step, message):
    model = unrolled.UnrolledModel(Odd(step))
    model.compile(nres(), jit_compile=False)
    with pytest.raises(ValueError, match=message) as caught:
        model.fit(steps_per_epoch=1, verbose=0)
    assert "Received: " in str(caught.value)


@pytest.mark.parametrize(
    "initial, message",
    [
        (lambda: tf.constant("a"), r"numbers or booleans.*shape \(\) of string"),
        (lambda: tf.ragged.constant([[1.0], []]), "dense tensors.*RaggedTensor"),
        (
            lambda: tf.zeros(tf.random.uniform([1], 1, 3, "int32")),
            r"shapes are known before.*shape \(None,\) of float32",
        ),
    ],
)
def test_states_that_cannot_be_held(initial, message):
    model = unrolled.UnrolledModel(Odd(lambda s: (s, 0.0), initial))
    model.compile(nres(), jit_compile=False)
    with pytest.raises(ValueError, match=message):
        model.fit(steps_per_epoch=1, verbose=0)


class Regularized(Odd):
    """Has a loss besides that of a step, of a weight or of an activity."""

    def __init__(self, **kwargs):
        super().__init__(None)
        self.dense = keras.layers.Dense(1, **kwargs)

    def build(self):
        self.dense.build((1, 2))

    def step(self, state, t, seed, data=None):
        return state, tf.reduce_mean(self.dense(state[None]))


def test_losses_that_no_step_returns():
    with pytest.raises(ValueError, match="regularizers of weights.*kernel with L2"):
        unrolled.UnrolledModel(Regularized(kernel_regularizer="l2"))
    model = unrolled.UnrolledModel(Regularized(activity_regularizer="l2"))
    model.compile(nres(), jit_compile=False)
    for function in (lambda: model.fit(steps_per_epoch=1), model.evaluate) * 2:
        with pytest.raises(ValueError, match="of activities.*Received: 1 losses"):
            function()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: keras.optimizers.SGD(loss_scale_factor=8.0), "factor=8.0"),
        (
            lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
            "must not scale losses.*LossScaleOptimizer",
        ),
        (lambda: nres(), "plain Keras optimizer.*Received: inner_optimizer=NRES"),
    ],
)
def test_inner_optimizers_that_would_not_take_the_step(make, message):
    with pytest.raises(ValueError, match=message):
        unrolled.NRES(make(), **COMMON)


class Changing(Odd):
    """Changes something of a layer in each step, or has it built too late."""

    def __init__(self, layer, build=True):
        super().__init__(None)
        self.layer, self._builds = layer, build

    def build(self):
        super().build()
        if self._builds:
            self.layer.build((1, 2))

    def step(self, state, t, seed, data=None):
        return state, self.weight + tf.reduce_mean(
            self.layer(state[None], training=True)
        )


class Kept(Odd):
    """A part of a step is a `tf.function`, traced once for all members."""

    def __init__(self):
        super().__init__(lambda s: (s, self.loss()))

    @tf.function(autograph=False)
    def loss(self):
        return self.weight + 1.0


def assigning():
    count = tf.Variable(0.0)
    return Odd(lambda s: (s, tf.identity(count.assign_add(1.0))))


@pytest.mark.parametrize(
    "task, message",
    [
        (Kept, "must not keep tensors.*Leave `tf.function` out"),
        (assigning, "must not assign.*AssignAddVariableOp"),
        (
            lambda: Odd(lambda s: (s, tf.random.normal(()))),
            "from the seed.*Received: RandomStandardNormal",
        ),
        (
            lambda: Odd(lambda s: (s, s[0] if s[0] > 0.0 else 0.0)),
            "must not ask for the value of a tensor.*`tf.where`.*Received: Using",
        ),
        (lambda: Changing(keras.layers.Dropout(0.5)), "not assign.*Dropout"),
        (
            lambda: Changing(keras.layers.BatchNormalization()),
            "must not assign.*Received: 2 assigned",
        ),
        (
            lambda: Changing(keras.layers.Dense(1), build=False),
            r"weights are others than when `compile`.*layer.build\(shape\)",
        ),
    ],
)
def test_what_layers_of_a_step_would_lose(task, message):
    model = unrolled.UnrolledModel(task())
    model.compile(nres(), jit_compile=False)
    with pytest.raises(ValueError, match=message):
        model.fit(steps_per_epoch=1)


def test_weights_that_are_frozen_or_no_floats():
    task = Changing(keras.layers.Dense(1))
    model = unrolled.UnrolledModel(task)
    model.compile(nres(), jit_compile=False)
    task.layer.trainable = False
    for function in (lambda: model.fit(steps_per_epoch=1), model.evaluate):
        with pytest.raises(ValueError, match="`compile` again after.*before .*kernel"):
            function()
    whole = Powers()
    whole.add_weight(shape=(), dtype="int32", initializer="ones")
    with pytest.raises(ValueError, match="weights of `Powers` must be floats.*int32"):
        unrolled.UnrolledModel(whole)


@pytest.mark.parametrize("value", [None, 3.5, [2, 3]])
def test_lengths_of_episodes_that_are_none(value):
    class Lengths(Powers):
        def episode_horizon(self, seed):
            return value

    model = unrolled.UnrolledModel(Lengths())
    model.compile(nres(), jit_compile=False)
    with pytest.raises(ValueError, match="episode_horizon` must return an integer"):
        model.fit(steps_per_epoch=1, verbose=0)


@pytest.mark.parametrize("steps", [0, -1, 2.5])
def test_steps_of_evaluate(steps):
    model = unrolled.UnrolledModel(Powers())
    model.compile(nres(), jit_compile=False)
    with pytest.raises(ValueError, match="`steps` must be an integer of at least 1"):
        model.evaluate(steps=steps, verbose=0)


def test_metrics_of_a_task_without_outputs():
    model = unrolled.UnrolledModel(Powers())
    model.compile(nres(), metrics=["mae"], jit_compile=False)
    for function in (lambda: model.fit(steps_per_epoch=1), model.evaluate) * 2:
        with pytest.raises(ValueError, match="metrics` compare.*metrics with Powers"):
            function()


def test_a_state_of_none():
    model = unrolled.UnrolledModel(Odd(lambda s: (s, 0.0), lambda: None))
    model.compile(nres(), jit_compile=False)
    with pytest.raises(ValueError, match=r"initial_state.*\(\) for a state of none"):
        model.fit(steps_per_epoch=1, verbose=0)


def test_horizons_and_tasks():
    model = unrolled.UnrolledModel(Powers(horizon=8))
    with pytest.raises(ValueError, match="divide.*unroll_length=3, horizon=8"):
        model.compile(nres(unroll_length=3))
    with pytest.raises(ValueError, match="must be an estimator of"):
        model.compile("sgd")
    for horizon in (0, None, 2.5):
        with pytest.raises(ValueError, match="horizon` must be an integer"):
            unrolled.UnrolledModel(Powers(horizon=horizon))
    with pytest.raises(ValueError, match="an object and not a class"):
        unrolled.UnrolledModel(Powers)

    class Without(unrolled.Task):
        horizon = 2

    with pytest.raises(ValueError, match="has no trainable weights"):
        unrolled.UnrolledModel(Without())
    with pytest.raises(NotImplementedError, match="must override `step"):
        Without().step(None, 0, None)


def test_fit_without_what_it_needs():
    model = unrolled.UnrolledModel(Powers())
    with pytest.raises(ValueError, match="Call `compile` before `fit`"):
        model.fit(steps_per_epoch=1)
    model.compile(nres(burn_in=True), jit_compile=False)
    with pytest.raises(ValueError, match="`steps_per_epoch` must say"):
        model.fit()
    with pytest.raises(ValueError, match="must be a `tf.data.Dataset`"):
        model.fit(np.zeros((4, 4)))

    def data(*shape, **kwargs):
        return tf.data.Dataset.from_tensors(tf.zeros(shape))

    with pytest.raises(ValueError, match="multiple of `particles`.*6 rows"):
        model.fit(data(6, 4), verbose=0)
    with pytest.raises(ValueError, match="5 steps, unroll_length=4"):
        model.fit(data(8, 5), verbose=0)
    with pytest.raises(ValueError, match="drop_remainder=True"):
        model.fit(data(4).batch(4), verbose=0)
    with pytest.raises(ValueError, match="no burn-in with data"):
        model.fit(data(8, 4), verbose=0)
    with pytest.raises(NotImplementedError, match="is not called"):
        model(np.zeros((2, 2)))


@pytest.mark.parametrize("steps", [0, -1, 2.5, "3"])
def test_numbers_of_steps(steps):
    model = unrolled.UnrolledModel(Powers())
    with pytest.raises(ValueError, match="`steps_per_execution` must be an integer"):
        model.compile(nres(), steps_per_execution=steps)
    model.compile(nres(), jit_compile=False)
    with pytest.raises(ValueError, match="`steps_per_epoch` must be an integer of at"):
        model.fit(steps_per_epoch=steps)


def test_arguments_of_keras_that_windows_do_not_heed():
    model = unrolled.UnrolledModel(Powers())
    model.compile(nres(), jit_compile=False)
    for name, value in dict(class_weight={0: 2.0}, batch_size=2, shuffle=True).items():
        with pytest.raises(ValueError, match=f"order of time.*Received: {name}"):
            model.fit(steps_per_epoch=1, **{name: value})
    with pytest.raises(ValueError, match="`evaluate` of.*Received: batch_size"):
        model.evaluate(batch_size=2)
    for name in ("train_on_batch", "test_on_batch"):
        with pytest.raises(NotImplementedError, match=f"has no `{name}`. Use"):
            getattr(model, name)(np.zeros((2, 2)))
