"""Strategies whose pairs are orthogonal to each other."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es.noise import Layerwise, Orthogonal, Outputs
from keras_es.optimizers import PGPE, SNES, OpenES, SepCMAES
from tests.reference import pure

SIGMA = 0.5


def noises(strategy, generations=1):
    """Return (noise [n, d] at sigma 1) of the members of some generations."""
    values = [np.zeros((3, 2), "float32"), np.ones(4, "float32")]
    strategy.build([keras.Variable(v) for v in values])
    for generation in range(generations):
        strategy.generation.assign(generation)
        parts = [np.asarray(m) - v for m, v in zip(strategy.ask(), values)]
        flat = [p.reshape(len(p), -1) for p in parts]
        yield np.concatenate(flat, axis=1) / SIGMA


@pytest.mark.parametrize("name", ["open_es", "snes", "pgpe", "sep_cma_es"])
def test_pairs_are_orthogonal_over_all_weights(name):
    strategy = pure.make(name, members=12, sigma=SIGMA, noise=Orthogonal())
    for found in noises(strategy, 3):
        if strategy.mirrored:
            np.testing.assert_allclose(found[1::2], -found[0::2], atol=1e-6)
            found = found[0::2]
        gram = found[:10] @ found[:10].T  # two more are a block of their own
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-4)


@pytest.mark.parametrize("cls", [OpenES, SNES])
def test_lengths_are_those_without(cls):
    plain, orthogonal = (
        next(noises(cls(None, 12, sigma=SIGMA, noise=noise)))
        for noise in (None, Orthogonal())
    )
    lengths = [np.linalg.norm(n, axis=1) for n in (plain, orthogonal)]
    np.testing.assert_allclose(*lengths, rtol=1e-5)
    assert np.abs(plain[2:] - orthogonal[2:]).max() > 0.1


@pytest.mark.parametrize("around", [Layerwise, lambda noise: Outputs(0.1, noise)])
def test_it_is_on_all_weights_at_once(around):
    with pytest.raises(ValueError, match="on all weights at once.*Orthogonal"):
        around(Orthogonal())


def test_it_is_of_pure_evolution():
    with pytest.raises(ValueError, match="noise=Orthogonal.* is of pure evolution"):
        OpenES("adam", noise=Orthogonal())


def test_minimize_by_name_has_it_and_needs_fewer_evaluations():
    def distance(x):
        return float(np.sum((x - 1.0) ** 2))

    def evaluations(noise):
        counts = []
        for seed in range(3):
            strategy = PGPE(population_size=20, sigma=0.3, seed=seed, noise=noise)
            found = keras_es.minimize(
                distance, np.zeros(10), strategy, generations=100, target=0.1, verbose=0
            )
            counts.append(found.generations)
        return np.median(counts)

    assert evaluations(Orthogonal()) < evaluations(None)
    for cls in (OpenES, SNES, PGPE, SepCMAES):
        assert cls.small_search(8, 0.5)["noise"] == Orthogonal()
