"""Methods in one file each, without another edit, work as those of the package do."""

import importlib
import inspect
import pathlib

import keras
import numpy as np
import pytest

import keras_es
from keras_es import optimizers
from tests.reference import problems

LIMITS = {"hill_climb": 15, "cross_entropy": 30, "differential_evolution": 40}
"""A mask method, a pure strategy and one whose members are given: fewer lines each."""


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Import the newcomers; other tests go through the package's methods alone."""
    monkeypatch.setattr(optimizers.registry, "OPTIMIZERS", dict(optimizers.OPTIMIZERS))
    monkeypatch.setattr(optimizers.registry, "PURE", dict(optimizers.PURE))
    for name in LIMITS:
        importlib.reload(importlib.import_module(f"tests.extending.{name}"))


@pytest.mark.parametrize("name", LIMITS)
def test_it_is_short(name):
    file = inspect.getsourcefile(optimizers.get(name))
    lines = pathlib.Path(file).read_text().splitlines()
    assert len(lines) < LIMITS[name]


@pytest.mark.parametrize("name", LIMITS)
def test_it_trains_a_model_and_is_saved(name, tmp_path):
    cls = optimizers.get(name)
    inner = "adam" if cls.trains_by_gradients else None
    model = problems.compiled(cls(inner, population_size=8, seed=1))
    losses = problems.fit(model, epochs=3).history["loss"]
    assert np.isfinite(losses).all()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    problems.assert_same(problems.weights_of(model), problems.weights_of(again))


@pytest.mark.parametrize("name", LIMITS)
def test_it_minimizes(name):
    strategy = optimizers.get(name)(None, population_size=16, sigma=0.5)
    found = keras_es.minimize(
        lambda x: float(np.sum((x - 1.0) ** 2)), np.zeros(3), strategy,
        generations=60, verbose=0,
    )  # fmt: skip
    assert found.loss < 0.3
