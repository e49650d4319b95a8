"""Every rule against NumPy loops, with episodes that end within windows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es import unrolled
from keras_es.unrolled import draws
from tests.unrolled.common import Powers, built, gradients
from tests.unrolled.reference import Particle, Rule, Tables

T, W, N, SIGMA, SEED = 12, 4, 5, 0.2, 7
START = np.array([0.3, -0.2, 0.1], "float32")


class Ending(unrolled.Task):
    """A noisy system whose episodes end by `done` or at a horizon of their own."""

    horizon = T

    def build(self):
        self.rates = self.add_weight(shape=(2,), name="rates")
        self.bias = self.add_weight(shape=(), name="bias")
        self.rates.assign(START[:2])
        self.bias.assign(START[2])

    def initial_state(self, seed, data=None):
        return {"x": unrolled.normal((2,), seed)}

    def step(self, state, t, seed, data=None):
        noise = unrolled.uniform((2,), seed)
        x = state["x"] * (1.0 + self.rates) + self.bias + 0.1 * noise
        loss = tf.reduce_sum(tf.sin(x))
        return {"x": x}, loss, x[0] > 1.8

    def episode_horizon(self, seed):
        return 6 + seed[0] % 7  # 6 to 12


class Plain:
    """The same in NumPy, of one member."""

    horizon = T

    def __init__(self, tables):
        self.tables = tables

    def horizon_of(self, particle, episode):
        return 6 + int(self.tables.begins[particle, episode, 0]) % 7

    def begin(self, particle, episode):
        return self.tables.normals[particle, episode]

    def move(self, x, theta, particle, episode, t):
        noise = self.tables.uniforms[particle, episode, t]
        x = x * (1.0 + theta[:2]) + theta[2] + 0.1 * noise
        return x, np.sum(np.sin(x)), x[0] > 1.8


COMMON = dict(particles=N, unroll_length=W, sigma=SIGMA, seed=SEED)
SHORT = dict(burn_in=False)  # first episodes end as if they had begun earlier
RULES = {
    "NRES": (lambda: unrolled.NRES("sgd", **COMMON), Rule(W, T)),
    "GPES_3": (
        lambda: unrolled.GPES("sgd", period=3, **COMMON, **SHORT),
        Rule(W, 3, persistent=True),
    ),
    "GPES_8": (
        lambda: unrolled.GPES("sgd", period=8, **COMMON),
        Rule(W, 8, persistent=True),
    ),
    "PES": (lambda: unrolled.PES("sgd", **COMMON), Rule(W, 1, persistent=True)),
    "PES_W": (
        lambda: unrolled.PES("sgd", noise="window", **COMMON, **SHORT),
        Rule(W, W, persistent=True),
    ),
    "FullES": (
        lambda: unrolled.FullES("sgd", particles=N, sigma=SIGMA, seed=SEED),
        Rule(T, T),
    ),
    "TruncatedES": (
        lambda: unrolled.TruncatedES("sgd", **COMMON, **SHORT),
        Rule(W, W, truncated=True),
    ),
}


@pytest.fixture(scope="module")
def tables():
    return Tables(SEED, N, 12, T, [(2,), ()])


SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in ("GPES_8", "PES_W", "FullES")]


@pytest.mark.parametrize("name", ["NRES", "GPES_3", "PES", "TruncatedES", *SLOW])
def test_windows_equal_plain_loops(name, tables):
    make, rule = RULES[name]
    windows = 8
    estimator = make()
    found = gradients(built(Ending()), estimator, windows)
    starts = np.zeros(N, int)
    if name != "FullES":
        key = draws.stream_key(SEED, "starts")
        starts = draws.start_windows(key, tf.range(N), T // W).numpy()
        assert set(starts) > {0}
    task = Plain(tables)
    particles = [Particle(i, SIGMA, tables.noise[i], task) for i in range(N)]
    expected = np.zeros((windows, 3))
    for particle, start in zip(particles, starts):
        if estimator.burn_in is False:
            particle.missed = start * W
        else:
            for _ in range(start):
                particle.run_window(START, rule)
        for window in range(windows):
            expected[window] += particle.run_window(START, rule) / N
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    # Episodes did end within windows and began again.
    assert min(p.episode for p in particles) > 0


def test_a_clip_bounds_the_difference_of_each_step():
    class Jump(unrolled.Task):
        horizon = 2

        def build(self):
            self.weight = self.add_weight(shape=(), initializer="zeros")

        def initial_state(self, seed, data=None):
            return tf.zeros(())

        def step(self, state, t, seed, data=None):
            return state, 100.0 * tf.sign(self.weight)

    def estimate(clip):
        estimator = unrolled.NRES(
            "sgd", particles=50, unroll_length=2, sigma=0.5, clip=clip, locked=True
        )
        return gradients(Jump(), estimator, 1)[0, 0]

    # L+ - L- is 200 sign(ε), so the estimate is 200 |ε| / (2 σ²).
    np.testing.assert_allclose(estimate(None) / estimate(2.0), 100.0, rtol=1e-5)


def test_any_keras_optimizer_takes_the_step():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.0])
    inner = keras.optimizers.SGD(schedule, global_clipnorm=0.25)
    model = unrolled.UnrolledModel(Powers(theta=2.0))
    model.compile(
        unrolled.NRES(inner, particles=4, unroll_length=4, sigma=0.1), jit_compile=False
    )
    model.fit(steps_per_epoch=3, verbose=0)
    # The gradient is large: one step of length 0.25, then none.
    np.testing.assert_allclose(model.task.weight.numpy(), 1.75, rtol=1e-6)
    assert int(model.optimizer.iterations) == 3
