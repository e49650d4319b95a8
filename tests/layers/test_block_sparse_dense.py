"""`BlockSparseDense` is a Dense layer whose zeros are neither stored nor multiplied."""

import inspect
import json
import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.layers import BlockSparseDense
from tests.layers.block_sparse_layers import (
    built,
    dense,
    inputs,
    model_of,
    weights_of,
    with_and_without_xla,
)


def plain_of(layer):
    plain = keras.layers.Dense(layer.units, layer.activation, dtype=layer.dtype_policy)
    plain.build((None, layer.masked_weights[0].matrix_shape[0]))
    plain.kernel.assign(layer.masked_weights[0].effective_value())
    plain.bias.assign(layer.bias)
    return plain


def outputs_and_gradients(layer, x, jit):
    @tf.function(jit_compile=jit, autograph=False)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y * tf.cos(y))
        return y, *tape.gradient(loss, [x, layer.kernel.value, layer.bias.value])

    return [v.numpy() for v in run(tf.constant(x))]


@with_and_without_xla
@pytest.mark.parametrize("lead", [(5,), (1,), (2, 3)], ids=str)
def test_equals_the_dense_layer(lead, jit):
    layer = built(dense(activation="tanh"))
    (weight,) = weights_of(layer)
    x = np.random.default_rng(2).normal(size=(*lead, 40)).astype("float32")
    y, dx, d_blocks, d_bias = outputs_and_gradients(layer, x, jit)
    expected = outputs_and_gradients(plain_of(layer), x, jit)
    for found, value in zip((y, dx, d_bias), (expected[0], expected[1], expected[3])):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)
    d_dense = expected[2].reshape(10, 4, 6, 8).transpose(2, 0, 1, 3)
    index = weight.block_index.numpy()[:, :, None, None]
    d_expected = np.take_along_axis(d_dense, index, axis=1)
    np.testing.assert_allclose(d_blocks, d_expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sparsity, k", [(0.0, 10), (0.7, 3), (0.74, 3), (0.99, 1)])
def test_counts_are_exact(sparsity, k):
    layer = built(dense(sparsity=sparsity))
    (weight,) = weights_of(layer)
    assert (weight.units, weight.unit_count, weight.size) == (60, 6 * k, 40 * 48)
    assert weight.nnz == 6 * k * 32 == np.count_nonzero(weight.effective_value())
    assert weight.shape == weight.matrix_shape == (40, 48)
    assert layer.kernel.shape == (6, k, 4, 8)
    assert weight.sparsity == sparsity and not weight.stores_inactive
    np.testing.assert_array_equal(weight.stored_units().numpy().sum(axis=0), [k] * 6)


def test_the_first_blocks_are_those_of_the_best_scores():
    layer = built(dense())
    (weight,) = weights_of(layer)
    units = weight.decode(weight.mask_scores.value)
    np.testing.assert_array_equal(weight.stored_units(), units)
    same, other = built(dense()), built(dense(mask_seed=4))
    np.testing.assert_array_equal(weights_of(same)[0].block_index, weight.block_index)
    index = weights_of(other)[0].block_index.numpy()
    assert (index != weight.block_index.numpy()).any()


@pytest.mark.parametrize(
    "name", ["glorot_uniform", "glorot_normal", "he_normal", "lecun_uniform"]
)
def test_initializers_see_the_connections_that_exist(name):
    big = BlockSparseDense(
        2048, sparsity=0.9, block_size=32, kernel_initializer=name, mask_seed=0
    )
    big.build((None, 1024))
    density = big.masked_weights[0].nnz / (1024 * 2048)
    plain = keras.initializers.get(name)((1024, 2048))
    expected = np.std(plain) / math.sqrt(density)
    assert np.std(big.kernel) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("inputs, units", [(64, 256), (256, 64)])
def test_orthogonal_keeps_the_scale_of_the_dense_layer(inputs, units):
    args = {"kernel_initializer": "orthogonal", "use_bias": False}
    sparse = BlockSparseDense(units, sparsity=0.75, block_size=8, **args)
    plain = keras.layers.Dense(units, **args)
    x = np.random.default_rng(0).normal(size=(500, inputs)).astype("float32")
    assert np.std(sparse(x)) == pytest.approx(np.std(plain(x)), rel=0.1)


def test_signature_is_that_of_dense():
    plain = list(inspect.signature(keras.layers.Dense.__init__).parameters)[1:-1]
    found = list(inspect.signature(BlockSparseDense).parameters)
    assert found == [*plain, "sparsity", "block_size", "mask_seed", "kwargs"]


def test_one_number_is_a_square_block():
    assert dense(block_size=8).block_sizes == {"kernel": (8, 8)}


def test_a_constraint_sees_whole_columns():
    constraint = keras.constraints.MaxNorm(0.5, axis=0)
    layer = built(dense(kernel_constraint=constraint))
    (weight,) = weights_of(layer)
    before = weight.effective_value()
    layer.kernel.assign(layer.kernel.constraint(layer.kernel))
    found = weight.effective_value()
    np.testing.assert_allclose(found, constraint(before), rtol=1e-5, atol=1e-7)


def test_a_regularizer_costs_what_it_does_in_the_dense_layer():
    layer = built(dense(kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2)))
    (weight,) = weights_of(layer)
    expected = keras.regularizers.L1L2(0.1, 0.2)(weight.effective_value())
    np.testing.assert_allclose(layer.losses[0], expected, rtol=1e-5)


@with_and_without_xla
@pytest.mark.parametrize("optimizer", ["adam", "static"])
def test_trains_through_fit(optimizer, jit):
    if optimizer == "static":
        optimizer = keras_es.optimizers.Static(keras.optimizers.Adam(0.01))
    else:
        optimizer = keras.optimizers.Adam(0.01)
    layer = dense(activation="relu")
    model, x = model_of(layer)
    model = keras_es.ESSequential(model.layers)
    model.compile(optimizer, "mse", jit_compile=jit)
    (weight,) = weights_of(layer)
    index = weight.block_index.numpy()
    y = np.random.default_rng(5).normal(size=(5, 2))
    losses = model.fit(x, y, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    np.testing.assert_array_equal(weight.block_index, index)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    layer = built(dense(dtype=policy))
    x = inputs(layer)
    y = layer(x)
    assert str(y.dtype.name) == policy.removeprefix("mixed_")
    assert layer.kernel.dtype == "float32"
    assert weights_of(layer)[0].mask_scores.dtype == "float32"
    expected = plain_of(layer)(x)
    np.testing.assert_allclose(
        tf.cast(y, tf.float32), tf.cast(expected, tf.float32), rtol=0.05, atol=0.05
    )
    model, x = model_of(dense(dtype=policy))
    model.compile("adam", "mse")
    assert np.isfinite(model.fit(x, np.ones((5, 2)), verbose=0).history["loss"]).all()


def test_config_round_trip():
    layer = dense(activation="relu", name="mine")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is BlockSparseDense
    assert again.get_config() == layer.get_config()
    built(layer), built(again)
    np.testing.assert_array_equal(again(inputs(layer)), layer(inputs(layer)))


def moved(layer):
    """Give a built layer other blocks than its first scores do."""
    for weight in weights_of(built(layer)):
        scores = np.random.default_rng(9).normal(size=weight.mask_scores.shape)
        scores = tf.constant(scores, tf.float32)
        for variable, value in weight.deploy(scores, weight.decode(scores))[0]:
            variable.assign(value)
    return layer


def test_keras_files_keep_blocks_index_and_scores(tmp_path):
    model, x = model_of(moved(dense()))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [v.name for v in again.weights] == [v.name for v in model.weights]
    for new, old in zip(again.weights, model.weights):
        np.testing.assert_array_equal(new, old)
    np.testing.assert_array_equal(again(x), model(x))


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Some Kerases guess.
def test_a_file_of_the_plain_layer_is_refused(tmp_path):
    x = keras.Input((40,))
    plain = keras.Model(x, keras.layers.Dense(48, name="same")(x))
    plain.save_weights(tmp_path / "model.weights.h5")
    model = keras.Model(x, dense(name="same")(x))
    with pytest.raises(ValueError, match="'same'.*plain layer does not fit.*Received"):
        model.load_weights(tmp_path / "model.weights.h5")


def test_checkpoints_hold_blocks_index_and_scores(tmp_path):
    model, _ = model_of(moved(dense()))
    path = tf.train.Checkpoint(model).write(str(tmp_path / "checkpoint"))
    stored = {name.split("/.ATT")[0] for name, _ in tf.train.list_variables(path)}
    for name in ("mask_scores", "block_index", "kernel"):
        assert any(key.endswith(name) for key in stored), name


SERVE = """
import sys
sys.modules["keras_es"] = sys.modules["keras"] = None
import numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1] + "/saved_model")
x, y = np.load(sys.argv[1] + "/x.npy"), np.load(sys.argv[1] + "/y.npy")
np.testing.assert_allclose(loaded.serve(x), y, rtol=1e-5, atol=1e-6)
np.testing.assert_allclose(loaded.serve(x[:1]), y[:1], rtol=1e-5, atol=1e-6)
largest = max(v.shape.num_elements() for v in loaded.variables)
assert largest == int(sys.argv[2]), largest
"""


def serve_elsewhere(model, x, largest, folder):
    model.export(str(folder / "saved_model"), verbose=False)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", model(x))
    command = [sys.executable, "-c", SERVE, str(folder), str(largest)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_saved_models_are_block_sparse_and_need_only_tensorflow(tmp_path):
    layer = moved(dense())
    model, x = model_of(layer)
    serve_elsewhere(model, x, math.prod(layer.kernel.shape), tmp_path)


def test_strip_masks_gives_the_dense_layer(tmp_path):
    model, x = model_of(moved(dense(activation="relu", use_bias=True)))
    plain = keras_es.strip_masks(model)
    assert type(plain.layers[0]) is keras.layers.Dense
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-5, atol=1e-6)
    assert [v.name for v in plain.layers[0].weights] == ["kernel", "bias"]
    assert "keras_es" not in json.dumps(keras.saving.serialize_keras_object(plain))
    plain.save(tmp_path / "plain.keras")
    again = keras.saving.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(again(x), plain(x))
    plain.layers[0].enable_lora(2)
    plain.compile("sgd", "mse")
    plain.fit(x, np.ones((5, 2)), verbose=0)
    assert type(model.layers[0]) is BlockSparseDense


def test_report_counts_the_dense_size():
    model, _ = model_of(moved(dense(name="mine")))
    report = keras_es.sparsity_report(model)
    assert report.rows == [
        {
            "layer": "mine",
            "weight": "kernel",
            "shape": (40, 48),
            "pattern": "Block(rows=4, cols=8)",
            "size": 1920,
            "nnz": 576,
            "sparsity": 0.7,
        }
    ]
    plain = keras_es.strip_masks(model)
    assert report.parameters == plain.count_params()
    assert report.nonzero == report.parameters - 1920 + 576


def test_sparsify_leaves_block_sparse_layers_alone():
    model, x = model_of(moved(dense()))
    for initial_mask in ("random", "magnitude"):
        sparse = keras_es.sparsify(model, 0.5, initial_mask=initial_mask)
        assert type(sparse.layers[0]) is BlockSparseDense
        assert len(keras_es.masked_weights(sparse)) == 2
        for new, old in zip(sparse.layers[0].weights, model.layers[0].weights):
            np.testing.assert_array_equal(new, old)
