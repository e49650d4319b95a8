"""Noise on tables of embeddings: rows are looked up, no table is made for a member."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.noise import LowRank
from keras_es.noise.weights import WeightNoise
from keras_es.optimizers import OpenES
from keras_es.populations.perturbed import WeightPopulation
from tests.marks import slow
from tests.reference.estimates import assert_unbiased
from tests.training.graphs import largest_tensor
from tests.training.test_weight_population import MEMBERS, compared

ROWS, COLUMNS = 30, 6
IDS = np.array([[1, 2, 3], [29, 0, 2], [5, 5, 1], [7, 8, 29]])


def looked_up():
    return keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(ROWS, COLUMNS),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(ROWS),
        ]
    )


def tied():
    """The table is read forwards and backwards, as in GPT-2."""
    reversible = getattr(keras.layers, "ReversibleEmbedding", None)
    if reversible is None:
        pytest.skip("Keras has no ReversibleEmbedding yet")
    ids = keras.Input((3,), dtype="int32")
    table = reversible(ROWS, COLUMNS, logit_soft_cap=5.0)
    x = keras.layers.GlobalAveragePooling1D()(table(ids))
    return keras.Model(ids, table(x, reverse=True))


def loss_of(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Large enough that the noise shows.
    return lambda: loss(IDS[:, 0], 10.0 * model(tf.constant(IDS)))


@pytest.mark.parametrize(
    "build, settings",
    [(tied, {"rank": 1, "pairs_per_draw": 2}), slow(looked_up, {"rank": 1}),
     slow(looked_up, {}), slow(tied, {"rank": 2}), slow(tied, {})],
    ids=lambda value: getattr(value, "__name__", str(value)),
)  # fmt: skip
def test_losses_are_those_of_each_perturbed_table(build, settings):
    keras.utils.set_random_seed(0)
    model = build()
    population, losses = compared(model, loss_of(model), settings)
    assert np.std(losses) > 1e-2
    assert len(population.lookups) == 1 and "call" not in vars(model.layers[1])


def test_no_member_has_a_table_of_its_own():
    """Of rank 1 a chunk of members holds r numbers a row, the table is one for all."""
    ids = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(1000, 8)(ids)
    model = keras.Model(ids, keras.layers.GlobalAveragePooling1D()(x))
    noise = WeightNoise(model.trainable_variables, rank=1)
    population = WeightPopulation(model, noise, MEMBERS, members_per_chunk=MEMBERS)
    evaluate = tf.function(
        lambda: population.evaluate(
            lambda: tf.reduce_sum(model(tf.constant(IDS))), tf.constant(0), [0.1]
        )[0],
        autograph=False,
    )
    graph = evaluate.get_concrete_function().graph
    assert largest_tensor(graph) <= 1000 * 8


def test_a_masked_or_regularized_table_is_perturbed_as_a_whole():
    ids = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(9, 4, embeddings_regularizer="l2")(ids)
    model = keras.Model(ids, keras.layers.GlobalAveragePooling1D()(x))
    noise = WeightNoise(model.trainable_variables, rank=1)
    assert not WeightPopulation(model, noise, 4).lookups


def test_the_search_gradient_is_unbiased_through_fit():
    """Of a quadratic loss, where the antithetic estimate has the gradient as mean."""
    keras.utils.set_random_seed(1)
    ids = keras.Input((1,), dtype="int32")
    x = keras.layers.Embedding(6, 4)(ids)
    model = keras_es.es_model(keras.Model(ids, keras.layers.Flatten()(x)))
    targets = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    data, (table,) = (np.array([[1], [4], [1]]), targets), model.get_weights()
    optimizer = OpenES(
        None, 64, fitness_shaping="raw", sigma=0.1, noise=LowRank(1),
        mean_optimizer=keras.optimizers.SGD(1.0),
    )  # fmt: skip
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.build(model.trainable_variables)
    moved = []
    for generation in range(100):
        optimizer.generation.assign(generation)
        model.set_weights([table])
        model.train_on_batch(*data)
        moved.append(model.get_weights()[0] - table)
    gradient = np.zeros_like(table)
    for (row,), target in zip(*data):
        gradient[row] += 2.0 * (table[row] - target) / targets.size
    assert_unbiased(moved, -gradient)
    np.testing.assert_array_equal(np.abs(moved).max(axis=(0, 2)) > 0, True)
