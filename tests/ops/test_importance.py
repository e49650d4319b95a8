"""Examples drawn by their losses, and the weights that make up for it."""

import numpy as np
import pytest

from keras_es.ops import importance

SIZES = np.array([0.0, 3.0, -1.0, 0.5, 0.0, 0.5], "float32")


def test_probabilities_are_those_of_the_formula():
    p = np.asarray(importance.probabilities(SIZES))
    np.testing.assert_allclose(p, 0.8 * np.abs(SIZES) / 5.0 + 0.2 / 6, rtol=1e-6)
    assert p.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("sizes", [np.zeros(4), np.full(4, np.nan)], ids=str)
def test_examples_of_which_nothing_is_known_are_alike(sizes):
    p = np.asarray(importance.probabilities(sizes.astype("float32")))
    np.testing.assert_allclose(p, 0.25, rtol=1e-6)


def test_a_size_that_is_not_finite_counts_as_0():
    sizes = np.array([np.inf, 1.0, np.nan, 3.0], "float32")
    p = np.asarray(importance.probabilities(sizes))
    np.testing.assert_allclose(p, [0.05, 0.25, 0.05, 0.65], rtol=1e-6)


@pytest.mark.parametrize("count", [1, 4, 32])
def test_each_is_drawn_in_proportion_and_evenly(count):
    p, drawn = np.asarray(importance.probabilities(SIZES)), []
    offsets = (np.arange(1000) + 0.5) / 1000
    for offset in offsets:
        points = ((np.arange(count) + offset) / count).astype("float32")
        index = np.asarray(importance.systematic_sample(p, points))
        assert index.dtype == np.int32
        drawn.append(np.bincount(index, minlength=len(p)))
    assert np.abs(np.array(drawn) - count * p).max() < 1.001
    # Exact but for the grid of offsets.
    np.testing.assert_allclose(np.mean(drawn, axis=0), count * p, atol=2e-3)


def test_the_weighted_mean_is_that_of_all_on_average():
    p = np.asarray(importance.probabilities(SIZES))
    values, means = np.arange(6.0), []
    for offset in (np.arange(1000) + 0.5) / 1000:
        points = ((np.arange(4) + offset) / 4).astype("float32")
        index = np.asarray(importance.systematic_sample(p, points))
        weights = np.asarray(importance.weights(p, index))
        assert weights.max() <= 5.001
        means.append((weights * values[index]).mean())
    assert np.mean(means) == pytest.approx(values.mean(), abs=1e-2)


def test_the_last_index_is_within_the_batch():
    p = np.full(3, 0.33, "float32")
    index = importance.systematic_sample(p, np.array([0.995], "float32"))
    assert np.asarray(index).tolist() == [2]
