"""What moves scores and search distributions, step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.optimizers import (
    SNES,
    BernoulliNES,
    EvolutionStrategy,
    GuidedNES,
    OpenES,
    Turns,
)
from tests.reference import numpy_es, problems

TRUE = tf.constant(True)
LOSSES = np.array([0.3, 2.0, -1.0, 0.5, 7.0, 0.1], "float32")


def generation(optimizer, losses=LOSSES):
    """Tell the losses of one generation; return its noise [n, d]."""
    (masked,) = optimizer.masked_weights
    half = [
        np.ravel(optimizer.search.noise(pair)[0]) for pair in range(optimizer.pairs)
    ]
    valid = np.isfinite(losses)
    optimizer.learn(losses, valid, None, TRUE)
    return np.array([sign * z for z in half for sign in (1.0, -1.0)])


@pytest.mark.parametrize("std_learning_rate", [None, 0.0, 0.4])
def test_snes_is_the_algorithm_of_the_paper(std_learning_rate):
    optimizer = SNES(
        "sgd", 6, "full", sigma=0.5, mean_learning_rate=0.8,
        std_learning_rate=std_learning_rate,
    )  # fmt: skip
    model = problems.bound(optimizer, units=10)
    (masked,) = optimizer.masked_weights
    mean, std = masked.mask_scores.numpy().ravel(), np.full(10, 0.5)
    for shift in range(3):
        losses = np.roll(LOSSES, shift)
        noise = generation(optimizer, losses)
        mean, std = numpy_es.snes(mean, std, noise, losses, 0.8, std_learning_rate)
        np.testing.assert_allclose(masked.mask_scores.numpy().ravel(), mean, rtol=1e-4)
        np.testing.assert_allclose(
            optimizer.scales()[0].numpy().ravel(), std, rtol=1e-4
        )
    deployed = masked.decode(masked.mask_scores.value)
    np.testing.assert_array_equal(masked.kernel_mask.numpy(), deployed.numpy())
    assert int(optimizer.generation.value) == 3 and model.built


def test_snes_searches_in_the_scale_of_its_std():
    optimizer = SNES("sgd", 2, sigma=0.5)
    model = problems.bound(optimizer, units=20)
    (masked,) = optimizer.masked_weights
    std = np.linspace(0.1, 2.0, 20).astype("float32")[:, None]
    optimizer.scales()[0].assign(std)
    plus = optimizer.member_masks(0)[0][0]
    scores = masked.mask_scores.value + std * optimizer.search.noise(0)[0]
    np.testing.assert_array_equal(plus, masked.decode(scores))
    assert model.built


def test_open_es_descends_with_the_optimizer_of_scores():
    sgd = keras.optimizers.SGD(0.1, momentum=0.5)
    optimizer = OpenES("sgd", 6, "full", sigma=0.5, score_optimizer=sgd)
    model = problems.bound(optimizer, units=10)
    (masked,) = optimizer.masked_weights
    scores, velocity = masked.mask_scores.numpy().ravel(), np.zeros(10)
    for shift in range(3):
        losses = np.roll(LOSSES, shift)
        noise = generation(optimizer, losses)
        gradient = -numpy_es.centered_rank(losses) @ noise / (6 * 0.5)
        velocity = 0.5 * velocity - 0.1 * gradient
        scores = scores + velocity
        np.testing.assert_allclose(
            masked.mask_scores.numpy().ravel(), scores, rtol=1e-4
        )
    assert model.built


def test_split_mode_ranks_members_against_their_pair():
    # The third pair had hard examples; only differences within pairs may count.
    losses = np.array([1.0, 2.0, 1.2, 1.0, 90.0, 99.0], "float32")
    split, full = (
        np.array(OpenES("sgd", 6, mode).utilities(losses, np.ones(6, bool)))
        for mode in ("split", "full")
    )
    np.testing.assert_allclose(
        split, numpy_es.centered_rank([-0.5, 0.5, 0.1, -0.1, -4.5, 4.5]), atol=1e-6
    )
    np.testing.assert_allclose(full, numpy_es.centered_rank(losses), atol=1e-6)


def test_utilities_of_a_failed_generation_are_zero():
    nothing = np.full(6, np.nan, "float32")
    for shaping in ("nes", "raw", "centered_rank"):
        optimizer = OpenES("sgd", 6, fitness_shaping=shaping)
        utilities = optimizer.utilities(nothing, np.zeros(6, bool))
        np.testing.assert_array_equal(utilities, np.zeros(6))


@pytest.mark.parametrize("cls", [OpenES, BernoulliNES, GuidedNES])
def test_noise_may_end_at_zero(cls):
    schedule = keras.optimizers.schedules.PolynomialDecay(0.5, 3, 0.0)
    optimizer = cls("adam", population_size=4, sigma=schedule, turns=Turns(4, 1))
    model = problems.compiled(optimizer)
    problems.fit(model, epochs=4)
    (masked,) = keras_es.masked_weights(model)
    assert np.all(np.isfinite(masked.mask_scores.numpy()))
    # Without noise every member is the deployed mask.
    for (units,) in optimizer.member_masks(0):
        assert np.mean(np.array(units) == masked.kernel_mask.numpy()) > 0.97


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_expected_number_of_ones_is_that_of_the_deployed_mask(sparsity):
    optimizer = BernoulliNES("adam", 4, score_optimizer=keras.optimizers.Adam(0.3))
    model = problems.compiled(optimizer, problems.make_model(sparsity))
    problems.fit(model, epochs=3)
    (masked,) = keras_es.masked_weights(model)
    expected = float(np.sum(np.array(optimizer.search.probabilities()[0])))
    np.testing.assert_allclose(expected, masked.unit_count, rtol=0.05)


def test_guidance_is_the_running_mean_of_the_backward_pass():
    optimizer = GuidedNES("sgd", 2, guidance_momentum=0.8)
    model = problems.bound(optimizer, units=6)
    old, now = np.full((6, 1), 2.0, "float32"), np.full((6, 1), 7.0, "float32")
    optimizer._guidance[0].assign(old)
    losses, valid = tf.constant([1.0, 2.0]), tf.constant([True, True])
    _, (new,) = optimizer.estimate(losses, valid, [now])
    np.testing.assert_allclose(new, 0.8 * old + 0.2 * now, rtol=1e-6)
    assert model.built


def test_members_that_failed_leave_the_guided_estimate():
    optimizer = GuidedNES("sgd", 4, correction=1.0)
    model = problems.bound(optimizer, units=6)
    guidance = [np.zeros((6, 1), "float32")]
    valid = np.array([True, True, True, False])
    losses = np.array([1.0, 2.0, 3.0, np.nan], "float32")
    (gradient,), _ = optimizer.estimate(losses, valid, guidance)
    a, b = (np.array(m[0], float) for m in optimizer.member_masks(0))
    p = np.array(optimizer.search.probabilities()[0])
    expected = (1.0 - 2.0) / 2 * (a - b) * np.maximum(p, 1 - p) / (p * (1 - p))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    assert model.built


class HillClimb(EvolutionStrategy):
    """The example in the docstring of `MaskOptimizer`."""

    def estimate(self, fitness, valid, said):
        sign = keras.ops.where(fitness[0] < fitness[1], 1.0, -1.0)
        noises = zip(self.scales(), self.search.noise(0))
        return [sign * scale * noise for scale, noise in noises]

    def update(self, estimate, ok):
        moved = zip(self.search.centers(), estimate)
        return [center + step for center, step in moved], []


def test_a_method_of_ones_own_is_two_hooks():
    optimizer = HillClimb("adam", population_size=2, sigma=0.1)
    model = problems.bound(optimizer, units=10)
    (masked,) = optimizer.masked_weights
    before, (noise,) = masked.mask_scores.numpy(), optimizer.search.noise(0)
    generation(optimizer, np.array([1.0, 2.0], "float32"))
    np.testing.assert_allclose(masked.mask_scores.numpy(), before + 0.1 * noise, 1e-4)
    assert model.built
    trained = problems.compiled(HillClimb("adam", population_size=2))
    assert np.isfinite(problems.fit(trained).history["loss"][0])


def test_a_method_of_ones_own_may_evolve_weights():
    optimizer = HillClimb(None, population_size=2, sigma=0.1)
    weight = keras.Variable(np.zeros((3, 2), "float32"))
    optimizer.build([weight])
    (noise,) = optimizer.search.noise(0)
    (members,) = optimizer.ask()
    np.testing.assert_allclose(members, np.stack([0.1 * noise, -0.1 * noise]), 1e-5)
    optimizer.tell([2.0, 1.0])
    np.testing.assert_allclose(weight.numpy(), -0.1 * noise, 1e-5)
