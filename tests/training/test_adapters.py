"""Evolution of adapters (LoRA): they alone move, frozen weights are one for all."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.noise import Layerwise, LowRank
from keras_es.noise.adapters import adapted_calls
from keras_es.noise.weights import WeightNoise
from keras_es.optimizers import GeneticAlgorithm, OpenES
from keras_es.populations.perturbed import WeightPopulation
from tests.training.graphs import largest_tensor
from tests.training.test_weight_population import MEMBERS, one_by_one, scales_of

IDS = np.array([[1, 2, 3], [9, 0, 2], [5, 5, 1], [7, 8, 9]])


def adapted(wide=8):
    """Embedding, attention's EinsumDense and Dense, each with an adapter of rank 2."""
    keras.utils.set_random_seed(0)
    ids = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(10, wide)(ids)
    x = keras.layers.EinsumDense("abc,cde->abde", (3, 2, 4), bias_axes="de")(x)
    x = keras.layers.EinsumDense("abcd,cde->abe", (3, wide))(x)
    x = keras.layers.Dense(4, activation="tanh")(keras.layers.Flatten()(x))
    model = keras.Model(ids, x)
    for layer in model.layers:
        if hasattr(layer, "enable_lora"):
            layer.enable_lora(2)
    for variable in model.trainable_variables:  # B begins at zero.
        variable.assign(0.3 * np.random.default_rng(1).normal(size=variable.shape))
    return model


def loss_of(model, ids=IDS):
    return lambda: tf.reduce_mean(tf.square(model(tf.constant(ids)) - 0.5))


def evaluated(model, noise, ids=IDS, **settings):
    population = WeightPopulation(model, noise, MEMBERS, **settings)
    return tf.function(
        lambda g: population.evaluate(loss_of(model, ids), g, scales_of(model))[0],
        autograph=False,
    )


@pytest.mark.slow
def test_losses_are_those_of_each_perturbed_adapter():
    model = adapted()
    noise = WeightNoise(model.trainable_variables, seed=3)
    expected = one_by_one(model, loss_of(model), noise, 2)
    found = evaluated(model, noise)(tf.constant(2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.std(expected) > 1e-3


def test_layers_call_as_keras_does():
    """But for the order of sums; an einsum whose columns are not last is left alone."""
    model = adapted()
    expected = model(IDS)
    with adapted_calls(model):
        found = model(IDS)
        assert sum("call" in vars(layer) for layer in model.layers) == 4
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    layer = keras.layers.EinsumDense("abc,cd->adb", (5, 3))
    turned = keras.Sequential([keras.Input((3, 4)), layer])
    layer.enable_lora(1)
    with adapted_calls(turned):
        assert "call" not in vars(layer)


@pytest.mark.parametrize("layerwise", [False, True], ids=["whole", "layerwise"])
def test_noise_is_of_adapters_and_no_member_copies_a_kernel(layerwise):
    model = adapted(wide=256)
    trainable = sum(math.prod(v.shape) for v in model.trainable_variables)
    noise = WeightNoise(model.trainable_variables)
    assert trainable < 0.3 * model.count_params()
    settings = {"members_per_chunk": MEMBERS, "layerwise": layerwise}
    graph = evaluated(model, noise, IDS[:2], **settings).get_concrete_function(
        tf.TensorSpec((), tf.int32)
    ).graph  # fmt: skip
    # The two largest kernels have 2,560 and 3,072 weights; adapters and activations
    # of eight members are smaller than eight of either.
    kernels = [w.shape for w in model.weights if not w.trainable]
    largest = max(np.prod(shape) for shape in kernels)
    assert largest_tensor(graph) < MEMBERS * largest


def small():
    keras.utils.set_random_seed(0)
    table, dense = keras.layers.Embedding(10, 4), keras.layers.Dense(4)
    ids = keras.Input((3,), dtype="int32")
    model = keras.Model(ids, dense(keras.layers.Flatten()(table(ids))))
    for layer in (table, dense):
        layer.enable_lora(1, b_initializer="ones")
    return keras_es.es_model(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: OpenES(None, 4, sigma=0.01),
        lambda: OpenES(None, 4, sigma=0.01, noise=Layerwise(LowRank(1))),
        lambda: GeneticAlgorithm(population_size=20, parents=10),
    ],
    ids=["whole", "layerwise", "genetic"],
)
def test_fit_moves_adapters_and_nothing_else(make):
    model, optimizer = small(), make()
    frozen = [w for w in model.weights if not w.trainable]
    adapters = [w for w in model.weights if w.trainable]
    before = [w.numpy() for w in frozen], [w.numpy() for w in adapters]
    model.compile(optimizer, "mse", jit_compile=False)
    history = model.fit(IDS, np.full((4, 4), 0.5), epochs=3, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert [id(v) for v in optimizer.search.variables] == [id(v) for v in adapters]
    # State of the optimizer is of the adapters too, as are two moments of Adam.
    of_weights = {v.shape for v in optimizer.variables if len(v.shape) > 1}
    assert not of_weights & {w.shape for w in frozen}
    for w, old in zip(frozen, before[0]):
        np.testing.assert_array_equal(w, old)
    for w, old in zip(adapters, before[1]):
        assert np.abs(w - old).max() > 0
    assert not any("call" in vars(layer) for layer in model.layers)
