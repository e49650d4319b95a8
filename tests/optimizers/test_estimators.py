"""Search gradients of bound optimizers against the truth over all masks."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.optimizers import BernoulliNES, GuidedNES, OpenES
from tests.reference import numpy_es, problems
from tests.reference.estimates import assert_unbiased

STEPS = 2000


def bits(masks):
    """Number of a list of masks as the row of `numpy_es.all_masks`."""
    flat = tf.concat([tf.reshape(m, [-1]) for m in masks], axis=0)
    powers = tf.constant(2 ** np.arange(int(flat.shape[0]))[::-1], tf.int32)
    return tf.reduce_sum(tf.cast(flat, tf.int32) * powers)


def estimates(optimizer, loss_of_member, guidance=None, steps=STEPS):
    """Run `estimate` on many generations; return [steps, d]."""
    n = optimizer.population_size
    count = len(optimizer.masked_weights)

    def one(generation):
        optimizer.generation.assign(generation)
        losses = [loss_of_member(pair) for pair in range(optimizer.pairs)]
        fitness = tf.reshape(tf.stack(losses), [n])
        found = optimizer.estimate(fitness, tf.ones([n], tf.bool), guidance)
        gradient = tf.nest.flatten(found)[:count]  # GuidedNES goes on with its guidance
        return tf.concat([tf.reshape(g, [-1]) for g in gradient], axis=0)

    run = tf.function(
        lambda: tf.map_fn(one, tf.range(steps, dtype=tf.int64), tf.float32, 1),
        autograph=False,
    )
    return run().numpy()


def two_weights(optimizer):
    """Bind to two masked weights of 3 and 4 units, with scores of our own."""
    keras.utils.set_random_seed(0)
    masked = keras_es.layers.MaskedDense
    block = keras_es.patterns.Channel()
    model = keras_es.ESSequential(
        [
            keras.Input((5,)),
            masked(3, sparsity=1 / 3, pattern=block, use_bias=False),
            masked(4, sparsity=0.5, pattern=block, use_bias=False),
        ]
    )
    optimizer.build(model.trainable_variables)
    return model


def probabilities(optimizer):
    return np.concatenate([np.ravel(p) for p in optimizer.search.probabilities()])


def random_losses(d):
    return np.random.default_rng(5).normal(size=2**d).astype("float32")


def truth_of_scores(optimizer, losses):
    """Exact gradient with respect to the scores at the tau of now."""
    p = probabilities(optimizer).astype("float64")
    return numpy_es.bernoulli_gradient(losses, p) / float(
        optimizer.search.temperature()
    )


def natural_truth(optimizer, losses):
    """Exact natural gradient with respect to the logits at the tau of now."""
    p = probabilities(optimizer).astype("float64")
    return numpy_es.bernoulli_gradient(losses, p) / (p * (1 - p))


def by_table(optimizer, losses):
    """Return the losses of a pair, looked up in a table over all masks."""
    table = tf.constant(losses)
    return lambda pair: [
        tf.gather(table, bits(masks)) for masks in optimizer.member_masks(pair)
    ]


@pytest.mark.parametrize("population_size", [2, 6])
@pytest.mark.parametrize("batch_mode", ["full", "split"])
def test_bernoulli_nes_is_unbiased(batch_mode, population_size):
    optimizer = BernoulliNES(
        "sgd", population_size, batch_mode, fitness_shaping="raw", sigma=0.8
    )
    model = two_weights(optimizer)
    losses = random_losses(7)
    samples = estimates(optimizer, by_table(optimizer, losses))
    assert_unbiased(samples, truth_of_scores(optimizer, losses), 1e-7)
    assert model.built


@pytest.mark.parametrize("guided_by", ["zero", "noise", "slope"])
def test_guided_nes_is_unbiased_whatever_guides_it(guided_by):
    optimizer = GuidedNES("sgd", 4, sigma=0.8, correction=1.0)
    model = two_weights(optimizer)
    losses = random_losses(7)
    random = np.random.default_rng(1)
    for guidance in optimizer._guidance:
        if guided_by == "noise":
            guidance.assign(random.normal(size=guidance.shape, scale=2.0))
        if guided_by == "slope":
            guidance.assign(np.ones(guidance.shape))
    now = [tf.random.normal(g.shape, seed=1) for g in optimizer._guidance]
    samples = estimates(optimizer, by_table(optimizer, losses), now)
    assert_unbiased(samples, natural_truth(optimizer, losses), 1e-7)
    assert model.built


def test_guidance_by_the_true_slope_leaves_no_variance():
    optimizer = GuidedNES("sgd", 2, sigma=0.8, correction=1.0)
    model = problems.bound(optimizer, units=6)
    slope = np.random.default_rng(2).normal(size=(6, 1)).astype("float32")
    optimizer._guidance[0].assign(slope)
    losses = (numpy_es.all_masks(6) @ slope)[:, 0].astype("float32")
    now = [tf.zeros((6, 1))]
    samples = estimates(optimizer, by_table(optimizer, losses), now, steps=20)
    np.testing.assert_allclose(
        samples - natural_truth(optimizer, losses), 0.0, atol=1e-5
    )
    assert model.built


def test_without_correction_guided_nes_is_straight_through():
    optimizer = GuidedNES("sgd", 2, sigma=0.5, correction=0.0)
    model = problems.bound(optimizer, units=6)
    slope = np.random.default_rng(2).normal(size=(6, 1)).astype("float32")
    optimizer._guidance[0].assign(slope)
    samples = estimates(
        optimizer, by_table(optimizer, random_losses(6)), [tf.zeros((6, 1))], steps=3
    )
    np.testing.assert_array_equal(samples, np.tile(np.ravel(slope), (3, 1)))
    assert model.built


def test_automatic_correction_averages_what_the_budget_allows():
    optimizer = GuidedNES("sgd", 4, guidance_momentum=0.9)
    np.testing.assert_allclose(optimizer.budget(), 40.0)
    assert GuidedNES("sgd", 4, correction=1.0).budget() is None


def test_open_es_follows_the_gradient_of_a_quadratic():
    optimizer = OpenES("sgd", 4, "full", fitness_shaping="raw", sigma=0.4)
    model = problems.bound(optimizer, units=5)
    mean = optimizer.masked_weights[0].mask_scores.numpy()
    centre = np.linspace(-1, 1, 5).astype("float32")[:, None]
    curvature = np.arange(1, 6, dtype="float32")[:, None]

    def losses(pair):
        (noise,) = optimizer.search.noise(pair)
        points = [mean + sign * 0.4 * noise for sign in (1.0, -1.0)]
        return [0.5 * tf.reduce_sum(curvature * (x - centre) ** 2) for x in points]

    samples = estimates(optimizer, losses)
    assert_unbiased(samples, np.ravel(curvature * (mean - centre)), 1e-7)
    assert model.built


def test_open_es_is_unbiased_through_the_decoded_mask():
    # Two units, one active: P(first) = Phi((s1 - s2)/(sigma sqrt 2)), known exactly.
    sigma = 0.5
    optimizer = OpenES("sgd", 2, "full", fitness_shaping="raw", sigma=sigma)
    model = problems.bound(optimizer, units=2)
    optimizer.masked_weights[0].mask_scores.assign([[0.3], [0.1]])

    def losses(pair):
        return [tf.where(m[0][0, 0], 1.0, 3.0) for m in optimizer.member_masks(pair)]

    z = 0.2 / (sigma * math.sqrt(2))
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / (sigma * math.sqrt(2))
    slope = (1.0 - 3.0) * density
    assert_unbiased(estimates(optimizer, losses), np.array([slope, -slope]), 1e-7)
    assert model.built


def test_weight_on_the_best_member_alone_is_pbil():
    optimizer = BernoulliNES("sgd", 8, "full", fitness_shaping="best_only")
    model = problems.bound(optimizer, units=6)
    members = [m[0] for pair in range(4) for m in optimizer.member_masks(pair)]
    losses = np.arange(8, dtype="float32")[::-1].copy()
    (gradient,) = optimizer.estimate(losses, np.ones(8, bool), None)
    best, other = np.array(members[7]), np.array(members[6])
    gradient = np.array(gradient)
    # Where the pair of the best differs, p moves towards the best; elsewhere it rests.
    differs = best != other
    np.testing.assert_array_equal(
        np.sign(-gradient), np.where(differs, 2 * best - 1, 0)
    )
    assert differs.any() and model.built


def test_members_of_a_pair_are_antithetic():
    optimizer = BernoulliNES("sgd", 4, sigma=0.7)
    model = problems.bound(optimizer, units=1000, sparsity=0.5)
    first, second = (np.array(m[0], float) for m in optimizer.member_masks(0))
    p = np.array(optimizer.search.probabilities()[0])
    np.testing.assert_allclose([first.sum(), second.sum()], p.sum(), atol=5 * 16)
    # [u < p] and [1 - u < p] overlap as little as their laws allow.
    assert not np.any((first == 1) & (second == 1) & (p < 0.5))
    assert not np.any((first == 0) & (second == 0) & (p > 0.5))
    assert model.built


def test_gaussian_members_are_scores_plus_and_minus_noise():
    optimizer = OpenES("sgd", 4, sigma=0.7)
    model = problems.bound(optimizer, units=50)
    (masked,) = optimizer.masked_weights
    (noise,) = optimizer.search.noise(1)
    plus, minus = (m[0] for m in optimizer.member_masks(1))
    scores = masked.mask_scores.value
    np.testing.assert_array_equal(plus, masked.decode(scores + 0.7 * noise))
    np.testing.assert_array_equal(minus, masked.decode(scores - 0.7 * noise))
    assert model.built
