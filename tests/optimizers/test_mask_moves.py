"""Whole trajectories of masks and weights against NumPy, step by step."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es import patterns, schedules
from keras_es.ops import noise
from keras_es.optimizers import SET, GradualMagnitude, RigL, StraightThrough
from tests.marks import slow
from tests.reference import numpy_masks, numpy_moves

INPUTS, OUTPUTS, STEPS = 12, 8, 8
PATTERNS = {
    "weights": (patterns.Unstructured(), 0.7),
    "blocks": (patterns.Block(2, 2), 0.6),
    "channels": (patterns.Channel(), 0.5),
    "rows": (patterns.Rows(), 0.5),
    "groups": (patterns.NByM(2, 4), 0.5),
}
EVERY_PATTERN = pytest.mark.parametrize("pattern", PATTERNS)
RATE, MOMENTUM = 0.1, 0.8


def problem(pattern, optimizer, jit_compile=False):
    """A linear model, its masked weight, the same in NumPy, and the data."""
    chosen, sparsity = PATTERNS[pattern]
    keras.utils.set_random_seed(4)
    layer = keras_es.layers.MaskedDense(
        OUTPUTS, use_bias=False, sparsity=sparsity, pattern=chosen, mask_seed=2
    )
    model = keras_es.ESSequential([keras.Input((INPUTS,)), layer])
    model.compile(optimizer, loss="mse", jit_compile=jit_compile)
    random = np.random.default_rng(1)
    x = random.normal(size=(32, INPUTS)).astype("float32")
    # Outputs of many sizes, so that gradients tell units from each other.
    y = random.normal(size=(32, OUTPUTS)) * np.linspace(0.1, 3.0, OUTPUTS)
    y = y.astype("float32")
    (masked,) = layer.masked_weights
    units = np.array(masked.stored_units())
    linear = numpy_moves.Linear(
        x, y, masked.kernel.numpy(), units, chosen, RATE, MOMENTUM
    )
    return model, masked, linear, (x, y)


def sgd():
    return keras.optimizers.SGD(RATE, momentum=MOMENTUM)


def assert_same(model, masked, linear, xy):
    """Train a step; the masks are equal, kernel and momentum close."""
    logs = model.train_on_batch(*xy, return_dict=True)
    np.testing.assert_array_equal(masked.kernel_mask.numpy(), linear.mask)
    np.testing.assert_allclose(masked.kernel.numpy(), linear.kernel, 1e-4, 1e-5)
    (velocity,) = model.optimizer.inner.slots[id(masked.kernel)]
    np.testing.assert_allclose(velocity.numpy(), linear.velocity, 1e-4, 1e-5)
    assert logs["sparsity"] == pytest.approx(1 - linear.mask.mean())
    return logs


def updates():
    return schedules.CosineUpdates(
        end_step=7, drop_fraction=0.8, update_every=2, begin_step=1
    )


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
@EVERY_PATTERN
def test_rigl(pattern, jit_compile):
    optimizer = RigL(sgd(), update_schedule=updates())
    model, masked, linear, xy = problem(pattern, optimizer, jit_compile)
    moved = 0
    for step in range(1, STEPS + 1):
        gradient = linear.train()
        before = linear.units
        if step in (3, 5):  # 7 is the end
            share = numpy_moves.cosine_share(0.8, step, 7)
            units = numpy_moves.drop_and_grow(
                linear.pattern,
                linear.units,
                linear.sums(np.abs(linear.kernel)),
                linear.sums(np.abs(gradient)),
                share,
            )
            linear.move(units, from_zero=True)
        logs = assert_same(model, masked, linear, xy)
        flips = (linear.units != before).mean()
        assert logs["mask_flip_ratio"] == pytest.approx(flips)
        moved += flips > 0
    assert moved > 0


@EVERY_PATTERN
def test_set(pattern):
    optimizer = SET(sgd(), update_schedule=updates(), seed=5)
    model, masked, linear, xy = problem(pattern, optimizer)
    key = noise.stream_key(5, "growth 0")
    grown = []
    for step in range(1, STEPS + 1):
        linear.train()
        if step in (3, 5):
            before = linear.units
            draws = noise.uniform(before.shape, noise.counter_seed(key, step, 0))
            units = numpy_moves.drop_and_grow(
                linear.pattern,
                before,
                linear.sums(np.abs(linear.kernel)),
                np.array(draws),
                numpy_moves.cosine_share(0.8, step, 7),
            )
            linear.move(units, from_zero=True)
            grown.append((units & ~before).sum())
        assert_same(model, masked, linear, xy)
    assert sum(grown) > 0


@EVERY_PATTERN
def test_gradual_magnitude(pattern):
    schedule = schedules.PolynomialSparsity(
        end_step=6, begin_step=1, initial_sparsity=0.1, update_every=2
    )
    optimizer = GradualMagnitude(sgd(), sparsity_schedule=schedule)
    model, masked, linear, xy = problem(pattern, optimizer)
    seen = []
    for step in range(STEPS + 1):
        if step:
            linear.train()
        if step in (0, 3, 5, 6):
            left = max(0.0, min(1.0, 1 - (step - 1) / 5)) ** 3
            units = numpy_moves.pruned(
                linear.pattern,
                linear.sums(np.abs(linear.kernel)),
                masked.unit_count,
                0.9,
                left,
            )
            linear.move(units, from_zero=False)
        if step:
            assert_same(model, masked, linear, xy)
        seen.append(int(linear.units.sum()))
    assert seen[0] > seen[3] >= seen[6] == seen[-1] == masked.unit_count


@EVERY_PATTERN
def test_straight_through(pattern):
    optimizer = StraightThrough(sgd(), score_optimizer=keras.optimizers.SGD(3.0))
    model, masked, linear, xy = problem(pattern, optimizer)
    scores = masked.mask_scores.numpy().astype("float64")
    flips = 0
    for _ in range(STEPS):
        kernel = linear.kernel
        gradient = linear.train()
        scores = scores - 3.0 * linear.sums(gradient * kernel)
        before = linear.units
        sparsity = PATTERNS[pattern][1]
        linear.move(
            numpy_masks.unit_mask(linear.pattern, scores, sparsity), from_zero=False
        )
        flips += (before != linear.units).sum()
        assert_same(model, masked, linear, xy)
        np.testing.assert_allclose(masked.mask_scores.numpy(), scores, 1e-4, 1e-5)
    assert flips > 0
