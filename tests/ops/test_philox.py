"""Philox in plain arithmetic: known answers, the law of its noise, its streams."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_es.ops import noise, philox


def words(*values):
    return [tf.constant(v, tf.uint32) for v in values]


@pytest.mark.parametrize(
    "counter_and_key, expected",
    [
        ((0, 0, 0), (0xFF1DAE59, 0x6CD10DF2)),
        ((0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF), (0x2C3F628B, 0xAB4FD7AD)),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E), (0xDD7CE038, 0xF62A4C12)),
    ],
)
def test_known_answers_of_the_authors(counter_and_key, expected):
    assert (
        tuple(int(w) for w in philox.philox2x32(*words(*counter_and_key))) == expected
    )


def test_noise_is_standard_normal():
    n = 400_000
    z = philox.normal((n,), philox.stream(noise.stream_key(0, "a"), 3, 5)).numpy()
    z = z.astype("float64")
    moments = {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}
    for power, (mean, variance) in moments.items():
        error = abs((z**power).mean() - mean)
        assert error < 5 * math.sqrt(variance / n), power
    # Kolmogorov-Smirnov; 1.95 / sqrt(n) is its bound at 0.1 %.
    cdf = 0.5 * (1.0 + np.vectorize(math.erf)(np.sort(z) / math.sqrt(2.0)))
    assert np.abs(cdf - (np.arange(n) + 0.5) / n).max() < 1.95 / math.sqrt(n)
    assert abs((z[:-1] * z[1:]).mean()) < 5 / math.sqrt(n)


def test_streams_are_independent_of_each_other():
    n, draws = 20_000, []
    for key, generation, pair in [
        (noise.stream_key(0, "a"), 0, 0),
        (noise.stream_key(0, "a"), 0, 1),
        (noise.stream_key(0, "a"), 1, 0),
        (noise.stream_key(0, "a"), 2**32, 0),
        (noise.stream_key(0, "b"), 0, 0),
        (noise.stream_key(1, "a"), 0, 0),
    ]:
        draws.append(philox.normal((n,), philox.stream(key, generation, pair)))
    correlation = np.corrcoef(np.stack(draws)) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5 / math.sqrt(n)


def test_compiled_noise_is_that_of_eager_mode():
    position = philox.stream(noise.stream_key(0, "a"), 3, 5)
    for draw, tolerance in ((philox.normal, 3e-6), (philox.signs, 0.0)):
        compiled = tf.function(
            lambda draw=draw: draw((1000,), position), jit_compile=True, autograph=False
        )
        np.testing.assert_allclose(
            compiled(), draw((1000,), position), rtol=0, atol=tolerance
        )


def test_cosine_is_that_of_the_library():
    turn = np.arange(0, 2**32, 2**14 + 1, dtype=np.uint32)
    expected = np.cos(2 * np.pi * turn.astype("float64") / 2**32 - np.pi / 4)
    # The angle has 25 bits.
    np.testing.assert_allclose(
        philox.cos_of_turn(tf.constant(turn)), expected, rtol=0, atol=4e-7
    )


def test_signs_are_balanced():
    signs = philox.signs((100_000,), philox.stream(noise.stream_key(0, "s"), 0, 0))
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(float(tf.reduce_mean(signs))) < 5 / math.sqrt(100_000)


def test_signs_of_some_shapes_at_once_are_those_of_each():
    keys = [noise.stream_key(0, name) for name in "abc"]
    shapes, draws = [(5, 3), (65,), (3, 5)], tf.constant([4, 7])
    found = philox.packed_signs_of(shapes, philox.stream(keys, 3, draws))
    for key, shape, signs in zip(keys, shapes, found, strict=True):
        want = philox.packed_signs(shape, philox.stream(key, 3, draws))
        np.testing.assert_array_equal(signs, want)
