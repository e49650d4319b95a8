"""`inner_optimizer=None` through fit: weights are evolved by losses alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.noise import LowRank
from keras_es.optimizers import SNES, Alopex, Chunks, OpenES, SepCMAES, Turns
from tests.marks import slow, slow_unless
from tests.reference import problems, pure

NAMES = pytest.mark.parametrize("name", pure.NAMES)
LossScale = keras.optimizers.LossScaleOptimizer


@NAMES
def test_a_step_evaluates_the_members_of_ask_and_tells_their_losses(name):
    model, twin = pure.compiled(name, seed=1), pure.make(name, seed=1)
    x, y = problems.data()
    twin.build([keras.Variable(v.numpy()) for v in model.trainable_variables])
    for _ in range(3):
        model.optimizer.build(model.trainable_variables)
        losses = pure.member_losses(model, model.optimizer)
        logs = model.train_on_batch(x, y, return_dict=True)
        model.reset_metrics()
        assert logs["population_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
        assert logs["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
        assert logs["population_best"] == pytest.approx(np.min(losses), rel=1e-4)
        twin.tell(losses)
        for ours, plain in zip(model.trainable_variables, twin.search.variables):
            np.testing.assert_allclose(ours, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "name", slow_unless(["genetic_algorithm", "open_es"], pure.NAMES)
)
def test_no_gradient_is_taken_and_the_loss_falls_in_one_trace(name):
    settings = {"alopex": {"step_size": 0.02}, "genetic_algorithm": {"sigma": 0.1}}
    members = {"snes": 32, "sep_cma_es": 32}.get(name, 16)
    kwargs = settings.get(name, {"sigma": 0.1})
    model = pure.compiled(name, members=members, **kwargs)
    x, y = problems.data()
    before = model.evaluate(x, y, verbose=0)[0]
    traces, step = [], model.train_step

    def counting(batch):
        traces.append(batch)
        return step(batch)

    model.train_step = counting
    epochs = 300 if name == "alopex" else 60
    problems.fit(model, epochs=epochs, batch_size=32)
    assert model.evaluate(x, y, verbose=0)[0] < 0.9 * before
    assert len(traces) == 1


# With dropout and masks; without them it is tests/conformance that holds it for all.


def make_with_dropout():
    return pure.make_model([keras.layers.Dropout(0.2, seed=1)], masked=True)


@pytest.mark.parametrize("name", ["open_es", slow("genetic_algorithm")])
def test_masks_are_evolved_along_with_weights(name):
    model = pure.compiled(name, pure.make_model(masked=True), seed=2)
    (masked,) = keras_es.masked_weights(model)
    searched = _built(model).optimizer.search.variables
    assert any(v is masked.mask_scores for v in searched)
    kernel, mask = masked.kernel.numpy(), masked.kernel_mask.numpy()
    nnz, scores = masked.nnz, masked.mask_scores.numpy()
    expected = pure.member_losses_masked(model)
    logs = model.train_on_batch(*problems.data(), return_dict=True)
    assert logs["population_loss"] == pytest.approx(np.mean(expected), rel=1e-4)
    problems.fit(model, epochs=5)
    assert (masked.kernel.numpy() != kernel).any()
    assert (masked.mask_scores.numpy() != scores).any()
    assert masked.nnz == nnz == int(masked.kernel_mask.numpy().sum())
    decoded = masked.expand(masked.decode(masked.mask_scores.value))
    np.testing.assert_array_equal(masked.kernel_mask.numpy(), decoded)
    assert mask.shape == kernel.shape


def _built(model):
    model.optimizer.build(model.trainable_variables)
    return model


def test_scores_of_masks_that_cannot_move_are_not_searched():
    model = pure.compiled("open_es", keras_es.sparsify(pure.make_model(), 0.0))
    _built(model)
    assert len(model.optimizer.search.variables) == len(model.trainable_variables)
    problems.fit(model)


@keras.saving.register_keras_serializable(package="test_pure")
class FailsIfLarge(keras.layers.Layer):
    """NaN for members whose bias rose."""

    def build(self, shape):
        self.bias = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        return keras.ops.where(self.bias > 0.0, float("nan"), x)


def test_failed_members_are_counted_and_teach_nothing():
    norm = keras.layers.BatchNormalization()
    model = pure.compiled("open_es", pure.make_model(layers=[FailsIfLarge(), norm]))
    logs = model.train_on_batch(*problems.data(), return_dict=True)
    assert logs["nonfinite_members"] == 6 and np.isfinite(logs["loss"])
    assert np.isfinite(logs["accuracy"])
    for path, value in problems.weights_of(model).items():
        assert np.all(np.isfinite(value)), path
    before = [v.numpy() for v in model.trainable_variables]
    x, y = problems.data()
    logs = model.train_on_batch(x * np.nan, y, return_dict=True)
    assert logs["skipped_steps"] == 1
    for variable, old in zip(model.trainable_variables, before):
        np.testing.assert_array_equal(variable.numpy(), old)


def test_metrics_are_those_of_all_members():
    model = _built(pure.compiled("open_es"))
    x, y = problems.data()
    population = [np.asarray(v) for v in model.optimizer.ask()]
    accuracies = []
    start = model.get_weights()
    for values in zip(*population):
        model.set_weights(values)
        accuracies.append(np.mean((model.predict(x, verbose=0) > 0.5) == (y > 0.5)))
    model.set_weights(start)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["accuracy"] == pytest.approx(np.mean(accuracies), rel=1e-5)


class TestBatchNormalization:
    """Each member has the statistics of its own activations."""

    def model(self, **kwargs):
        norm = keras.layers.BatchNormalization(momentum=0.5, **kwargs)
        return norm, pure.make_model(layers=[norm])

    def test_a_member_that_explodes_changes_no_other(self):
        """The loss of a member is that of the member alone in its batch."""
        norm, model = self.model()
        _built(pure.compiled("open_es", model, sigma=0.5))
        x, y = problems.data()
        loss = keras.losses.BinaryCrossentropy()
        start, expected = [v.numpy() for v in model.trainable_variables], []
        population = [np.asarray(v) for v in model.optimizer.ask()]
        for values in zip(*population):
            for variable, value in zip(model.trainable_variables, values):
                variable.assign(value)
            expected.append(
                float(loss(y, model.stateless_call(
                    model.trainable_variables, model.non_trainable_variables, x,
                    training=True,
                )[0]))
            )  # fmt: skip
        for variable, value in zip(model.trainable_variables, start):
            variable.assign(value)
        logs = model.train_on_batch(x, y, return_dict=True)
        assert logs["population_loss"] == pytest.approx(np.mean(expected), rel=1e-4)

    def test_moving_statistics_get_the_mean_over_the_population(self):
        norm, model = self.model()
        _built(pure.compiled("open_es", model, sigma=0.5))
        x, y = problems.data()
        kernels, biases = (np.asarray(v) for v in model.optimizer.ask()[:2])
        hidden = np.einsum("bi,kio->kbo", x, kernels) + biases[:, None]
        model.train_on_batch(x, y)
        mean, variance = hidden.mean(axis=(0, 1)), hidden.var(axis=1).mean(axis=0)
        np.testing.assert_allclose(norm.moving_mean, 0.5 * mean, rtol=1e-4, atol=1e-5)
        expected = 0.5 + 0.5 * variance
        np.testing.assert_allclose(norm.moving_variance, expected, rtol=1e-3)


def test_sigma_follows_its_schedule_and_weights_decay():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.2, 0.1])
    sgd = keras.optimizers.SGD(1e-9, weight_decay=1e8)
    model = pure.compiled("open_es", sigma=schedule, mean_optimizer=sgd)
    before = model.get_weights()[0]
    spreads = []
    for _ in range(3):
        _built(model)
        spreads.append(np.ptp(np.asarray(model.optimizer.ask()[0]), axis=0).mean())
        model.train_on_batch(*problems.data())
    assert spreads[0] > 1.5 * spreads[2]
    np.testing.assert_allclose(model.get_weights()[0], 0.9**3 * before, rtol=1e-3)


def test_fitness_need_not_be_the_loss():
    def errors(y, y_pred):
        return keras.ops.cast((y_pred > 0.5) != (y > 0.5), "float32")

    model = pure.compiled("snes", fitness=errors)
    logs = model.train_on_batch(*problems.data(), return_dict=True)
    assert logs["population_loss"] == pytest.approx(1 - logs["accuracy"], rel=1e-4)


def by_argmax(y, y_pred):
    both = keras.ops.concatenate([1.0 - y_pred, y_pred], -1)
    decided = keras.ops.argmax(both, -1)
    return keras.ops.cast(decided != keras.ops.cast(y[:, 0], decided.dtype), "float32")


def by_an_operation_that_is_not_vectorized(y, y_pred):
    next_up = tf.math.nextafter(y_pred, tf.ones_like(y_pred))
    return keras.ops.cast((next_up > 0.5) != (y > 0.5), "float32")


@pytest.mark.parametrize(
    "name, fitness",
    [
        slow("open_es", by_argmax),
        ("open_es", by_an_operation_that_is_not_vectorized),
        slow("genetic_algorithm", by_an_operation_that_is_not_vectorized),
        slow("alopex", by_an_operation_that_is_not_vectorized),
    ],
)
def test_any_operation_may_be_in_the_fitness_under_xla(name, fitness):
    model = pure.compiled(name, fitness=fitness, jit_compile=True)
    logs = model.train_on_batch(*problems.data(), return_dict=True)
    assert logs["population_loss"] == pytest.approx(1 - logs["accuracy"], rel=1e-4)


def test_mixed_precision_needs_no_loss_scale():
    keras.config.set_dtype_policy("mixed_float16")
    model = pure.compiled("snes", pure.make_model())
    problems.fit(model)
    assert all(np.isfinite(v).all() for v in model.get_weights())


def test_a_subclass_that_defines_its_own_step_is_refused_with_a_way_out():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(OpenES(None, 4), loss="mse", jit_compile=False)
    with pytest.raises(RuntimeError, match="keras_es.es_model"):
        model.fit(np.zeros((4, 3)), np.zeros((4, 1)), verbose=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OpenES(None, batch_mode="split"), "whole batch.*batch_mode='split'"),
        (lambda: SNES(None, turns=Turns(2)), "one step.*members=2"),
        (lambda: SNES("adam", noise=LowRank(1)), r"SNES\(None, noise=...\).*rank=1"),
        (lambda: OpenES("adam", mean_optimizer="sgd"), "mean_optimizer=<"),
        (lambda: OpenES(None, noise=LowRank(0)), "at least 1. Received: rank=0"),
        (lambda: SNES(None, 10, noise=LowRank(1, 2)), "multiple of 4.*size=10, noise="),
        (
            lambda: OpenES(None, 4, mean_optimizer=LossScale(keras.optimizers.SGD())),
            "`mean_optimizer` must not scale.*Received: mean_optimizer='loss_scale",
        ),
        (
            lambda: OpenES(
                "sgd", score_optimizer=keras.optimizers.SGD(loss_scale_factor=2.0)
            ),
            "`score_optimizer` must not scale losses.*Received: score_optimizer='sgd'",
        ),
        (lambda: SepCMAES("adam"), "must be None.*inner_optimizer='adam'"),
        (lambda: SepCMAES(rate_scale=0), "above 0. Received: rate_scale=0"),
        (lambda: SNES(None, sigma=0), "must be a number above 0.*sigma=0"),
        (lambda: Alopex(momentum=1), r"in \[0, 1\). Received: momentum=1"),
        (lambda: Alopex(step_size=-1), "at least 0.*Received: step_size=-1"),
        (
            lambda: keras_es.optimizers.GeneticAlgorithm(population_size=8),
            "at least 20. Received: population_size=8",
        ),
        (
            lambda: keras_es.optimizers.PGPE(momentum=-0.1),
            r"in \[0, 1\). Received: momentum=-0.1",
        ),
    ],
)
def test_bad_values_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_learning_rate_is_that_of_the_mean_or_refused():
    model = pure.compiled("open_es")
    model.optimizer.learning_rate = 0.5
    assert float(model.optimizer.mean_optimizer.learning_rate) == 0.5
    with pytest.raises(AttributeError, match="SNES with inner_optimizer=None has no"):
        pure.make("snes").learning_rate = 0.5


@NAMES
def test_config_round_trip(name):
    first = pure.make(name, seed=5, name="mine")
    config = keras.saving.serialize_keras_object(first)
    second = keras.saving.deserialize_keras_object(config)
    assert type(second) is type(first) and second.inner_optimizer is None
    assert second.get_config() == first.get_config()


def test_several_generations_in_one_execution_are_the_same():
    weights = []
    for steps in (1, 2):
        model = pure.compiled("open_es")
        model.steps_per_execution = steps
        problems.fit(model, epochs=2, batch_size=8)
        weights.append(model.get_weights())
    for a, b in zip(*weights):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_the_last_batch_may_be_smaller_where_members_take_turns(jit_compile):
    reshape = keras.layers.Reshape((problems.HIDDEN // 2, 2))
    model = pure.make_model([reshape, keras.layers.SimpleRNN(3)])
    model = pure.compiled("open_es", model, jit_compile=jit_compile, turns=Chunks(6))
    x, y = problems.data()
    history = model.fit(x, y, batch_size=len(x) // 2 - 3, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
