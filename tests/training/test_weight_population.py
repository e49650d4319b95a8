"""A population of perturbed weights: losses and sums against one member at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_es.noise.weights import WeightNoise
from keras_es.ops import search
from keras_es.populations import perturbed
from keras_es.populations.perturbed import WeightPopulation
from tests.marks import slow

MEMBERS, SIGMA = 8, 0.1


def dense():
    return [
        keras.Input((6,)),
        layers.Dense(20, activation="tanh"),
        layers.LayerNormalization(),
        layers.Dense(7, use_bias=False),
        layers.Dense(3),
    ]


def convolution():
    return [
        keras.Input((6, 6, 2)),
        layers.Conv2D(8, 3, strides=2, activation="relu"),
        layers.DepthwiseConv2D(2),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, kernel_regularizer="l2"),
    ]


class Branch(layers.Layer):
    """Another sum, chosen by what is summed."""

    def call(self, x):
        return tf.cond(tf.reduce_mean(x) > 0, lambda: 0.5 * x, lambda: x + 1.0)


UNMAPPED = {  # under XLA, though TensorFlow has rules for what they do
    "convolution": lambda: [layers.Conv2D(2, 3), layers.Conv2D(2, 2)],
    "transposed": lambda: [layers.Conv2DTranspose(2, 3)],
    "depthwise": lambda: [layers.DepthwiseConv2D(3)],
    "branch": lambda: [layers.Dense(2), Branch()],
}


def recurrent():
    return [keras.Input((5, 2)), layers.GRU(4), layers.Dense(3)]


def attention():
    inputs = keras.Input((5, 4))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    x = layers.Add()([layers.Dense(4)(inputs), x])
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def make(build):
    parts = build()
    model = parts if isinstance(parts, keras.Model) else keras.Sequential(parts)
    x = tf.random.stateless_normal((10, *model.input_shape[1:]), [1, 2])
    return model, x, tf.range(10) % 3


def loss_of(model, x, y):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def function():
        return loss(y, model(x)) + sum(model.losses)

    return function


def scales_of(model):
    return [SIGMA for _ in model.trainable_variables]


def all_members(noise):
    """Return a function: generation -> noise of all members at sigma 1, [n, ...]."""
    draws = MEMBERS // 2 // noise.pairs_per_draw

    @tf.function(autograph=False)
    def members(generation):
        factors, multipliers = noise.draw(
            generation, tf.range(draws), [1.0] * len(noise.variables)
        )
        values = []
        for i, (p, v, m) in enumerate(
            zip(noise.perturbations, noise.variables, multipliers)
        ):
            parts = [tf.unstack(f) for f in factors[i]]
            full = tf.stack([p.value(list(one)) for one in zip(*parts)])
            m = m[..., None] if m.shape.rank == 2 else m
            m = tf.reshape(m, (*m.shape[:2], *[1] * (len(v.shape) - 1), -1))
            values.append(tf.reshape(full[:, None] * m, (MEMBERS, *v.shape)))
        return values

    return members


def perturbations(noise, generation):
    """Return the list of all members' noise at sigma 1, one list of arrays each."""
    values = all_members(noise)(tf.constant(generation))
    return [[v[k] for v in values] for k in range(MEMBERS)]


def one_by_one(model, function, noise, generation):
    start, losses = model.get_weights(), []
    for change in perturbations(noise, generation):
        for variable, value in zip(noise.variables, change):
            variable.assign_add(SIGMA * value)
        losses.append(float(function()))
        model.set_weights(start)
    return losses


def compared(model, function, settings, jit_compile=False):
    """Return a population, and its losses, which are those of member after member."""
    noise = WeightNoise(model.trainable_variables, seed=3, **settings)
    population = WeightPopulation(model, noise, MEMBERS)

    @tf.function(autograph=False, jit_compile=jit_compile)
    def evaluate(generation):
        return population.evaluate(function, generation, scales_of(model))[0]

    expected = one_by_one(model, function, noise, 5)
    np.testing.assert_allclose(evaluate(tf.constant(5)), expected, rtol=2e-5)
    return population, expected


@pytest.mark.parametrize(
    "build, settings",
    [
        (dense, {}),
        (dense, {"rank": 1}),
        (dense, {"pairs_per_draw": 2}),
        (convolution, {"rank": 1}),
        (recurrent, {}),
        (attention, {"pairs_per_draw": 2}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_losses_are_those_of_each_perturbed_model(build, settings):
    model, x, y = make(build)
    _, losses = compared(model, loss_of(model, x, y), settings)
    assert np.std(losses) > 1e-3
    assert "call" not in vars(model.layers[-1])


@pytest.mark.parametrize("between", UNMAPPED.values(), ids=UNMAPPED)
def test_what_is_not_mapped_under_xla_goes_in_turn(between):
    model, x, y = make(
        lambda: [keras.Input((6, 6, 2)), *between(), layers.Flatten(), layers.Dense(3)]
    )
    compared(model, loss_of(model, x, y), {}, jit_compile=True)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 2), (3, 4, 5, 2, 2)], ids=len)
def test_a_bias_along_the_second_axis_and_its_gradient(shape):
    """Of `EinsumDense("abc,cd->adb", ..., bias_axes="d")`, say: what Keras adds so."""
    x = tf.reshape(tf.range(float(np.prod(shape))), shape) / 50.0
    biases = tf.reshape(tf.range(24.0), (2, 3, 4))  # of draws and their members

    def values(bias):
        with tf.GradientTape() as tape:
            tape.watch(bias)
            y = tf.nn.bias_add(tf.sin(x) * bias[0], bias, data_format="NCHW")
            loss = tf.reduce_sum(tf.square(y))
        return loss, tape.gradient(loss, bias)

    expected = [values(bias) for bias in tf.reshape(biases, (6, 4))]
    found = tf.vectorized_map(lambda b: tf.vectorized_map(values, b), biases)
    for some, one_by_one in zip(found, zip(*expected)):
        some = tf.reshape(some, (6, *some.shape[2:]))
        np.testing.assert_allclose(some, tf.stack(one_by_one), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"rank": 2}, {"pairs_per_draw": 2}], ids=str)
def test_chunks_of_any_size_give_the_same_under_xla(settings):
    model, x, y = make(dense)
    function = loss_of(model, x, y)
    noise = WeightNoise(model.trainable_variables, seed=3, **settings)
    expected = one_by_one(model, function, noise, 2)
    for members_per_chunk in (4, 8, None):
        population = WeightPopulation(model, noise, MEMBERS, members_per_chunk)

        @tf.function(jit_compile=True, autograph=False)
        def evaluate(generation, population=population):
            return population.evaluate(function, generation, scales_of(model))[0]

        np.testing.assert_allclose(evaluate(tf.constant(2)), expected, rtol=2e-5)


def test_a_standard_deviation_for_each_weight():
    model, x, y = make(dense)
    function = loss_of(model, x, y)
    noise = WeightNoise(model.trainable_variables)
    population = WeightPopulation(model, noise, MEMBERS)
    scales = [tf.fill(v.shape, SIGMA) for v in model.trainable_variables]
    losses = tf.function(lambda g: population.evaluate(function, g, scales)[0])
    np.testing.assert_allclose(
        losses(tf.constant(1)), one_by_one(model, function, noise, 1), rtol=2e-5
    )


@pytest.mark.parametrize(
    "settings, draws_per_chunk",
    [
        ({}, 1), ({"rank": 2}, 4), ({"pairs_per_draw": 2}, 1),
        slow({}, 4), slow({"rank": 2}, 1), slow({"pairs_per_draw": 2}, 4),
    ],
    ids=str,
)  # fmt: skip
def test_sums_are_those_of_the_members_noise(settings, draws_per_chunk):
    model, _, _ = make(dense)
    noise = WeightNoise(model.trainable_variables, seed=1, **settings)
    weights = np.arange(MEMBERS // 2, dtype="float32") - 1.3
    sums = tf.function(
        lambda g, w: noise.weighted_sums(g, w, draws_per_chunk=draws_per_chunk),
        jit_compile=True,
    )
    members = perturbations(noise, 4)[0::2]
    for i, found in enumerate(sums(tf.constant(4), tf.constant(weights))):
        expected = sum(w * member[i] for w, member in zip(weights, members))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, {"rank": 1}, {"rank": 3}, {"pairs_per_draw": 4}], ids=str
)
def test_search_gradient_of_a_quadratic_is_unbiased(settings):
    """f(W) = <G, W> + |W|^2 / 2 around W: the antithetic estimate has mean G + W."""
    generator = np.random.default_rng(0)
    weight = keras.Variable(generator.normal(size=(6, 4)), dtype="float32")
    slope = tf.constant(generator.normal(size=(6, 4)), tf.float32)
    noise = WeightNoise([weight], seed=2, **settings)

    noises = all_members(noise)

    @tf.function(jit_compile=True, autograph=False)
    def estimate(generation):
        members = weight + SIGMA * noises(generation)[0]
        losses = tf.reduce_sum(slope * members + 0.5 * members**2, axis=(1, 2))
        sums = noise.weighted_sums(generation, losses[0::2] - losses[1::2])
        return -search.gaussian(sums[0], MEMBERS, SIGMA)

    estimates = np.stack([estimate(tf.constant(g)) for g in range(800)])
    error = estimates.mean(axis=0) - (slope + weight).numpy()
    standard_error = estimates.std(axis=0) / np.sqrt(len(estimates))
    assert np.abs(error / standard_error).max() < 5


def test_members_that_share_a_draw_have_the_law_of_independent_ones():
    weight = keras.Variable(np.zeros((3, 5)), dtype="float32")
    noise = WeightNoise([weight], pairs_per_draw=4)
    draw = all_members(noise)
    members = np.stack([draw(tf.constant(g))[0].numpy()[0::2] for g in range(600)])
    flat = members.reshape(len(members), -1)
    covariance = flat.T @ flat / len(flat)
    # Variances of 2 (squares) and 1 (products), 1,770 entries: six standard errors.
    assert np.abs(covariance - np.eye(flat.shape[1])).max() < 6 * np.sqrt(2 / 600)


@pytest.mark.parametrize("pairs_per_draw", [1, 2])
def test_a_weight_that_is_one_number_has_noise_like_others(pairs_per_draw):
    number, vector = keras.Variable(0.0), keras.Variable(np.zeros(1, "float32"))
    noise = WeightNoise([number, vector], pairs_per_draw=pairs_per_draw)
    members, other = noise.members(0, 4, [0.5, 0.5])
    assert members.shape == (8 * pairs_per_draw,) and other.shape[1:] == (1,)
    np.testing.assert_allclose(members[0::2], -members[1::2])
    factors, multipliers = noise.draw(0, tf.range(4), [0.5, 0.5])
    factors = [[f[0] for f in parts] for parts in factors]
    first, _ = noise.value(factors, [m[0, 0] for m in multipliers])
    assert first.shape == () and first == members[0]


def test_updates_of_members_are_averaged():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()]
    )
    x = tf.random.stateless_normal((10, 4), [1, 2])
    noise = WeightNoise(model.trainable_variables)
    population = WeightPopulation(model, noise, 4)
    moving = model.layers[-1].moving_mean

    @tf.function(autograph=False)
    def evaluate(generation):
        return population.evaluate(
            lambda: tf.reduce_mean(model(x, training=True)),
            generation,
            scales_of(model),
            updated=[moving],
        )

    _, (new,), *_ = evaluate(tf.constant(0))
    assert new.shape == (3,)
    assert np.abs(new).max() > 0 and np.abs(moving).max() == 0


def test_inputs_that_all_members_share_are_found():
    model, x, y = make(attention)
    noise = WeightNoise(model.trainable_variables)
    population = WeightPopulation(model, noise, 4)
    found = {}

    @tf.function(autograph=False)
    def trace():
        shared, differing, _ = perturbed.shared_products.find_shared(
            population.layers, noise.variables, loss_of(model, x, y)
        )
        found.update(shared)
        assert any(op.type == "MatMul" for op in differing)

    trace()
    first = next(v for v in model.layers if isinstance(v, layers.Dense))
    assert list(found) == [id(first.kernel)]


def test_members_are_one_computation_wherever_the_population_was_made():
    model, x, y = make(dense)
    noise = WeightNoise(model.trainable_variables)
    made_before = WeightPopulation(model, noise, 4)

    def operations(population):
        @tf.function(autograph=False)
        def evaluate(generation):
            population().evaluate(loss_of(model, x, y), generation, scales_of(model))

        graph = evaluate.get_concrete_function(tf.constant(0)).graph
        return sorted(op.type for op in graph.get_operations())

    found = operations(lambda: made_before)
    assert found == operations(lambda: WeightPopulation(model, noise, 4))
    assert not [kind for kind in found if "While" in kind]  # as members in turn have


def test_sizes_that_do_not_divide_are_refused():
    model, _, _ = make(dense)
    noise = WeightNoise(model.trainable_variables, pairs_per_draw=4)
    with pytest.raises(ValueError, match="multiple of 8.*Received: population_size=12"):
        WeightPopulation(model, noise, 12)
    with pytest.raises(ValueError, match="Received: members_per_chunk=3"):
        WeightPopulation(model, noise, 8, members_per_chunk=3)
