"""What the members of a step see, and what they leave behind."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.optimizers import SNES, OpenES, Sampled, Static, Turns
from keras_es.populations.by_gradients import Population
from keras_es.populations.member import all_finite
from tests.marks import slow
from tests.training.common import compiled, cross_entropy, data, mlp, sgd, sparse_mlp

POPULATION_LOGS = {
    "population_loss",
    "population_best",
    "population_spread",
    "sparsity",
    "mask_flip_ratio",
    "nonfinite_members",
    "skipped_steps",
}


def evaluate_population(model, x, y, sample_weight=None):
    """Return the population of one step and its evaluation."""
    model._symbolic_build(data_batch=(x, y))
    found = {}

    @tf.function(autograph=False)
    def step():
        arguments = map(tf.convert_to_tensor, (x, y))
        population = Population(model, *arguments, sample_weight)
        found["touched"] = population.touched
        result = population.evaluate()
        found["variables"] = population.touched + population.metrics
        return result.fitness, result.valid, result.state + result.metrics

    fitness, valid, values = step()
    state = {v.path: s.numpy() for v, s in zip(found["variables"], values)}
    return fitness.numpy(), valid.numpy(), state


class Seen(keras.layers.Layer):
    """Holds a moving statistic: the sum of the examples of the last call."""

    def build(self, shape):
        self.seen_sum = self.add_weight(
            shape=shape[1:], trainable=False, initializer="zeros", name="seen_sum"
        )
        super().build(shape)

    def call(self, x, training=False):
        if training:
            self.seen_sum.assign(keras.ops.sum(x, axis=0))
        return x


def members_model(layer, **kwargs):
    inputs = keras.Input((6,))
    outputs = keras.layers.Dense(3)(layer(inputs))
    model = keras_es.sparsify(keras.Model(inputs, outputs), 0.5, seed=0)
    return compiled(model, **kwargs)


@pytest.mark.parametrize(
    "batch_size, share", [(32, 8), (30, 7), (5, 1), (2, 1), (1, 1)]
)
def test_split_shares_the_batch_out(batch_size, share):
    # One-hot examples: the statistic, a mean over members, counts who saw what.
    x = np.eye(batch_size, dtype="float32")
    inputs = keras.Input((batch_size,))
    outputs = keras.layers.Dense(3)(Seen(name="seen")(inputs))
    model = keras_es.sparsify(keras.Model(inputs, outputs), 0.5, seed=0)
    compiled(model, SNES("sgd", population_size=4, turns=Turns(4)))
    y = np.zeros(batch_size, "int32")
    _, valid, state = evaluate_population(model, x, y)
    seen = next(s for path, s in state.items() if path.endswith("seen_sum")) * 4
    assert valid.all()
    assert seen.sum() == pytest.approx(4 * share)
    # Both members of a pair see an example; another pair only if there are too few.
    once = 2 if batch_size >= 2 * share else 4
    assert set(np.round(seen)) <= {0, once}
    tracked = next(s for path, s in state.items() if path.endswith("loss/count"))
    assert tracked == 4 * share


def test_split_covers_the_batch_over_generations():
    x = np.eye(16, dtype="float32")
    inputs = keras.Input((16,))
    outputs = keras.layers.Dense(3)(Seen(name="seen")(inputs))
    model = keras_es.sparsify(keras.Model(inputs, outputs), 0.5, seed=0)
    compiled(model, SNES("sgd", population_size=4))
    seen = np.zeros(16)
    for _ in range(12):
        model.train_on_batch(x, np.zeros(16, "int32"))
        seen += model.get_layer("seen").seen_sum.numpy()
    assert (seen > 0).all()


def test_moving_statistics_are_the_mean_over_members():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(4, use_bias=False, name="hidden")(inputs)
    hidden = keras.layers.BatchNormalization(momentum=0.0, name="bn")(hidden)
    model = keras_es.sparsify(keras.Model(inputs, hidden), 0.5, seed=0)
    optimizer = SNES("sgd", population_size=4, batch_mode="full")
    compiled(model, optimizer, loss="mse")
    x, _ = data()
    optimizer.build(model.trainable_variables)
    (masked,) = optimizer.masked_weights
    latent, means, variances = masked.kernel.numpy(), [], []
    for pair in range(2):
        for (units,) in optimizer.member_masks(pair):
            hidden = x @ (latent * np.array(masked.expand(units)))
            means.append(hidden.mean(axis=0))
            variances.append(hidden.var(axis=0))
    model.train_on_batch(x, np.zeros((32, 4), "float32"))
    bn = model.get_layer("bn")
    np.testing.assert_allclose(bn.moving_mean, np.mean(means, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bn.moving_variance, np.mean(variances, 0), rtol=1e-4)
    assert np.std(means, axis=0).max() > 0.01


class NoiseSum(keras.layers.Layer):
    """Leaves the noise of its dropout in a moving statistic, times the sign below."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout = keras.layers.Dropout(0.5, seed=0)

    def build(self, shape):
        self.noise = self.add_weight(
            shape=(64,), trainable=False, initializer="zeros", name="noise"
        )
        super().build(shape)

    def call(self, x, training=False):
        kept = self.dropout(keras.ops.ones((1, 64)), training=training)
        if training:
            self.noise.assign(kept[0])
        return x + keras.ops.mean(kept)


def noise_of_members(population_size):
    optimizer = SNES("sgd", population_size=population_size, batch_mode="full")
    model = members_model(NoiseSum(name="noisy"), optimizer=optimizer)
    before = model.get_layer("noisy").dropout.seed_generator.state.numpy()
    _, _, state = evaluate_population(model, *data())
    noise = next(s for path, s in state.items() if path.endswith("/noise"))
    after = next(s for path, s in state.items() if "seed_generator" in path)
    return noise, before, after


def test_a_pair_shares_dropout_noise():
    noise, before, after = noise_of_members(2)
    # Dropout keeps with weight 2: the mean of two equal draws is 0 or 2.
    assert set(noise) == {0.0, 2.0}
    assert after[0] == before[0] and after[1] > before[1]


def test_other_pairs_draw_other_dropout_noise():
    noise, _, _ = noise_of_members(4)
    assert set(noise) == {0.0, 1.0, 2.0}


def test_dropout_noise_advances_with_the_steps():
    optimizer = SNES("sgd", population_size=2)
    model = members_model(NoiseSum(name="noisy"), optimizer=optimizer)
    draws = []
    for _ in range(3):
        model.train_on_batch(*data())
        draws.append(model.get_layer("noisy").noise.numpy())
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[1], draws[2])


@pytest.mark.parametrize("batch_mode", ["split", "full"])
def test_keys_of_the_logs(batch_mode):
    optimizer = SNES("sgd", population_size=4, batch_mode=batch_mode)
    model = compiled(sparse_mlp(), optimizer, metrics=["accuracy"])
    history = model.fit(*data(), validation_data=data(seed=1), verbose=0).history
    validation = {"val_loss", "val_accuracy"}
    assert set(history) == {"loss", "accuracy"} | POPULATION_LOGS | validation


def test_logs_without_a_population():
    model = compiled(sparse_mlp(), Static("sgd"))
    history = model.fit(*data(), batch_size=32, verbose=0).history
    assert history["population_spread"] == [0.0]
    np.testing.assert_allclose(history["population_loss"], history["loss"], rtol=1e-6)
    assert history["mask_flip_ratio"] == [0.0]
    assert history["sparsity"][0] == pytest.approx(0.5)


def test_full_mode_reports_the_losses_of_its_members():
    optimizer = SNES("sgd", population_size=4, batch_mode="full")
    model = compiled(sparse_mlp(), optimizer)
    x, y = data()
    fitness, _, _ = evaluate_population(model, x, y)
    losses = []
    latents = {id(m.kernel): m.kernel.numpy() for m in optimizer.masked_weights}
    masks = [m for pair in range(2) for m in optimizer.member_masks(pair)]
    plain = mlp()
    for units in masks:
        values = [v.numpy() for v in model.trainable_variables]
        for masked, unit in zip(optimizer.masked_weights, units):
            at = next(
                i for i, v in enumerate(model.trainable_variables) if v is masked.kernel
            )
            values[at] = latents[id(masked.kernel)] * np.array(masked.expand(unit))
        plain.set_weights(values)
        losses.append(float(cross_entropy()(y, plain(x))))
    np.testing.assert_allclose(fitness, losses, rtol=1e-5)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["population_best"] == pytest.approx(min(losses), rel=1e-5)
    assert logs["population_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert logs["population_spread"] == pytest.approx(np.std(losses), rel=1e-3)
    assert logs["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_failed_member_is_left_out():
    # One example is infinite: in split mode only the pair that sees it fails.
    x, y = data()
    x[3] = np.inf
    optimizer = SNES(sgd(), population_size=8)
    model = compiled(sparse_mlp(), optimizer, metrics=["accuracy"])
    failed = 0
    for _ in range(4):
        logs = model.train_on_batch(x, y, return_dict=True)
        all_failed = logs["nonfinite_members"] - failed == optimizer.members_in_step
        assert np.isfinite(logs["population_loss"]) == (not all_failed)
        failed = logs["nonfinite_members"]
    assert 0 < failed < 32
    assert_finite(model)


def assert_finite(model):
    for variable in model.variables + model.optimizer.variables:
        assert np.isfinite(np.asarray(variable, "float32")).all(), variable.path


@keras.saving.register_keras_serializable(package="test_members")
class Root(keras.layers.Layer):
    """The root of each input: at 0 a finite number with an infinite slope."""

    def call(self, x):
        return keras.ops.sqrt(keras.ops.abs(x))


def test_a_member_with_a_gradient_that_is_not_finite_is_left_out():
    # In split mode only the pair that sees the example of zeros fails.
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(8, activation="sigmoid", use_bias=False)(inputs)
    outputs = keras.layers.Dense(3)(Root()(hidden - 0.5))
    model = keras_es.sparsify(keras.Model(inputs, outputs), 0.5, seed=0)
    x, y = data()
    x[3] = 0.0
    optimizer = SNES(sgd(), population_size=4, turns=Turns(members=4))
    compiled(model, optimizer, metrics=["accuracy"])
    for _ in range(4):
        logs = model.train_on_batch(x, y, return_dict=True)
        assert np.isfinite(logs["loss"]) and np.isfinite(logs["population_loss"])
    assert 0 < logs["nonfinite_members"] < 16 and logs["skipped_steps"] == 0
    assert_finite(model)


def test_gradients_are_looked_at_unless_the_user_says_not():
    x, y = data()
    for check in (True, False):
        model = keras_es.sparsify(mlp(Root()), 0.5, seed=0)
        # Not of zeros alone: else the masked layer of NaN slopes has no gradient.
        compiled(model, Static("sgd"), check_gradients=check)
        model.train_on_batch(np.zeros_like(x), y)
        assert np.isfinite(model.layers[0].bias).all() == check
        assert int(model.optimizer.nonfinite_members.value) == check
        config = model.get_compile_config()
        assert config.get("check_gradients", True) is check
    with pytest.raises(ValueError, match="True or False.*Received: check_gradients=1"):
        compiled(model, Static("sgd"), check_gradients=1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (3,), (4, 5), (2, 3, 4)])
def test_all_finite(shape, dtype):
    largest = tf.fill(shape, tf.constant(tf.dtypes.as_dtype(dtype).max, dtype))
    assert all_finite([largest, None, -largest])
    for wrong in (np.inf, -np.inf, np.nan):
        flat = tf.reshape(largest, [-1])
        spoilt = tf.concat([flat[1:], tf.constant([wrong], dtype)], axis=0)
        assert not all_finite([largest, tf.reshape(spoilt, shape)])


def fixed_batch():
    return keras.Sequential([keras.Input(batch_shape=(8, 6)), keras.layers.Dense(3)])


def stateful():
    gru = keras.layers.GRU(3, stateful=True)
    return keras.Sequential([keras.Input(batch_shape=(8, 2, 3)), gru])


@pytest.mark.parametrize("build", [fixed_batch, stateful])
def test_models_of_one_batch_size_want_whole_batches(build):
    model = keras_es.sparsify(build(), 0.5)
    x, y = np.ones(model.inputs[0].shape, "float32"), np.zeros(8, "int32")
    asked = {
        'batch_mode="full".*Received: a model with': OpenES("sgd", 2),
        "leave `batch_mode` out.*Received": OpenES(None, 2, batch_mode=Sampled(4)),
    }
    for text, optimizer in asked.items():
        with pytest.raises(ValueError, match=text):
            compiled(model, optimizer).train_on_batch(x, y)
    compiled(model, OpenES("sgd", 2, "full"))
    assert np.isfinite(model.train_on_batch(x, y)).all()


def test_all_finite_of_nothing_and_of_slices():
    assert all_finite([None]) and all_finite([])
    rows = tf.IndexedSlices(tf.constant([[1.0, np.nan]]), tf.constant([1]), (3, 2))
    assert not all_finite([rows])


def test_a_step_without_valid_members_changes_nothing():
    x, y = data()
    optimizer = SNES(sgd(), population_size=4, turns=Turns(4))
    model = compiled(sparse_mlp(keras.layers.BatchNormalization()), optimizer)
    model.train_on_batch(x, y)
    before = [v.numpy() for v in model.weights + model.optimizer.variables]
    logs = model.train_on_batch(np.full_like(x, np.nan), y, return_dict=True)
    counters = ("generation", "nonfinite_members", "skipped_steps", "mask_flip_ratio")
    for variable, old in zip(model.weights + model.optimizer.variables, before):
        if not variable.path.endswith(counters):
            np.testing.assert_array_equal(variable, old, err_msg=variable.path)
    assert logs["skipped_steps"] == 1 and logs["nonfinite_members"] == 4
    assert np.isfinite(model.train_on_batch(x, y, return_dict=True)["population_loss"])


@pytest.mark.parametrize(
    "members, held", [(2, 4), (8, 1), slow(2, 1), slow(4, 1), slow(4, 4), slow(8, 4)]
)
def test_while_sigma_is_zero_a_step_is_that_of_a_static_mask(members, held):
    """Members are equal then, and each is trained on examples of its own."""
    over = keras.optimizers.schedules.PiecewiseConstantDecay([-1], [1.0, 0.0])
    strategy = OpenES(sgd(), 8, turns=Turns(members, held), sigma=over)
    weights = []
    for optimizer in (strategy, Static(sgd())):
        keras.utils.set_random_seed(0)
        model = compiled(sparse_mlp(), optimizer)
        model.fit(*data(32), batch_size=16, epochs=3, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, 1e-4, 1e-5)
