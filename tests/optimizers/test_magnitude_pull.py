"""Scores of evolution strategies that are drawn to the magnitudes of their units."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es import optimizers, patterns, schedules
from keras_es.optimizers import SNES, Falling, OpenES, Turns
from tests.marks import slow
from tests.reference import problems


def made(method, pull, schedule=None, **kwargs):
    cls = optimizers.get(method) if isinstance(method, str) else method
    kwargs = {"population_size": 2, "turns": Turns(steps=1), **kwargs}
    return cls(keras.optimizers.SGD(0.1), density=Falling(schedule, pull), **kwargs)


def magnitude(masked):
    u = np.asarray(masked.reduce(np.abs(masked.kernel.numpy())))
    return (u - u.mean()) / u.std()


@pytest.mark.parametrize("pattern", [patterns.Unstructured(), patterns.Block(4, 2)])
@pytest.mark.parametrize("method", problems.POPULATIONS)
def test_scores_go_a_share_of_the_way_to_the_magnitudes(method, pattern):
    if method == "snes":
        rates = {"mean_learning_rate": 0.0}
    else:
        rates = {"score_optimizer": keras.optimizers.SGD(0.0)}
    model = problems.make_model(pattern=pattern)
    problems.compiled(made(method, 0.25, **rates), model)
    (masked,) = keras_es.masked_weights(model)
    for _ in range(3):
        before = masked.mask_scores.numpy()
        model.train_on_batch(*problems.data())
        # Weights move first.
        expected = 0.75 * before + 0.25 * magnitude(masked)
        scores, mask = masked.mask_scores.numpy(), masked.stored_units().numpy()
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
        assert mask.sum() == masked.unit_count
        assert scores[mask].min() >= scores[~mask].max()


def test_pull_of_one_without_noise_is_magnitude_pruning():
    falling = schedules.PolynomialSparsity(6, update_every=1)
    model, pruned = (
        problems.compiled(optimizer, problems.make_model())
        for optimizer in (
            made(OpenES, 1.0, sigma=1e-9, schedule=falling, batch_mode="full"),
            optimizers.GradualMagnitude(
                keras.optimizers.SGD(0.1), sparsity_schedule=falling
            ),
        )
    )
    for each in (model, pruned):
        problems.fit(each, epochs=3)
    masks = [keras_es.masked_weights(m)[0].kernel_mask.numpy() for m in (model, pruned)]
    np.testing.assert_array_equal(*masks)


def trained_until_rest(method, sigma):
    """Train a search that ends after its second generation; its scores rest then."""
    ending = keras.optimizers.schedules.PiecewiseConstantDecay([1], [sigma, 0.0])
    still = keras.optimizers.SGD(0.0)
    model = problems.compiled(made(method, 0.5, sigma=ending, score_optimizer=still))
    (masked,) = keras_es.masked_weights(model)
    scores = []
    for _ in range(5):
        model.train_on_batch(*problems.data())
        scores.append(masked.mask_scores.numpy())
        assert np.isfinite(scores[-1]).all()
    assert np.abs(scores[1] - scores[0]).max() > 0
    for later in scores[2:]:
        np.testing.assert_array_equal(scores[1], later)
    return model, masked


def test_masks_rest_with_the_search():
    trained_until_rest(OpenES, sigma=0.5)


@pytest.mark.parametrize("method", ["guided_nes", "bernoulli_nes"])
def test_bernoulli_masks_rest_at_temperature_zero(method):
    model, masked = trained_until_rest(method, sigma=0.1)
    deployed = masked.stored_units().numpy()
    for (units,) in model.optimizer.member_masks(0):
        np.testing.assert_array_equal(units.numpy(), deployed)


def test_equal_magnitudes_pull_to_zero():
    model = problems.make_model()
    (masked,) = keras_es.masked_weights(model)
    masked.kernel.assign(np.ones(masked.shape))
    optimizer = made(SNES, 1.0)
    optimizer.build(model.trainable_variables)
    (sizes,) = optimizers.magnitudes.standardized(optimizer.masked_weights)
    np.testing.assert_array_equal(sizes, np.zeros(sizes.shape))


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_training_goes_on_to_the_bit(tmp_path, jit_compile):
    decay = keras.optimizers.schedules.PolynomialDecay(0.5, 10, 0.0)
    loaded = problems.assert_goes_on_to_the_bit(
        tmp_path,
        lambda: made(OpenES, decay, turns=Turns(steps=2)),
        jit_compile=jit_compile,
    )
    assert loaded.optimizer.magnitude_pull.decay_steps == 10


def test_wrong_pulls_are_refused():
    for wrong in (1.5, -0.1, "much"):
        with pytest.raises(ValueError, match="`pull` must be .*Received"):
            OpenES("adam", density=Falling(None, wrong))
    with pytest.raises(ValueError, match="losses alone. Received: density"):
        OpenES(None, density=Falling(None, 0.1))
    layer = keras_es.layers.BlockSparseDense(8, sparsity=0.5, block_size=(4, 4))
    model = keras_es.ESSequential([keras.Input((16,)), layer])
    with pytest.raises(ValueError, match="magnitudes of all units .*Received"):
        made(OpenES, 0.1).build(model.trainable_variables)
