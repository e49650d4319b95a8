"""Orthogonal rows: lengths kept, uniform directions, less variance."""

import numpy as np
import pytest
import tensorflow as tf

from keras_es.ops.orthogonal import orthogonal_rows
from tests.reference.estimates import assert_unbiased


def all_rows(noise):
    """Return the orthogonal rows of each of [repeats, n, d]."""
    return np.asarray(tf.function(lambda n: tf.map_fn(orthogonal_rows, n))(noise))


def draw(repeats, count, size, seed=0):
    noise = np.random.default_rng(seed).normal(size=(repeats, count, size))
    return noise.astype("float32")


@pytest.mark.parametrize("count, size", [(1, 4), (3, 8), (6, 6), (11, 4), (5, 1)])
def test_rows_of_a_block_are_orthogonal_and_as_long_as_before(count, size):
    noise = draw(1, count, size)[0]
    rows = np.asarray(orthogonal_rows(noise))
    lengths = np.linalg.norm(noise, axis=1)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), lengths, rtol=1e-5)
    unit = rows / lengths[:, None]
    for start in range(0, count, size):
        block = unit[start : start + size]
        np.testing.assert_allclose(block @ block.T, np.eye(len(block)), atol=1e-5)
        # Gram and Schmidt: the first row keeps its direction.
        np.testing.assert_allclose(block[0], noise[start] / lengths[start], atol=1e-5)


def test_each_row_is_standard_normal():
    rows = all_rows(draw(4000, 5, 3))
    for row in np.moveaxis(rows, 1, 0):
        assert_unbiased(row, np.zeros(3))
        assert_unbiased(row[:, :, None] * row[:, None, :], np.eye(3))
        assert_unbiased(row**4, np.full(3, 3.0))


def test_the_estimate_of_a_gradient_has_the_variance_that_is_said():
    size, count = 6, 4
    g = np.linspace(-1.0, 1.0, size)
    rows = all_rows(draw(4000, count, size, seed=1))
    estimates = np.einsum("rkd,rk->rd", rows, rows @ g) / count
    assert_unbiased(estimates, g)
    assert_unbiased(np.sum(estimates**2, axis=1), (size + 2) / count * np.sum(g**2))
