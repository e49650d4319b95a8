"""`compile`, `fit`, `evaluate` and `save` of an `UnrolledModel`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es import unrolled
from tests.unrolled.common import Powers, gradients

COMMON = dict(particles=6, unroll_length=2, sigma=0.1, seed=5)


def compiled(estimator, task=None, **kwargs):
    model = unrolled.UnrolledModel(task or Powers(noisy=True))
    model.compile(estimator, **kwargs)
    return model


def weights(model):
    return np.concatenate([np.ravel(v.numpy()) for v in model.trainable_variables])


class Branching(Powers):
    """A branch and a loop that end by the particle's state."""

    def step(self, state, t, seed, data=None):
        state, loss = super().step(state, t, seed, data)
        loss = tf.cond(loss > 0.0, lambda: loss, lambda: -2.0 * loss)
        _, rest = tf.while_loop(
            lambda k, x: (k < 5) & (x > 0.1), lambda k, x: (k + 1, x / 2), (0, loss)
        )
        return state, loss + rest


def test_particles_that_branch_by_their_states_are_the_same_under_xla():
    task = Branching(theta=0.05, noisy=True, horizon=4)
    estimator = unrolled.NRES("sgd", **COMMON | {"particles": 3})
    plain, compiled = (gradients(task, estimator, 3, jit) for jit in (False, True))
    assert np.ptp(plain) > 0.1
    np.testing.assert_allclose(plain, compiled, rtol=1e-5)


class Chosen(Powers):
    """Sums the positive losses, by a mask whose shape is the particle's or by where."""

    masked = False

    def step(self, state, t, seed, data=None):
        state, loss = super().step(state, t, seed, data)
        if self.masked:
            return state, tf.reduce_sum(tf.boolean_mask(loss[None], loss[None] > 0.0))
        return state, tf.where(loss > 0.0, loss, 0.0)


def test_shapes_that_hang_on_a_particle():
    found = []
    for masked in (False, True):
        task = Chosen(theta=0.5, noisy=True, horizon=2)
        task.masked = masked
        model = compiled(unrolled.NRES("sgd", **COMMON), task, jit_compile=False)
        found.append(model.evaluate(verbose=0)[0])
    assert found[0] > 0.1
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_limits_of_the_rules_are_each_other_to_the_bit():
    def windows(make, **kwargs):
        estimator = make("sgd", **COMMON | {"locked": True} | kwargs)
        return gradients(Powers(noisy=True), estimator, 5)

    nres = windows(unrolled.NRES)
    np.testing.assert_array_equal(nres, windows(unrolled.GPES, period=9))
    pes = windows(unrolled.PES)
    np.testing.assert_array_equal(pes, windows(unrolled.GPES, period=1))
    assert not np.array_equal(nres, pes)
    assert not np.array_equal(nres, windows(unrolled.NRES, seed=6))


def test_one_window_an_episode_is_full_es_to_the_bit():
    common = dict(particles=6, sigma=0.1, seed=5)
    full = unrolled.FullES("sgd", **common)
    whole = unrolled.NRES("sgd", unroll_length=8, locked=True, **common)
    np.testing.assert_array_equal(
        *(gradients(Powers(noisy=True), e, 3) for e in (full, whole))
    )


@pytest.mark.parametrize(
    "make, xla",
    [(unrolled.PES, False), pytest.param(unrolled.NRES, True, marks=pytest.mark.slow)],
)
def test_a_saved_model_goes_on_in_mid_episode_to_the_bit(make, xla, tmp_path):
    model = compiled(make(keras.optimizers.Adam(0.01), **COMMON), jit_compile=xla)
    model.fit(steps_per_epoch=3, verbose=0)  # an episode has 4 windows
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = [np.asarray(v) for v in loaded.particles.weights]
    assert not before  # made by `fit`, when shapes are known
    for each in (model, loaded):
        each.fit(steps_per_epoch=3, verbose=0)
    np.testing.assert_array_equal(weights(model), weights(loaded))
    for a, b in zip(model.particles.weights, loaded.particles.weights):
        np.testing.assert_array_equal(np.asarray(a.value), np.asarray(b.value))
    # Saved again without a `fit` between, nothing is lost.
    again = keras.models.load_model(tmp_path / "model.keras")
    again.save(tmp_path / "again.keras")
    first, second = {}, {}
    again.particles.save_own_variables(first)
    keras.models.load_model(tmp_path / "again.keras").particles.save_own_variables(
        second
    )
    assert set(first) == set(second) > {"episode", "time", "state_0", "begun"}
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_particles_of_another_estimator_are_refused(tmp_path):
    model = compiled(unrolled.PES("sgd", **COMMON), jit_compile=False)
    model.fit(steps_per_epoch=1, verbose=0)
    model.save_weights(tmp_path / "a.weights.h5")
    other = compiled(unrolled.NRES("sgd", **COMMON), jit_compile=False)
    other.load_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match="particles of another task or estimator"):
        other.fit(steps_per_epoch=1, verbose=0)
    whole = compiled(
        unrolled.PES("sgd", **COMMON | {"unroll_length": 8}), jit_compile=False
    )
    whole.load_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match="within what are windows.*unroll_length=8"):
        whole.fit(steps_per_epoch=1, verbose=0)
    more = compiled(
        unrolled.PES("sgd", **COMMON | {"particles": 2 * COMMON["particles"]}),
        jit_compile=False,
    )
    more.load_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match="another number of particles.*Received"):
        more.fit(steps_per_epoch=1, verbose=0)


class Failing(unrolled.Task):
    """Losses of odd episodes are NaN, or larger than estimates can hold."""

    horizon = 4

    def build(self):
        self.weight = self.add_weight(shape=(), initializer="ones")

    def initial_state(self, seed, data=None):
        bad = tf.where(seed[1] % 2 > 0, float("nan"), 1e37)
        return tf.where(seed[0] % 2 > 0, bad, 0.0), tf.ones(())

    def step(self, state, t, seed, data=None):
        bad, x = state
        loss = tf.where((bad != 0.0) & (t == 1), bad, self.weight * x)
        return (bad, x), loss


def test_particles_that_fail_contribute_nothing_and_begin_again():
    estimator = unrolled.NRES(
        keras.optimizers.SGD(0.01), **COMMON | {"particles": 40}, locked=True
    )
    model = compiled(estimator, Failing(), jit_compile=False)
    history = model.fit(steps_per_epoch=1, epochs=2, verbose=0).history
    first, second = history["non_finite"]
    assert 5 < first < 35
    # Those that failed begin anew; of the others all steps are finite.
    assert 0 < second < first
    episode = model.particles.weights[0].numpy()
    assert (episode == 1).sum() == first
    assert np.all(np.isfinite(weights(model)))
    assert np.all(np.isfinite(history["loss"]))
    # L = weight: the gradient is (L+ - L-) / (2 σ²) ε = ε² / σ², on average 1, of
    # which those that failed have no part.
    expected = 1.0 - 0.01 * (80 - first - second) / 40
    np.testing.assert_allclose(weights(model)[0], expected, atol=0.006)


def test_a_mean_of_nothing_is_not_a_loss_of_0():
    estimator = unrolled.NRES("sgd", **COMMON, locked=True)
    model = compiled(estimator, Powers(theta=1.0), jit_compile=False)
    logs = model.fit(steps_per_epoch=1, epochs=4, verbose=0).history
    assert np.all(np.isfinite(logs["loss"]))
    assert np.isnan(logs["episode_loss"]).tolist() == [True, True, True, False]
    model.task.weight.assign(float("nan"))
    logs = model.fit(steps_per_epoch=2, verbose=0).history
    found = model.evaluate(verbose=0, return_dict=True)
    assert logs["non_finite"] == [12.0] and found["non_finite"] == 6.0
    assert np.isnan([logs["loss"][0], found["loss"], found["episode_loss"]]).all()


def test_logs_are_those_of_the_members_and_evaluate_of_the_mean():
    task = Powers(power=1, theta=2.0)
    estimator = unrolled.NRES(
        keras.optimizers.SGD(0.0), **COMMON | {"sigma": 1e-4}, locked=True
    )
    model = compiled(estimator, task, jit_compile=False, steps_per_execution=2)
    logs = model.fit(steps_per_epoch=4, verbose=0).history
    np.testing.assert_allclose(logs["loss"], [9.0], rtol=1e-3)  # 2 (1 + ... + 8) / 8
    np.testing.assert_allclose(logs["episode_loss"], [72.0], rtol=1e-3)
    found = model.evaluate(steps=2, verbose=0, return_dict=True)
    assert found == {"loss": 9.0, "episode_loss": 72.0, "non_finite": 0.0}
    assert model.evaluate(verbose=0) == [9.0, 72.0, 0.0]


def test_windows_in_one_program_are_those_of_single_calls():
    def trained(**kwargs):
        estimator = unrolled.NRES(keras.optimizers.Adam(0.01), **COMMON)
        model = compiled(estimator, **kwargs)
        return model, model.fit(steps_per_epoch=3, epochs=2, verbose=0).history

    plain, expected = trained(jit_compile=False)
    together, logs = trained(steps_per_execution=3)  # by XLA
    for name, values in expected.items():
        np.testing.assert_allclose(logs[name], values, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(weights(together), weights(plain), rtol=1e-5)
    assert int(together.optimizer.iterations) == 6
    for a, b in zip(together.particles.weights, plain.particles.weights):
        np.testing.assert_allclose(np.asarray(a.value), np.asarray(b.value), rtol=1e-4)


def test_pairs_share_their_randomness_and_steps_do_not():
    seen = []

    class Seeds(unrolled.HostTask):
        horizon = 4

        def build(self):
            self.weight = self.add_weight(shape=(), initializer="zeros")

        def host_initial_state(self, seeds):
            return np.zeros(len(seeds), "float32")

        def host_step(self, state, inputs, t, seeds):
            if len(seeds) == 12:
                seen.append(seeds.copy())
            return state, np.zeros(len(seeds))

    model = compiled(unrolled.NRES("sgd", **COMMON, locked=True), Seeds())
    model.fit(steps_per_epoch=4, verbose=0)
    assert len(seen) == 8  # one call for each step of a window
    for seeds in seen:
        np.testing.assert_array_equal(seeds[:6], seeds[6:])
    distinct = {tuple(row) for seeds in seen for row in seeds}
    assert len(distinct) == 8 * 6
