"""Small tasks with closed forms, and estimates of their gradients."""

import keras
import numpy as np
import tensorflow as tf

from keras_es import unrolled
from keras_es.unrolled.members import Members
from keras_es.unrolled.progress import Progress
from keras_es.unrolled.window import Window


@keras.saving.register_keras_serializable(package="tests")
class Powers(unrolled.Task):
    """s_t = decay s_{t-1} + θ, and L_t = s_t ** power."""

    def __init__(self, power=3, horizon=8, theta=0.5, decay=1.0, noisy=False, **kwargs):
        super().__init__(**kwargs)
        self.power, self.horizon, self.theta = power, horizon, theta
        self.decay, self.noisy = decay, noisy

    def build(self):
        start = keras.initializers.Constant(self.theta)
        self.weight = self.add_weight(shape=(), initializer=start, name="theta")

    def initial_state(self, seed, data=None):
        return tf.zeros(())

    def step(self, state, t, seed, data=None):
        state = self.decay * state + self.weight
        loss = state**self.power
        if self.noisy:
            loss = loss + unrolled.normal((), seed)
        return state, loss

    def get_config(self):
        return {
            **super().get_config(),
            "power": self.power,
            "horizon": self.horizon,
            "theta": self.theta,
            "decay": self.decay,
            "noisy": self.noisy,
        }


def built(task):
    task.build()
    task.built = True
    return task


def zeros_of(spec):
    """Return the `Progress` before the first window."""
    values = [np.zeros(s.shape, s.dtype.as_numpy_dtype) for s in spec.flat()]
    values[0] -= 1  # episode
    values[2] |= True  # finished
    return spec.packed([tf.constant(v) for v in values])


def gradients(task, estimator, windows, jit_compile=False):
    """Return the mean gradient of each window under weights that rest, [windows, d].

    Particles burn in first, unless the estimator says no.
    """
    if not task.built:
        built(task)
    members = Members(task, task.trainable_variables)
    state = members.probe(None)
    n = estimator.particles
    window = Window(members, estimator, n, estimator.burn_in is not False)
    shapes = [v.shape for v in members.variables] if estimator.accumulates else []
    spec = Progress.spec(n, window.copies, shapes, state)
    weights = [tf.convert_to_tensor(v.value) for v in members.variables]
    particle = tf.range(n)

    @tf.function(autograph=False, jit_compile=jit_compile)
    def burned(*flat):
        return window.burn(weights, spec.packed(flat), particle).flat()

    @tf.function(autograph=False, jit_compile=jit_compile)
    def step(*flat):
        after, found = window.run(weights, spec.packed(flat), particle)
        parts = [tf.reshape(g, [-1]) for g in found.gradients]
        return after.flat(), tf.concat(parts, axis=0) / n

    flat, rows = zeros_of(spec).flat(), []
    if window.burn_in and not estimator.locked:
        flat = burned(*flat)
    for _ in range(windows):
        flat, row = step(*flat)
        rows.append(row.numpy())
    return np.stack(rows)
