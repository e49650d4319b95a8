"""Noise is a pure function of (seed, stream, generation, pair)."""

import numpy as np
import pytest
import tensorflow as tf

from keras_es.ops import noise

DRAWS = {"normal": noise.normal, "uniform": noise.uniform}


def draw(function, seed=0, stream="a", generation=0, pair=0, shape=(1000,)):
    key = noise.stream_key(seed, stream)
    return np.array(function(shape, noise.counter_seed(key, generation, pair)))


@pytest.mark.parametrize("function", DRAWS.values(), ids=DRAWS)
def test_same_place_same_numbers(function):
    np.testing.assert_array_equal(draw(function), draw(function))


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"stream": "b"}, {"generation": 1}, {"pair": 1}], ids=str
)
@pytest.mark.parametrize("function", DRAWS.values(), ids=DRAWS)
def test_every_coordinate_of_the_place_counts(function, change):
    first, second = draw(function), draw(function, **change)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(first.size)


def test_positions_of_long_runs_do_not_meet():
    seeds = [
        tuple(noise.counter_seed(7, generation, pair).numpy())
        for generation in (0, 1, 2**39)
        for pair in (0, 1, 2**22 - 1)
    ]
    assert len(set(seeds)) == len(seeds)


def test_moments_are_those_of_the_law():
    normal, uniform = draw(noise.normal, shape=(100_000,)), draw(noise.uniform)
    se = 1 / np.sqrt(normal.size)
    assert np.all(np.isfinite(normal))
    assert abs(normal.mean()) < 5 * se
    assert abs(normal.var() - 1) < 5 * np.sqrt(2) * se
    assert abs(np.mean(normal**4) - 3) < 5 * np.sqrt(96) * se
    halves = normal.reshape(2, -1)  # the cosines and the sines of the same draws
    assert abs(np.mean(halves[0] * halves[1])) < 5 * np.sqrt(2) * se
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 5 * np.sqrt(1 / 12 / uniform.size)


@pytest.mark.parametrize("shape", [(), (7,), (33, 5)], ids=str)
@pytest.mark.parametrize("function", DRAWS.values(), ids=DRAWS)
def test_xla_draws_the_same_numbers(function, shape):
    # Replicas draw members inside a compiled function and again outside of it.
    def step(generation):
        seed = noise.counter_seed(noise.stream_key(0, "a"), generation, 3)
        return function(shape, seed)

    plain = step(tf.constant(5, tf.int64))
    compiled = tf.function(step, jit_compile=True)(tf.constant(5, tf.int64))
    assert plain.shape == shape
    # Logarithm and cosine may differ in the last bits.
    tolerance = 0 if function is noise.uniform else 1e-6
    np.testing.assert_allclose(plain, compiled, rtol=tolerance, atol=tolerance)


def test_key_is_a_known_number():
    # Runs resume in another process: the key must never depend on it.
    assert noise.stream_key(3, "x/kernel") == 6310487878710240234
