"""QES: int8 weights moved by whole steps, with the error of rounding kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.ops import integers
from keras_es.optimizers import QES
from keras_es.optimizers.evolution.qes import integer_weights

X = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
SETTINGS = {"population_size": 4, "sigma": 1.5, "step_size": 0.8, "replay": 4}


def quantized(optimizer, inputs=5, units=3):
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(units)
    model = keras.Sequential([keras.Input((inputs,)), layer])
    layer.quantize("int8")  # of the model it would warn of the input
    model.compile(optimizer)
    return model


def table(generation, members=4):
    return np.random.default_rng(generation).normal(size=members)


def by_table():
    """A reward that is given: nothing of the model decides it."""
    turn = iter(range(1000))
    return lambda model, generation: table(generation)[next(turn) % 4]


def noise_of(i, shape, generation):
    drawn = integers.rounded_noise(
        0, f"integers {i}", shape, tf.constant(generation, tf.int64), tf.range(2), 1.5
    )
    return drawn.numpy().astype("float64")


def simulated(weights, generations, decay=0.9):
    """The algorithm as it is written down, with a residual that is stored."""
    found = [w.astype("float64") for w in weights]
    residuals = [np.zeros(w.shape) for w in weights]
    for t in range(generations):
        rewards = table(t)
        u = (rewards - rewards.mean()) / rewards.std()
        for i, w in enumerate(found):
            delta = noise_of(i, w.shape, t)
            g = np.tensordot(u[0::2] - u[1::2], delta, 1) / (4 * 1.5)
            a = 0.8 * g + decay * residuals[i]
            residuals[i] = a - np.round(a)
            found[i] = np.clip(w + np.round(a), -127, 127)
    return found


def test_replay_is_the_stored_residual_and_files_go_on_exactly(tmp_path):
    model = quantized(QES(**SETTINGS))
    weights = integer_weights(model)
    start = [w.numpy() for w in weights]
    keras_es.evolve(model, by_table(), generations=3, verbose=0)
    model.save(tmp_path / "model.keras")
    keras_es.evolve(model, by_table(), generations=2, verbose=0)
    expected = simulated(start, 5)
    for w, value, first in zip(weights, expected, start):
        assert w.dtype == "int8"
        np.testing.assert_array_equal(w, value)
        assert np.abs(w.numpy() - first.astype(int)).max() > 0
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.get_config() == model.optimizer.get_config()
    keras_es.evolve(again, by_table(), generations=2, verbose=0)
    for a, b in zip(integer_weights(again), weights):
        np.testing.assert_array_equal(a, b)


def test_updates_below_half_a_step_are_not_lost():
    residual, moves = tf.constant(0.0), 0.0
    for _ in range(10):
        move, residual = integers.with_feedback(0.2, residual, 1.0)
        moves += float(move)
    assert moves == 2.0 and float(tf.round(0.2)) == 0.0


def test_state_is_far_below_that_of_floats_and_members_are_on_the_grid():
    model = quantized(QES(4, sigma=200.0, replay=2), 256, 64)
    (weight,) = integer_weights(model)
    seen, count, before = [], 256 * 64, weight.numpy()

    def fails(model, generation):
        seen.append(weight.numpy())
        return np.nan

    logs = keras_es.evolve(model, fails, generations=1, verbose=0).history
    kept = {
        id(v): v.numpy().nbytes for v in [*model.variables, *model.optimizer.variables]
    }
    # Weights, scales, biases, utilities of two generations, counters.
    assert count < sum(kept.values()) < 1.2 * count
    assert seen[0].dtype == np.int8 and np.min(seen) == -127 and np.max(seen) == 127
    assert logs["nonfinite_rewards"] == [4]
    np.testing.assert_array_equal(weight, before)
    assert int(model.optimizer.generation.value) == 1
    assert int(model.optimizer.skipped_steps.value) == 1


def test_frozen_layers_stay_and_both_tables_of_an_embedding_move():
    frozen = keras.layers.Dense(3, trainable=False)
    table = keras.layers.ReversibleEmbedding(4, 3, tie_weights=False)
    ids = keras.Input((2,), dtype="int32")
    model = keras.Model(ids, table(frozen(table(ids)), reverse=True))
    for layer in (frozen, table):
        layer.quantize("int8")
    model.compile(QES(4, sigma=30.0, step_size=30.0))
    weights = [frozen.kernel, table.embeddings, table.reverse_embeddings]
    before = [w.numpy() for w in weights]
    keras_es.evolve(model, by_table(), generations=1, verbose=0)
    moved = [np.any(w.numpy() != old) for w, old in zip(weights, before)]
    assert moved == [False, True, True]
    frozen.trainable = True
    with pytest.raises(ValueError, match="remembers.*new QES. Received: optimizer="):
        keras_es.evolve(model, by_table(), generations=1, verbose=0)


@pytest.mark.parametrize("broken", [lambda f: f[:2], lambda f: f * np.nan])
def test_utilities_of_a_users_function_are_checked(broken):
    """In place of them integers would be what NaN is cast to."""
    model = quantized(QES(**SETTINGS, fitness_shaping=broken))
    (weight,) = integer_weights(model)
    before = weight.numpy()
    if broken(np.zeros(4)).shape == (2,):
        with pytest.raises(ValueError, match=r"utility for each.*Received: shape=.2,"):
            keras_es.evolve(model, by_table(), generations=1, verbose=0)
    else:
        keras_es.evolve(model, by_table(), generations=1, verbose=0)
    np.testing.assert_array_equal(weight, before)


def test_an_update_beyond_any_float_leaves_no_residual():
    update = tf.constant([np.inf, -np.inf, np.nan, 2.25])
    move, residual = integers.with_feedback(update, tf.zeros(4), 0.9)
    np.testing.assert_array_equal(residual, [0.0, 0.0, 0.0, 0.25])
    moved = integers.moved(tf.constant([5] * 4, tf.int8), move)
    np.testing.assert_array_equal(moved, [127, -127, 5, 7])


def test_rounded_noise_is_sigma_eps_on_average():
    drawn = integers.rounded_noise(0, "x", (40,), 3, tf.range(500), 0.4).numpy()
    np.testing.assert_array_equal(drawn, np.round(drawn))
    assert abs(drawn.mean()) < 5 * drawn.std() / np.sqrt(drawn.size)
    # sigma^2, and the variance of rounding at random, E[f (1 - f)] <= 1/4.
    assert 0.16 < drawn.var() < 0.16 + 0.25


def test_what_qes_cannot_do_says_so():
    with pytest.raises(ValueError, match="must be even.*Received: population_size=3"):
        QES(population_size=3)
    with pytest.raises(ValueError, match="`sigma` must be a number above 0.*Received"):
        QES(sigma=0.0)
    with pytest.raises(ValueError, match="trains no float weights"):
        QES(inner_optimizer="adam")
    model = quantized(QES())
    model.layers[0].enable_lora(1)
    with pytest.raises(ValueError, match="an adapter, which OpenES.*Received: model="):
        keras_es.evolve(model, lambda m, g: 0.0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    model.compile(QES())
    with pytest.raises(ValueError, match='quantize."int8".*Received: model='):
        keras_es.evolve(model, lambda m, g: 0.0)
    model = keras_es.es_model(model)
    model.compile(QES(), "mse")
    with pytest.raises(RuntimeError, match="keras_es.evolve.*Received"):
        model.fit(X, np.zeros((6, 2)), verbose=0)
