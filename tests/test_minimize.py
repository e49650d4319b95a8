"""`keras_es.minimize` on plain functions."""

import collections
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.noise import Layerwise, Outputs
from keras_es.optimizers import PURE, SNES, Chunks, Sampled, SepCMAES


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
        ({"x0": [np.zeros(2), np.zeros(0)]}, "at least one number.*an empty array"),
        ({"strategy": "static"}, "move masks only. Received: strategy='static'"),
        ({"strategy": "cma"}, "must be one of .*Received: 'cma'"),
        ({"strategy": SNES("adam")}, "with inner_optimizer=None, or its name"),
        ({"strategy": SNES(None, fitness="mse")}, "no `fitness`: `fn` is the fitness"),
        ({"strategy": SNES(None, batch_mode=Sampled(3))}, "no `batch_mode`: .*Sampled"),
        ({"strategy": SNES(None, turns=Chunks(2))}, "no `turns`: members.*Chunks"),
        ({"strategy": SNES(None, noise=Outputs(0.3))}, "noise on its variables.*Out"),
        ({"strategy": SNES(None, noise=Layerwise())}, "noise on its variables.*Layer"),
        ({"fn": lambda x: x["a"]}, r"a scalar. Received: a value of shape \(2, 2\)"),
        ({"fn": lambda x: None}, "a scalar. Received: None"),
        ({"fn": lambda x: "low"}, "a scalar. Received: a value of shape"),
        ({"fn": lambda x: 1j}, r"a scalar. Received: a value of shape \(\), complex"),
        ({"fn": lambda x: math.nan, "generations": 2}, "no finite loss for any member"),
        (
            {"fn": lambda x: -math.inf, "generations": 2},
            "no finite loss.*2 generations",
        ),
        (
            {"fn": lambda x: x["a"], "compiled": True},
            r"a scalar. Received: a value of shape \(2, 2\), float32",
        ),
        ({"fn": lambda x: None, "compiled": True}, "a scalar. Received: None"),
        ({"fn": lambda x: "low", "compiled": True}, "a scalar. .*shape.*string"),
        ({"x0": [0.0, math.nan]}, "real and finite numbers.*Received: x0 with.*nan"),
        ({"x0": {"a": math.inf}}, "real and finite numbers.*Received: x0 with inf"),
        ({"x0": np.array([1e39])}, "real and finite numbers, which float32 can hold"),
        ({"x0": [1j, 2.0]}, "real and finite numbers"),
        ({"x0": np.zeros(2, "complex64")}, "real and finite numbers"),
        ({"x0": None}, "real and finite numbers.*Received: x0 with None"),
        ({"x0": [None]}, "real and finite numbers.*Received: x0 with None"),
        ({"x0": {"a": [0.0, None]}}, "real and finite numbers"),
        ({"x0": {0.0, 1.0}}, "real and finite numbers"),
        ({"x0": ["a"]}, "real and finite numbers.*Received: x0 with 'a'"),
        ({"x0": True}, "real and finite numbers.*Received: x0 with"),
        ({"generations": True}, "an integer.*Received: generations=True"),
        ({"generations": 2.0}, "an integer.*Received: generations=2.0"),
        ({"target": "x"}, "`target` must be None or .*Received: target='x'"),
        ({"target": math.nan}, "`target` must be None or .*Received: target=nan"),
        ({"callback": 5}, "`callback` must be None or a function.*callback=5"),
        ({"compiled": "no"}, "must be True or False. Received: compiled='no'"),
        ({"verbose": "auto"}, "must be 0, 1 or 2. Received: verbose='auto'"),
    ],
)
def test_bad_arguments_say_what_was_expected(arguments, message):
    kwargs = {"fn": sphere, "x0": X0, "strategy": "alopex", "verbose": 0, **arguments}
    with pytest.raises(ValueError, match=message):
        keras_es.minimize(**kwargs)


def test_a_function_may_write_into_its_argument():
    def writes(x):
        loss = sphere(x)
        x["a"] *= np.nan
        x["b"] = None
        return loss

    found = keras_es.minimize(writes, X0, "alopex", generations=3, verbose=0)
    assert found.loss == sphere(found.x)


def test_a_strategy_serves_one_search():
    strategy = SNES(None, 8)
    keras_es.minimize(sphere, X0, strategy, generations=1, verbose=0)
    with pytest.raises(ValueError, match=r"Give a new one: SNES.from_config.*built"):
        keras_es.minimize(sphere, X0, strategy, generations=1, verbose=0)


def by_differences():
    """A strategy that takes losses as numbers, and not their ranks."""
    return keras_es.optimizers.OpenES(None, 8, fitness_shaping="standardize", sigma=0.3)


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        ("snes", ["shifted", "huge"]),
        ("sep_cma_es", ["shifted"]),
        ("genetic_algorithm", ["huge"]),  # adds losses of two generations
        ("alopex", ["shifted", "huge", "tiny"]),
        (by_differences, ["shifted"]),
    ],
)
def test_losses_are_compared_in_float64(strategy, changes):
    def found(change):
        def function(x):
            return change(np.sum((x - 3.0) ** 2))

        chosen = strategy if isinstance(strategy, str) else strategy()
        found = keras_es.minimize(function, [0.0] * 3, chosen, generations=6, verbose=0)
        assert found.loss == function(found.x)
        return found

    plain = found(lambda loss: loss)
    assert plain.loss < 27.0
    functions = {
        "shifted": lambda loss: 1e9 + loss,
        "huge": lambda loss: 1e39 * loss,
        "tiny": lambda loss: 1e-60 * loss,
    }
    for name in changes:
        other = found(functions[name])
        np.testing.assert_allclose(other.x, plain.x, rtol=1e-4)
        np.testing.assert_allclose(other.mean, plain.mean, rtol=1e-4)


def test_ask_and_tell_compare_losses_in_float64():
    moved = []
    for offset in (0.0, 1e9):
        strategy, x = SNES(None, 8, sigma=0.5), keras.Variable(np.zeros(3, "float32"))
        strategy.build([x])
        (members,) = strategy.ask()
        strategy.tell([offset + float(np.sum((m - 3.0) ** 2)) for m in members.numpy()])
        moved.append(x.numpy())
    assert np.any(moved[0]) and np.array_equal(*moved)


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("x0", "kind"),
    [
        ([0.0, 0.0], np.ndarray),
        ((1, 2), np.ndarray),
        (np.zeros(2, "int64"), np.ndarray),
        ({"a": 0.0, "b": 0.0}, dict),
        (Point(0.0, 1.0), Point),
        ([0.0, np.zeros(2)], list),
        ([[0.0, 0.0], [1.0]], list),
        (0.5, float),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_numbers_and_lists_of_them(x0, kind, compiled):
    seen = []

    def fn(x):
        seen.append(x)
        parts = [
            keras.ops.sum(keras.ops.square(p - 3.0)) for p in keras.tree.flatten(x)
        ]
        return sum(parts)

    found = keras_es.minimize(
        fn, x0, "alopex", generations=3, compiled=compiled, target=-1.0, verbose=0
    )
    assert found.generations == 3 and found.message == "all generations are over"
    for x in (found.x, found.mean, *seen[:1] * (not compiled)):
        assert isinstance(x, kind)
        assert all(p.dtype == "float64" for p in keras.tree.flatten(x))
    if kind is np.ndarray:
        assert found.x.shape == (2,)


def failing_at(call, error):
    """A sphere that raises at one of its calls, and what it has returned before."""
    losses = []

    def fn(x):
        if len(losses) == call:
            raise error
        losses.append(np.sum((x - 3.0) ** 2))
        return losses[-1]

    return fn, losses


@pytest.mark.parametrize("call", [1, 5])
def test_ctrl_c_gives_the_best_so_far(call):
    fn, losses = failing_at(call, KeyboardInterrupt())
    found = keras_es.minimize(fn, [0.0, 0.0], "alopex", verbose=0)
    assert found.loss == min(losses) == np.sum((found.x - 3.0) ** 2)
    assert found.generations == call // 2 and found.message == "stopped by Ctrl-C"


def test_ctrl_c_before_anything_is_known_is_ctrl_c():
    fn, _ = failing_at(0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        keras_es.minimize(fn, [0.0, 0.0], "alopex", verbose=0)


def test_an_exception_of_the_function_holds_the_best_so_far():
    fn, losses = failing_at(5, ZeroDivisionError("in fn"))
    with pytest.raises(ZeroDivisionError, match="in fn") as caught:
        keras_es.minimize(fn, [0.0, 0.0], "alopex", verbose=0)
    found = caught.value.minimum
    assert found.loss == min(losses) == np.sum((found.x - 3.0) ** 2)
    assert "finished 2 generations; the best loss" in caught.value.__notes__[0]


def test_an_exception_of_the_callback_holds_the_best_so_far():
    with pytest.raises(RuntimeError, match="mine") as caught:
        keras_es.minimize(sphere, X0, "alopex", callback=raises, verbose=0)
    assert caught.value.minimum.generations == 1


def raises(generation, found):
    raise RuntimeError("mine")
