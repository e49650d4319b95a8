"""`keras_es.minimize` on plain functions."""

import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.optimizers import PURE, SNES, SepCMAES


def sphere(x):
    return np.sum((x["a"] - 3.0) ** 2) + np.sum((x["b"][0] + 1.0) ** 2)


X0 = {"a": np.zeros((2, 2)), "b": (np.ones(2),)}


@pytest.mark.parametrize("name", sorted({*PURE} - {"alopex"}))
def test_every_strategy_finds_the_minimum_of_a_sphere(name):
    found = keras_es.minimize(sphere, X0, name, generations=200, verbose=0)
    assert found.loss == pytest.approx(sphere(found.x), rel=1e-4)
    assert found.loss < 0.01 * sphere(X0)
    assert found.mean["a"].shape == (2, 2) and found.mean["b"][0].shape == (2,)


def test_sep_cma_es_learns_the_scale_of_each_coordinate():
    scale = np.logspace(0, 3, 5)

    def ellipsoid(x):
        return np.sum((scale * (x - 1.0)) ** 2)

    strategy = SepCMAES(population_size=12, sigma=0.5)
    found = keras_es.minimize(ellipsoid, np.zeros(5), strategy, generations=300,
                              target=1e-4, verbose=0)  # fmt: skip
    assert found.loss <= 1e-4 and found.generations < 300
    np.testing.assert_allclose(found.x, 1.0, atol=0.011)


def test_compiled_functions_give_the_same():
    plain, compiled = (
        keras_es.minimize(
            f, np.ones((2, 3)), SNES(None, 8, sigma=0.5), generations=20,
            compiled=compiled, verbose=0,
        )
        for f, compiled in (
            (lambda x: np.sum(np.abs(x - 2.0)), False),
            (lambda x: tf.reduce_sum(tf.abs(x - 2.0)), True),
        )
    )  # fmt: skip
    np.testing.assert_allclose(plain.history["best"], compiled.history["best"], 1e-4)
    np.testing.assert_allclose(plain.x, compiled.x, rtol=1e-3)


def test_best_so_far_never_rises_and_failed_members_are_left_out():
    def rough(x):
        return np.nan if x[0] > 0 else float(np.sum(x**2))

    found = keras_es.minimize(rough, np.full(3, -1.0), generations=30, verbose=0)
    best = found.history["best"]
    assert all(b <= a for a, b in zip(best, best[1:]))
    assert found.loss == min(found.history["lowest"]) and found.x[0] <= 0
    assert np.isfinite(found.history["mean"]).all()


def test_progress_bar_and_callback(capsys):
    seen = []

    def stop_after_three(generation, found):
        seen.append((generation, found.loss))
        return generation == 2

    found = keras_es.minimize(sphere, X0, callback=stop_after_three)
    assert [g for g, _ in seen] == [0, 1, 2] and found.generations == 3
    text = capsys.readouterr().out
    assert "best:" in text and "mean:" in text and "3/100" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fn": 3}, "`fn` must be a function of one x. Received: fn=3"),
        ({"generations": 0}, "at least 1. Received: generations=0"),
        ({"x0": []}, "at least one number"),
        ({"strategy": "static"}, "move masks only. Received: strategy='static'"),
        ({"strategy": "cma"}, "must be one of .*Received: 'cma'"),
        ({"strategy": SNES("adam")}, "with inner_optimizer=None, or its name"),
        ({"fn": lambda x: x["a"]}, r"a scalar. Received: a value of shape \(2, 2\)"),
    ],
)
def test_bad_arguments_say_what_was_expected(arguments, message):
    kwargs = {"fn": sphere, "x0": X0, "verbose": 0, **arguments}
    with pytest.raises(ValueError, match=message):
        keras_es.minimize(**kwargs)


def test_a_strategy_serves_one_search():
    strategy = SNES(None, 8)
    keras_es.minimize(sphere, X0, strategy, generations=1, verbose=0)
    with pytest.raises(ValueError, match=r"Give a new one: SNES.from_config.*built"):
        keras_es.minimize(sphere, X0, strategy, generations=1, verbose=0)
