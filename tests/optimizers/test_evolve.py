"""`keras_es.evolve`: rewards that are Python functions of a model."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es import noise
from keras_es.ops import fitness as shaping
from keras_es.optimizers import Chunks, GeneticAlgorithm, OpenES, Sampled
from keras_es.optimizers.evolve import _checked

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def compiled(optimizer=None, lora=False):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    if lora:
        model.layers[0].enable_lora(1, b_initializer="ones")
    sgd = keras.optimizers.SGD(0.1)
    model.compile(
        optimizer
        or OpenES(None, 6, sigma=0.1, fitness_shaping="raw", mean_optimizer=sgd)
    )
    return model


@pytest.fixture(scope="module")
def model():
    return compiled()


def by_text(model, generation):
    """A reward that nothing but Python can compute."""
    text = json.dumps(np.round(model(X).numpy(), 3).tolist())
    return -sum(abs(value - 0.5) for row in json.loads(text) for value in row)


def updated_by_hand(model, fitness):
    """The step of OpenES: theta += rate/(n sigma) sum_k u_k eps_k, u = -fitness."""
    strategy = model.optimizer
    before = [v.numpy() for v in model.trainable_variables]
    eps = [m - b for m, b in zip([m.numpy() for m in strategy.ask()], before)]
    centred = -(fitness - fitness.mean())
    return [
        b + 0.1 / (6 * 0.1) * np.tensordot(centred, e / 0.1, 1)
        for b, e in zip(before, eps)
    ]


def test_members_take_turns_and_the_mean_moves_as_told(model):
    seen = []

    def reward(model, generation):
        seen.append([v.numpy() for v in model.trainable_variables])
        return by_text(model, generation)

    model.optimizer.build(model.trainable_variables)
    start = [v.numpy() for v in model.trainable_variables]
    members = [m.numpy() for m in model.optimizer.ask()]
    rewards = []
    for k in range(6):
        for v, m in zip(model.trainable_variables, members):
            v.assign(m[k])
        rewards.append(by_text(model, 0))
    for v, value in zip(model.trainable_variables, start):
        v.assign(value)
    expected = updated_by_hand(model, -np.array(rewards))
    history = keras_es.evolve(model, reward, generations=1, verbose=0).history
    for k, values in enumerate(seen):
        for value, m in zip(values, members):
            np.testing.assert_array_equal(value, m[k])
    for v, value in zip(model.trainable_variables, expected):
        np.testing.assert_allclose(v, value, atol=1e-6)
    np.testing.assert_allclose(history["reward"], np.mean(rewards), rtol=1e-6)
    np.testing.assert_allclose(history["best"], np.max(rewards), rtol=1e-6)


def test_only_adapters_move_and_a_run_goes_on_exactly():
    """By weights as they were: Keras's own files merge adapters."""
    whole, again, state = compiled(lora=True), compiled(lora=True), {}
    (kernel,) = (w.numpy() for w in whole.non_trainable_variables)

    def keep(generation, logs):
        if generation == 1:
            state["weights"] = whole.get_weights()
            store = {}
            whole.optimizer.save_own_variables(store)
            state["optimizer"] = {k: np.array(v) for k, v in store.items()}

    keras_es.evolve(whole, by_text, generations=3, callback=keep, verbose=0)
    again.set_weights(state["weights"])
    again.optimizer.build(again.trainable_variables)
    again.optimizer.load_own_variables(state["optimizer"])
    history = keras_es.evolve(again, by_text, generations=1, verbose=0)
    assert history.epoch == [2]
    for a, b in zip(again.get_weights(), whole.get_weights()):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(again.non_trainable_variables[0], kernel)
    assert len(again.optimizer.search.variables) == 3  # A, B and the bias


@pytest.mark.slow
def test_a_file_goes_on_exactly_and_masks_and_other_strategies_do(tmp_path):
    def begin():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
        sparse = keras_es.sparsify(model, 0.5, seed=0)
        strategy = GeneticAlgorithm(population_size=4, parents=2, elite_candidates=1)
        sparse.compile(strategy)
        return sparse

    sizes = []

    def reward(model, generation):
        (masked,) = keras_es.masked_weights(model)
        sizes.append(np.count_nonzero(masked.kernel_mask.numpy()))
        return float(model(X)[0, 0])

    whole, halves = begin(), begin()
    keras_es.evolve(whole, reward, generations=4, verbose=0)
    keras_es.evolve(halves, reward, generations=2, verbose=0)
    halves.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    keras_es.evolve(again, reward, generations=2, verbose=0)
    for a, b in zip(again.get_weights(), whole.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert set(sizes) == {6}


def test_groups_are_compared_within_themselves():
    rewards = np.array([[1.0, 100.0, 7.0], [3.0, np.nan, 7.0], [2.0, 300.0, 7.0]])
    found = shaping.within_groups(tf.constant(-rewards)).numpy()
    root = np.sqrt(1.5)
    expected = np.array([-root - 1.0, root, 1.0]) / 3.0
    np.testing.assert_allclose(found, -expected, rtol=1e-12)
    tenths = tf.constant(np.full((7, 2), 0.1))
    np.testing.assert_array_equal(shaping.within_groups(tenths), np.zeros(7))


def test_rewards_that_are_not_finite_contribute_nothing_and_are_counted(model):
    count = iter(range(100))
    table = np.array(
        [[1.0, 0.0], [np.nan, 1.0], [2.0, 5.0], [np.inf, -np.inf], [0.0, 2.0], [3, 3]]
    )
    model.optimizer.build(model.trainable_variables)
    expected = updated_by_hand(
        model, shaping.within_groups(tf.constant(-table)).numpy()
    )
    history = keras_es.evolve(
        model, lambda m, g: table[next(count)].tolist(), generations=1, verbose=0
    ).history
    for v, value in zip(model.trainable_variables, expected):
        np.testing.assert_allclose(v, value, atol=1e-6)
    assert history["nonfinite_rewards"] == [3]
    assert int(model.optimizer.nonfinite_members.value) == 1
    before = model.get_weights()
    keras_es.evolve(model, lambda m, g: np.nan, generations=1, verbose=0)
    for a, b in zip(model.get_weights(), before):
        np.testing.assert_array_equal(a, b)
    assert int(model.optimizer.skipped_steps.value) == 1
    # One of them fails: what it says is the mean of the others.
    losses = np.array([1.0, 2.0, np.nan, 3.0, 4.0, 5.0])
    expected = updated_by_hand(model, -np.where(np.isnan(losses), 3.0, losses))
    count = iter(range(100))
    keras_es.evolve(model, lambda m, g: losses[next(count)], generations=1, verbose=0)
    for v, value in zip(model.trainable_variables, expected):
        np.testing.assert_allclose(v, value, atol=1e-6)


def test_members_of_a_generation_draw_the_same_in_any_run():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5)])
    model.add(keras.layers.Dense(2))
    model.compile(OpenES(None, 2, sigma=0.1))
    model.optimizer.build(model.trainable_variables)
    state = model.layers[0].seed_generator.state
    drawn = {}

    def reward(model, generation):
        kept = model.layers[0](np.ones((1, 64), "float32"), training=True).numpy()
        drawn.setdefault(generation, []).append(kept)
        return 0.0

    for run in range(2):
        state.assign([run, 7])
        model.optimizer.generation.assign(0)
        keras_es.evolve(model, reward, generations=2, verbose=0)
        np.testing.assert_array_equal(state, [run, 7])
    for kept in drawn.values():
        assert len(kept) == 4
        np.testing.assert_array_equal(kept, [kept[0]] * 4)
    assert np.any(drawn[0][0] != drawn[1][0])


def test_weights_are_the_mean_again_after_an_exception_and_ctrl_c(model):
    first = int(model.optimizer.generation.value)
    before = model.get_weights()

    def fails(model, generation):
        raise RuntimeError("no text")

    def stopped(model, generation):
        if generation == first + 1:
            raise KeyboardInterrupt
        return float(model(X)[0, 0])

    with pytest.raises(RuntimeError, match="no text"):
        keras_es.evolve(model, fails, verbose=0)
    for a, b in zip(model.get_weights(), before):
        np.testing.assert_array_equal(a, b)
    assert len(keras_es.evolve(model, stopped, verbose=0).epoch) == 1
    logs = []
    history = keras_es.evolve(
        model, by_text, verbose=0,
        callback=lambda g, log: logs.append(log) or g == first + 2,
    )  # fmt: skip
    assert history.epoch == [first + 1, first + 2]
    assert logs[-1]["reward"] == history.history["reward"][1]


def test_what_evolve_cannot_do_with_says_so(model):
    good = {"generations": 1, "verbose": 0}
    for value in ("text", None, [[1.0]], [], {"a": 1.0}, [[1.0], [1.0, 2.0]], 1j):
        with pytest.raises(ValueError, match="number, or a list of numbers.*Received"):
            _checked(value)
    assert _checked(tf.constant([1.5, 2.0], tf.bfloat16)).tolist() == [1.5, 2.0]
    numbers = iter([[1.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="as many numbers.*1 for the first, 2"):
        keras_es.evolve(model, lambda m, g: next(numbers), **good)
    wrong_arguments = {"reward": 1.0, "generations": 0, "callback": 1, "verbose": None}
    for what, wrong in wrong_arguments.items():
        kwargs = {what: wrong}
        with pytest.raises(ValueError, match=f"`{what}`.*Received: {what}="):
            keras_es.evolve(model, **{"reward": by_text, **good, **kwargs})
    for optimizer in ("adam", keras_es.optimizers.SNES("adam")):
        model.compile(optimizer)
        with pytest.raises(ValueError, match="OpenES.None.*Received: model.optimizer"):
            keras_es.evolve(model, by_text, **good)
    for option in (
        {"fitness": "mse"},
        {"batch_mode": Sampled(2)},
        {"turns": Chunks(2)},
        {"semi_updates": False},
        {"noise": noise.Outputs(0.1)},
    ):
        model.compile(OpenES(None, 4, **option))
        with pytest.raises(ValueError, match=r"`strategy` must.*Received"):
            keras_es.evolve(model, by_text, **good)
    model.compile(OpenES(None, 4))
    model.trainable = False
    with pytest.raises(ValueError, match="nothing to evolve"):
        keras_es.evolve(model, by_text, **good)
    with pytest.raises(ValueError, match="built Keras model.*Received"):
        keras_es.evolve(keras.Sequential(), by_text)
