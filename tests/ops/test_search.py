"""Search gradients and updates against references and known gradients."""

import numpy as np
import pytest

from keras_es.ops import search
from tests.reference import numpy_es
from tests.reference.estimates import assert_unbiased


@pytest.mark.parametrize("sigma", [0.3, np.array([0.1, 0.5, 1.0, 2.0])], ids=str)
def test_gaussian_gradient_of_a_quadratic(sigma):
    random = np.random.default_rng(0)
    d, n, steps = 4, 8, 4000
    hessian, centre, mean = np.diag([1.0, 2, 3, 4]), random.normal(size=d), np.ones(d)
    half = random.normal(size=(steps, n // 2, d))
    noise = np.stack([half, -half], axis=2).reshape(steps, n, d)
    x = mean + sigma * noise - centre
    losses = 0.5 * np.einsum("tni,ij,tnj->tn", x, hessian, x)
    utilities = losses.mean(axis=1, keepdims=True) - losses
    sums = np.einsum("tn,tni->ti", utilities, noise)
    estimates = np.array(search.gaussian(sums, n, sigma))
    assert_unbiased(estimates, hessian @ (mean - centre))


def test_gaussian_is_zero_where_there_is_no_noise():
    # A schedule of sigma may end at 0: members are equal then, and say nothing.
    assert np.all(np.array(search.gaussian(np.zeros(3, "float32"), 8, 0.0)) == 0)


def test_snes_updates_equal_the_paper():
    random = np.random.default_rng(1)
    mean, std = random.normal(size=10), np.abs(random.normal(size=10)) + 0.1
    noise, losses = random.normal(size=(6, 10)), random.normal(size=6)
    utilities = numpy_es.nes(losses)
    new_mean = search.snes_mean_update(mean, std, utilities @ noise, 0.7)
    eta = search.snes_std_learning_rate(10)
    new_std = search.snes_std_update(std, utilities @ (noise**2 - 1), eta)
    expected = numpy_es.snes(mean, std, noise, losses, eta_mean=0.7)
    np.testing.assert_allclose(new_mean, expected[0], rtol=1e-6)
    np.testing.assert_allclose(new_std, expected[1], rtol=1e-6)


def antithetic(random, p, pairs):
    """Draw `pairs` pairs of antithetic Bernoulli masks."""
    u = random.uniform(size=(pairs, len(p)))
    return (u < p).astype("float64"), (1 - u < p).astype("float64")


def index(masks):
    """Row of each mask in `numpy_es.all_masks`."""
    return (masks @ 2 ** np.arange(masks.shape[1])[::-1]).astype(int)


@pytest.mark.parametrize("d", [1, 3, 8])
def test_antithetic_bernoulli_is_unbiased(d):
    random = np.random.default_rng(d)
    p, losses = random.uniform(0.05, 0.95, size=d), random.normal(size=2**d)
    first, second = antithetic(random, p, 40_000)
    difference = losses[index(first)] - losses[index(second)]
    weight = np.array(search.antithetic_bernoulli(first, second, p))
    assert_unbiased(
        difference[:, None] * weight, numpy_es.bernoulli_gradient(losses, p)
    )


def test_antithetic_bernoulli_does_not_see_a_constant():
    random = np.random.default_rng(0)
    p, losses = random.uniform(0.2, 0.8, size=6), 10 + random.normal(size=64)
    first, second = antithetic(random, p, 20_000)
    other, _ = antithetic(random, p, 20_000)
    paired = (losses[index(first)] - losses[index(second)])[:, None] * np.array(
        search.antithetic_bernoulli(first, second, p)
    )
    single = sum(losses[index(m)][:, None] * (m - p) for m in (first, other)) / 2
    assert np.all(paired.var(axis=0) < 0.1 * single.var(axis=0))


def test_guided_natural_of_a_linear_loss_is_its_slope():
    random = np.random.default_rng(0)
    p, slope = random.uniform(0.1, 0.9, size=5), random.normal(size=5)
    truth = numpy_es.bernoulli_gradient(numpy_es.all_masks(5) @ slope, p)
    # Without guidance the correction carries all of the gradient, with it nothing.
    for budget in (None, 1e9):
        found = search.guided_natural(np.zeros(5), truth, p, budget)
        np.testing.assert_allclose(found, slope, rtol=1e-5)
    np.testing.assert_allclose(
        search.guided_natural(slope, np.zeros(5), p, None), slope, rtol=1e-6
    )


def test_guided_natural_of_decided_units_is_the_guidance():
    s, p = np.arange(4.0), np.array([0.0, 1.0, 1.0, 0.0])
    found = search.guided_natural(s, np.zeros(4), p, 20.0)
    np.testing.assert_array_equal(found, s)


def test_guided_natural_shrinks_with_the_number_of_undecided_units():
    few, many = np.full(40, 0.5, "float32"), np.full(40_000, 0.5, "float32")
    for p, undecided in ((few, 10.0), (many, 10_000.0)):
        weight = np.array(search.guided_natural(0 * p, np.ones_like(p), p, 40.0))
        np.testing.assert_allclose(weight, 40 / (40 * 0.25 + undecided), rtol=1e-5)


@pytest.mark.parametrize("count", [1, 10, 99])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_calibration_finds_the_expected_count(count, temperature):
    scores = np.random.default_rng(0).normal(size=100).astype("float32")
    shift = search.calibrate_shift(scores, temperature, [0.0], count, iterations=60)
    p = 1 / (1 + np.exp(-(scores - float(shift)) / temperature))
    np.testing.assert_allclose(p.sum(), count, rtol=1e-3)


def test_calibration_starts_from_the_nearest():
    scores = np.arange(100, dtype="float32")
    # From 0 alone, two Newton steps of at most 4T would not arrive.
    shift = search.calibrate_shift(scores, 0.5, [0.0, 90.0], 10)
    logits = np.clip((scores - float(shift)) / 0.5, -50, 50)
    np.testing.assert_allclose((1 / (1 + np.exp(-logits))).sum(), 10, atol=0.01)


def test_calibration_of_a_dense_weight_stays_finite():
    scores, shift = np.zeros(10, "float32"), 0.0
    shift = search.calibrate_shift(scores, 0.5, [shift], 10, iterations=500)
    assert np.isfinite(float(shift)) and float(shift) < -5
