"""Utilities against NumPy references, with ties and failed members."""

import keras
import numpy as np
import pytest

from keras_es.ops import fitness as shaping
from tests.reference import numpy_es

INF = float("inf")
POPULATIONS = {
    "distinct": [3.0, -1.0, 2.5, 0.0, 7.0, 6.0],
    "two": [1.0, 0.5],
    "ties": [1.0, 2.0, 1.0, 2.0, 0.0, 2.0],
    "tie of the best": [0.0, 0.0, 1.0, 2.0],
    "all equal": [4.0, 4.0, 4.0, 4.0],
    "one failed": [3.0, INF, 1.0, 2.0],
    "several failed": [3.0, INF, 1.0, INF],
    "all failed": [INF, INF, INF, INF],
}


@pytest.mark.parametrize("losses", POPULATIONS.values(), ids=POPULATIONS)
@pytest.mark.parametrize("name", shaping.SHAPINGS)
def test_utilities_equal_the_reference(name, losses):
    utilities = shaping.get(name)(np.array(losses, "float32"))
    expected = numpy_es.SHAPINGS[name](losses)
    np.testing.assert_allclose(utilities, expected, atol=1e-6)


@pytest.mark.parametrize("losses", POPULATIONS.values(), ids=POPULATIONS)
@pytest.mark.parametrize("name", shaping.SHAPINGS)
def test_utilities_sum_to_zero(name, losses):
    utilities = shaping.get(name)(np.array(losses, "float32"))
    np.testing.assert_allclose(np.sum(utilities), 0.0, atol=1e-5)


@pytest.mark.parametrize("name", shaping.SHAPINGS)
def test_better_members_never_get_less(name):
    losses = np.sort(np.random.default_rng(0).normal(size=20)).astype("float32")
    utilities = np.array(shaping.get(name)(losses))
    assert np.all(np.diff(utilities) <= 1e-7)
    assert utilities[0] > utilities[-1]


@pytest.mark.parametrize("name", ["centered_rank", "nes", "best_only"])
def test_ranks_do_not_change_under_monotone_maps(name):
    losses = np.array([0.3, -2.0, 1.7, 5.0], "float32")
    shape = shaping.get(name)
    np.testing.assert_array_equal(shape(losses), shape(np.exp(losses)))


@pytest.mark.parametrize("name", shaping.SHAPINGS)
def test_member_that_failed_ranks_worst(name):
    losses = np.array([3.0, 1.0, INF, 2.0], "float32")
    utilities = np.array(shaping.get(name)(losses))
    assert np.all(np.isfinite(utilities))
    assert utilities[2] == utilities.min()


@pytest.mark.parametrize("unit", [1e25, 3e37, 1e-25, 1e-35])
def test_utilities_in_standard_deviations_have_no_unit(unit):
    losses = np.array([1.0, 9.0, 4.0, INF, 8.0])
    found = shaping.standardize((unit * losses).astype("float32"))
    np.testing.assert_allclose(found, numpy_es.standardize(losses), rtol=1e-4)


@pytest.mark.parametrize("name", ["raw", "standardize"])
def test_equal_losses_say_nothing(name):
    for n in (3, 7, 10):
        assert not np.any(shaping.get(name)(np.full(n, 0.1, "float32")))


def test_baseline_of_shared_examples_is_the_mean_of_the_pair():
    losses = np.array([1.0, 3.0, 10.0, 20.0], "float32")
    centred = shaping.baseline(losses, np.ones(4, bool), True)
    np.testing.assert_allclose(centred, [-1.0, 1.0, -5.0, 5.0])


def test_baseline_of_one_batch_is_the_mean_of_all():
    losses = np.array([1.0, 3.0, 10.0, 20.0], "float32")
    centred = shaping.baseline(losses, np.ones(4, bool), False)
    np.testing.assert_allclose(centred, losses - 8.5)


@pytest.mark.parametrize("shared", [True, False])
def test_baseline_leaves_failed_members_out(shared):
    losses = np.array([1.0, np.nan, 3.0, 5.0], "float32")
    valid = np.array([True, False, True, True])
    centred = np.array(shaping.baseline(losses, valid, shared))
    expected = [0.0, INF, -1.0, 1.0] if shared else [-2.0, INF, 0.0, 2.0]
    np.testing.assert_allclose(centred, expected)


def test_get_returns_functions_and_refuses_unknown_names():
    def mine(fitness):
        return -fitness

    assert shaping.get(mine) is mine
    assert shaping.get("nes") is shaping.nes
    with pytest.raises(ValueError, match="must be one of .*centered_rank.*'median'"):
        shaping.get("median")


@keras.saving.register_keras_serializable(package="test_fitness")
def negative(fitness):
    return -fitness


@pytest.mark.parametrize("function", [*shaping.SHAPINGS.values(), negative])
def test_round_trip_through_the_config(function):
    assert shaping.get(shaping.serialize(function)) is function
