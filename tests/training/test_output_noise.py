"""Noise on the outputs of layers in place of noise on their weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_es
from keras_es.noise import Full, Outputs
from keras_es.noise import outputs as output_noise
from keras_es.ops import noise, philox
from keras_es.optimizers import SNES, OpenES
from tests.reference import problems, pure
from tests.training.common import images

SIGMA = 0.1
EXAMPLES, CLASSES = 5, 3


def outputs(*inputs):
    """A model of one layer; the data and mean of an example's loss are quadratic."""
    shape, layer = inputs
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), layer])
    random = np.random.default_rng(1)
    x = random.normal(size=(EXAMPLES, *shape)).astype("float32")
    y = random.normal(size=(EXAMPLES, *model.output_shape[1:])).astype("float32")
    return keras_es.es_model(model), x, y


ONE_LAYER = {
    "dense": lambda: outputs((6,), layers.Dense(CLASSES)),
    "dense on a sequence": lambda: outputs((2, 8), layers.Dense(CLASSES)),
    "convolution": lambda: outputs((4, 4, 2), layers.Conv2D(CLASSES, 3)),
    "no bias": lambda: outputs((6,), layers.Dense(CLASSES, use_bias=False)),
}


def strategy(members=4, **kwargs):
    """Steps of 1 down the search gradient of the losses themselves."""
    arguments = {
        "fitness_shaping": "raw",
        "mean_optimizer": keras.optimizers.SGD(1.0),
        "noise": Outputs(SIGMA),
    }
    return OpenES(None, members, **{**arguments, **kwargs})


def steps_from(model, x, y, sample_weight=None, optimizer=None, **kwargs):
    """Return a function of the generation to the step from the first weights."""
    optimizer = strategy(**kwargs) if optimizer is None else optimizer
    model.compile(optimizer, loss="mse")
    start = [v.numpy() for v in model.trainable_variables]

    def step(generation):
        optimizer.build(model.trainable_variables)
        optimizer.generation.assign(generation)
        for variable, value in zip(model.trainable_variables, start):
            variable.assign(value)
        model.train_on_batch(x, y, sample_weight)
        return [v.numpy() - value for v, value in zip(model.trainable_variables, start)]

    return step


def true_gradient(model, x, y, sample_weight=None):
    loss = keras.losses.MeanSquaredError()
    with tf.GradientTape() as tape:
        value = loss(y, model(x), sample_weight)
    return [g.numpy() for g in tape.gradient(value, model.trainable_variables)]


def assert_unbiased(steps, truth):
    for expected, *found in zip(truth, *steps):
        error = np.mean(found, axis=0) + expected
        standard_error = np.std(found, axis=0) / np.sqrt(len(found))
        assert np.abs(error / standard_error).max() < 5
        assert np.abs(expected / standard_error).max() > 5


@pytest.mark.parametrize("kind", ONE_LAYER)
def test_the_estimate_is_unbiased_for_a_quadratic(kind):
    model, x, y = ONE_LAYER[kind]()
    truth, step = true_gradient(model, x, y), steps_from(model, x, y)
    assert_unbiased([step(generation) for generation in range(200)], truth)
    assert len(pure.with_noise_on_outputs(model, x, y)) == len(truth)


def test_snes_moves_by_what_its_sum_would_be_on_average():
    model, x, y = ONE_LAYER["dense"]()
    truth = true_gradient(model, x, y)
    optimizer = SNES(None, 4, fitness_shaping="raw", sigma=0.2, noise=Outputs(SIGMA))
    step = steps_from(model, x, y, optimizer=optimizer)
    # -eta n std**2 g, and the std stays.
    steps = [[s / (4 * 0.2**2) for s in step(generation)] for generation in range(200)]
    assert_unbiased(steps, truth)
    for std in model.optimizer.scales():
        np.testing.assert_array_equal(np.asarray(std), np.float32(0.2))


def test_examples_have_their_weights():
    model, x, y = ONE_LAYER["dense"]()
    weights = np.arange(EXAMPLES, dtype="float32")
    truth, step = true_gradient(model, x, y, weights), steps_from(model, x, y, weights)
    assert_unbiased([step(generation) for generation in range(200)], truth)


def test_pairs_that_share_a_draw_are_unbiased_too():
    model, x, y = ONE_LAYER["dense"]()
    truth = true_gradient(model, x, y)
    step = steps_from(model, x, y, members=8, noise=Outputs(SIGMA, Full(2)))
    assert_unbiased([step(generation) for generation in range(200)], truth)


def test_a_step_is_that_of_numpy():
    model, x, y = ONE_LAYER["dense"]()
    kernel, bias = model.get_weights()
    generation, pairs = 7, 3
    key = noise.stream_key(5, "outputs 0")
    position = philox.stream(key, tf.constant(generation), tf.range(pairs))
    deltas = output_noise._signs(tf.zeros((EXAMPLES, CLASSES)), position).numpy()
    assert set(np.unique(deltas)) == {-1.0, 1.0}

    def losses(sign, delta):
        y_pred = x @ kernel + bias + sign * SIGMA * delta
        return ((y_pred - y) ** 2).mean(axis=1) / EXAMPLES

    by_output = sum(
        (losses(1, d) - losses(-1, d))[:, None] * d / (2 * pairs * SIGMA)
        for d in deltas
    )
    found = steps_from(model, x, y, members=2 * pairs, seed=5)(generation)
    np.testing.assert_allclose(found[0], -x.T @ by_output, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found[1], -by_output.sum(axis=0), rtol=1e-3, atol=1e-5)


def test_signs_have_the_law_of_fair_coins():
    position = philox.stream(noise.stream_key(0, "x"), tf.constant(3), tf.range(50))
    signs = output_noise._signs(tf.zeros((7, 5, 13)), position).numpy()
    assert signs.shape == (50, 7, 5, 13)
    assert abs(signs.mean()) < 5 / np.sqrt(signs.size)
    flat = signs.reshape(50, -1)
    correlation = flat @ flat.T / flat.shape[1] - np.eye(50)
    assert np.abs(correlation).max() < 5 / np.sqrt(flat.shape[1])


def network(regularizer="l2"):
    """Convolutions with many and few positions, dense layers; hard signs between."""
    keras.utils.set_random_seed(3)
    return keras_es.es_model(
        keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                layers.Conv2D(4, 3, activation="relu", name="many_positions"),
                layers.Conv2D(4, 4, name="one_position"),
                pure.Sign(),
                layers.Flatten(),
                layers.Dense(5, activation="relu", kernel_regularizer=regularizer),
                layers.Dense(CLASSES, name="logits"),
            ]
        )
    )


def trained(jit_compile=False, batch_size=8, epochs=2, model=None, loss=None, **kwargs):
    model = network() if model is None else model
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        strategy(**{"members": 8, "seed": 2, **kwargs}), loss, jit_compile=jit_compile
    )
    model.fit(*images(), batch_size, epochs, shuffle=False, verbose=0)
    return model


def test_layers_with_few_positions_and_no_regularizer_are_chosen():
    model = trained()
    still = pure.with_noise_on_outputs(model, *images())
    chosen = {v.path.split("/")[-2] for v in still}
    assert chosen == {"one_position", "logits"}
    for before, after in zip(network().get_weights(), model.get_weights()):
        assert (before != after).all()


def test_a_fitness_for_each_example_is_used_as_the_loss_is():
    def cross_entropy(y, y_pred):
        return keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)

    by_loss = trained(model=network(None))
    by_fitness = trained(model=network(None), fitness=cross_entropy)
    for a, b in zip(by_loss.get_weights(), by_fitness.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def worst(y, y_pred):
    """One loss for all examples."""
    return tf.reduce_max(
        keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
    )


def test_a_loss_of_one_number_is_what_it_is_as_a_fitness():
    by_loss = trained(model=network(None), loss=worst)
    by_fitness = trained(model=network(None), fitness=worst)
    for a, b in zip(by_loss.get_weights(), by_fitness.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_one_number_for_all_examples_is_a_fitness_too():
    model = trained(fitness=worst, epochs=40, mean_optimizer=keras.optimizers.SGD(0.03))
    x, y = images()
    before = worst(y, network()(x))
    assert worst(y, model(x)) < 0.9 * before


def test_a_member_that_fails_teaches_nothing():
    @keras.saving.register_keras_serializable(package="test_output_noise")
    class Fails(layers.Layer):
        """Not a number for some of the members."""

        def call(self, x):
            return x + keras.ops.where(x[:, :1] > x[:, 1:2], 0.0, float("nan"))

    keras.utils.set_random_seed(0)
    model = keras_es.es_model(
        keras.Sequential([keras.Input((6,)), layers.Dense(2), Fails()])
    )
    model.compile(strategy(16, noise=Outputs(3.0)), "mse")
    x = np.random.default_rng(0).normal(size=(1, 6)).astype("float32")
    logs = model.train_on_batch(x, np.zeros((1, 2), "float32"), return_dict=True)
    assert 0 < logs["nonfinite_members"] < 16
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_snes_trains_a_network_with_both_kinds_of_noise():
    model = network()
    model.compile(
        SNES(None, 16, noise=Outputs(0.3)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    losses = model.fit(*images(64), epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    config = model.optimizer.get_config()
    assert SNES.from_config(config).noise == Outputs(0.3)


def test_all_weights_have_noise_in_ask_after_fit():
    model = trained()
    members = model.optimizer.ask()
    for weight, values in zip(model.trainable_variables, members):
        assert (np.asarray(values) != weight.numpy()).all()
    before = model.get_weights()
    model.optimizer.tell(np.arange(8.0))
    for a, b in zip(before, model.get_weights()):
        assert (a != b).all()


def test_a_schedule_may_end_at_0():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [SIGMA, 0.0])
    model = trained(noise=Outputs(schedule), epochs=3)
    assert model.optimizer.get_config()["noise"]["config"]["sigma"]["class_name"]
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.parametrize("cls", [OpenES, SNES])
def test_it_is_of_pure_evolution(cls):
    with pytest.raises(ValueError, match="noise=Outputs.* is of pure.*Received"):
        cls("adam", noise=Outputs(0.1))
    with pytest.raises(ValueError, match="`sigma` must be a number.*Received"):
        OpenES(None, noise=Outputs(-1.0))


class Own(layers.Layer):
    """A dense layer of a user's own."""

    use_bias, activation = True, staticmethod(keras.activations.tanh)

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], CLASSES))
        self.bias = self.add_weight(shape=(CLASSES,), initializer="zeros")

    def kernel_product(self, x, kernel):
        return keras.ops.matmul(x, kernel)

    def call(self, x):
        return self.activation(self.kernel_product(x, self.kernel) + self.bias)


def test_layers_of_a_users_own_take_part():
    steps = []
    for layer in (layers.Dense(CLASSES, activation="tanh"), Own()):
        model, x, y = outputs((6,), layer)
        steps.append(steps_from(model, x, y)(3))
        assert len(pure.with_noise_on_outputs(model, x, y)) == 2
    for a, b in zip(*steps):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_masked_layers_keep_noise_on_weights():
    model = pure.make_model(masked=True)
    model.compile(strategy(8), loss="binary_crossentropy")
    problems.fit(model)
    still = pure.with_noise_on_outputs(model, *problems.data())
    chosen = {v.path.split("/")[-2] for v in still}
    assert chosen == {"out"}
