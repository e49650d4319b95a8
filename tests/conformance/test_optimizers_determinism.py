"""Training is a function of the seeds, to the bit."""

import functools

import keras
import numpy as np
import pytest

import keras_es
from keras_es import optimizers
from tests.marks import slow_unless
from tests.reference import problems


@functools.cache
def trained(name, seed, run=0):
    """Return all state after two epochs, and the scores and the latent kernel."""
    dropout = keras.layers.Dropout(0.2, seed=5)
    model = problems.make_model(layers=[dropout])
    problems.compiled(problems.make(name, seed=seed), model)
    problems.fit(model, epochs=2)
    (masked,) = keras_es.masked_weights(model)
    both = masked.mask_scores.numpy(), masked.kernel.numpy()
    return problems.weights_of(model), *both


# For each method training/test_resume.py has it from the first epoch on.
@pytest.mark.parametrize(
    "name",
    slow_unless(["set", "snes", "forward_gradient"], sorted(optimizers.OPTIMIZERS)),
)
def test_same_seed_same_weights_and_masks(name):
    first, second = (trained(name, seed=1, run=run)[0] for run in (0, 1))
    problems.assert_same(first, second)


@pytest.mark.parametrize(
    "name", slow_unless(["set", "snes"], sorted(optimizers.OPTIMIZERS))
)
def test_another_seed_searches_elsewhere(name):
    _, scores, kernel = trained(name, seed=1, run=0)
    _, other_scores, other_kernel = trained(name, seed=2)
    # Where no noise is drawn the seed must make no difference.
    alike = name not in [*problems.POPULATIONS, "set"]
    assert np.array_equal(scores, other_scores) == alike
    alike = alike and name not in problems.DIRECTIONAL
    assert np.array_equal(kernel, other_kernel) == alike


@pytest.mark.parametrize("name", ["snes", "bernoulli_nes"])
def test_each_generation_draws_new_members(name):
    optimizer = problems.make(name)
    model = problems.bound(optimizer, units=200)
    drawn = []
    for generation in (0, 1, 0):
        optimizer.generation.assign(generation)
        drawn.append(np.array(optimizer.member_masks(0)[0][0]))
    assert (drawn[0] == drawn[2]).all() and (drawn[0] != drawn[1]).any()
    assert model.built
