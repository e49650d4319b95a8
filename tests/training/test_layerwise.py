"""Pairs with noise on the weights of one layer each."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import keras_es
from keras_es.noise import Full, Layerwise, LowRank, Outputs, layerwise
from keras_es.noise.weights import WeightNoise
from keras_es.optimizers import SNES, OpenES, Sampled
from tests.marks import slow
from tests.reference import problems, pure
from tests.reference.estimates import assert_unbiased
from tests.training.common import images

SIGMA = 0.1


def linear(seed=0):
    """Two dense layers without bias on one input, whose outputs are added."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((3,))
    one = layers.Dense(2, use_bias=False, name="one")
    two = layers.Dense(2, name="two")
    model = keras.Model(x, layers.Add()([one(x), two(layers.Dense(4, name="in")(x))]))
    return keras_es.es_model(model)


def strategy(cls=OpenES, members=32, **kwargs):
    if cls is OpenES:
        kwargs = {"mean_optimizer": keras.optimizers.SGD(1.0), **kwargs}
    arguments = {"fitness_shaping": "raw", "sigma": SIGMA, "noise": Layerwise()}
    return cls(None, members, **{**arguments, **kwargs})


def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(8, 3)).astype("float32")
    return x, random.normal(size=(8, 2)).astype("float32")


def steps(optimizer, generations):
    """Return steps [generations, weights] from the same weights."""
    model, (x, y) = linear(), data()
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.build(model.trainable_variables)
    start, found = model.get_weights(), []
    for generation in range(generations):
        optimizer.generation.assign(generation)
        model.set_weights(start)
        model.train_on_batch(x, y)
        moved = [a - b for a, b in zip(model.get_weights(), start)]
        found.append(np.concatenate([np.ravel(m) for m in moved]))
    return np.array(found)


def gradient():
    import tensorflow as tf

    model, (x, y) = linear(), data()
    with tf.GradientTape() as tape:
        loss = keras.losses.MeanSquaredError()(y, model(x))
    found = tape.gradient(loss, model.trainable_variables)
    return np.concatenate([np.ravel(g) for g in found])


@pytest.mark.parametrize("noise", [Full(), slow(LowRank(1)), slow(Full(2))], ids=str)
def test_the_estimate_is_unbiased(noise):
    assert_unbiased(steps(strategy(noise=Layerwise(noise)), 300), -gradient())


def test_weights_that_rest_are_regularized():
    keras.utils.set_random_seed(0)
    x = keras.Input((3,))
    decay = {"kernel_regularizer": "l2", "bias_regularizer": "l1"}
    outputs = layers.Dense(2)(layers.Dense(4, bias_initializer="ones", **decay)(x))
    model = keras_es.es_model(keras.Model(x, outputs))
    still = {"sigma": 0.0, "mean_optimizer": keras.optimizers.SGD(0.0)}
    model.compile(strategy(members=4, **still), "mse", jit_compile=False)
    found = model.train_on_batch(*data(), return_dict=True)
    assert found["population_loss"] == pytest.approx(
        model.evaluate(*data(), verbose=0), rel=1e-5
    )


@pytest.mark.slow
def test_snes_takes_the_steps_of_its_whole_population_on_average():
    # -eta n std**2 g, as if all members had spoken of each layer.
    found = steps(strategy(SNES, std_learning_rate=0.0), 300) / (32 * SIGMA**2)
    assert_unbiased(found, -gradient())


@pytest.mark.parametrize("cls", [OpenES, slow(SNES)])
def test_a_pair_has_noise_on_one_layer(cls):
    """The losses of the members are those of weights with noise in one layer."""
    model, (x, y) = linear(), data()
    optimizer = strategy(cls, members=8)
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.build(model.trainable_variables)
    groups = optimizer.search.groups([None] * len(optimizer.search.variables))
    draws = {g.variables[0].path.split("/")[-2]: g.draws for g in groups}
    assert draws == {"in": 2, "one": 1, "two": 1}  # 16, 6 and 10 weights
    (x, y), start = data(), model.get_weights()
    everywhere = [np.asarray(v) for v in optimizer.ask()]
    losses = []
    for pair in range(4):
        group = next(g for g in groups if pair < g.first_draw + g.draws)
        own = {id(v) for v in group.variables}
        for member in (2 * pair, 2 * pair + 1):
            for v, value, old in zip(optimizer.search.variables, everywhere, start):
                v.assign(value[member] if id(v) in own else old)
            losses.append(np.mean((np.asarray(model(x)) - y) ** 2))
    model.set_weights(start)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["population_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert logs["population_best"] == pytest.approx(np.min(losses), rel=1e-4)


def convolutions(*between):
    keras.utils.set_random_seed(3)
    return keras_es.es_model(
        keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                layers.Conv2D(4, 3, activation="relu", name="first"),
                *between,
                layers.Conv2D(5, 2, name="second"),
                pure.Sign(),
                layers.Flatten(),
                layers.Dense(3, name="logits"),
            ]
        )
    )


def trained(*between, jit_compile=False, members=16, batch_size=8, epochs=2, **kwargs):
    model = convolutions(*between)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = strategy(members=members, seed=2, **kwargs)
    model.compile(optimizer, loss, jit_compile=jit_compile)
    model.fit(*images(), batch_size, epochs, shuffle=False, verbose=0)
    return model


@functools.cache
def weights(**kwargs):
    return trained(**kwargs).get_weights()


@pytest.mark.slow
def test_every_weight_moves_and_statistics_follow():
    norm = layers.BatchNormalization
    first = convolutions(norm()).get_weights()
    for a, b in zip(first, trained(norm(), batch_size=7).get_weights()):
        assert np.isfinite(b).all() and (a != b).any()


@pytest.mark.slow
def test_layers_with_noise_on_outputs_are_in_all_groups():
    norm = layers.BatchNormalization()
    model = trained(norm, noise=Layerwise(Outputs(0.1)), batch_mode=Sampled(4))
    still = pure.with_noise_on_outputs(model, *images())
    chosen = [v.path.split("/")[-2] for v in still]
    assert chosen == ["logits", "logits"]
    ids = {id(v) for v in still}
    said = [0.0 if id(v) in ids else None for v in model.optimizer.search.variables]
    names = [
        {v.path.split("/")[-2] for v in group.variables}
        for group in model.optimizer.search.groups(said)
    ]
    assert names == [{"first"}, {"batch_normalization"}, {"second"}]


def test_masks_that_move_take_part():
    model = pure.make_model(masked=True)
    model.compile(strategy(members=8), loss="binary_crossentropy")
    history = problems.fit(model, epochs=3).history
    assert np.isfinite(history["loss"]).all()
    scores = [m.mask_scores for m in keras_es.masked_weights(model)]
    said = [None] * len(model.optimizer.search.variables)
    groups = model.optimizer.search.groups(said)
    searched = {id(v) for g in groups for v in g.variables}
    assert {id(s) for s in scores} <= searched


def test_one_layer_is_plain_noise():
    noise = WeightNoise([keras.Variable(np.zeros((2, 3))), keras.Variable(0.0)])
    (group,) = layerwise.whole(noise, 5)
    assert (group.first_draw, group.draws) == (0, 5)
    assert len(group.variables) == 2


def test_shares_are_all_of_the_draws():
    random = np.random.default_rng(0)
    for _ in range(200):
        sizes = [*random.uniform(0.1, 100, size=random.integers(2, 9))]
        total = int(random.integers(len(sizes), 300))
        counts = layerwise.shares(sizes, total)
        assert sum(counts) == total and min(counts) >= 1
    assert layerwise.shares([1.0, 1.0], 2) == [1, 1]


def test_too_few_members_and_hybrid_are_refused():
    with pytest.raises(ValueError, match="Enlarge `population_size`.*Received"):
        trained(members=4)
    with pytest.raises(ValueError, match="noise=Layerwise.* is of pure.*Received"):
        OpenES("adam", noise=Layerwise())
