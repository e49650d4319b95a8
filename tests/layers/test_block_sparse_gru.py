"""`BlockSparseGRU` is a GRU whose zeros are neither stored nor multiplied."""

import inspect
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.layers import BlockSparseGRU, BlockSparseGRUCell
from tests.layers.block_sparse_layers import (
    built,
    gru,
    inputs,
    model_of,
    weights_of,
    with_and_without_xla,
)
from tests.layers.test_block_sparse_dense import moved, serve_elsewhere
from tests.marks import slow


def plain_of(layer):
    config = layer.get_config()
    for name in ("sparsity", "block_size", "mask_seed"):
        del config[name]
    plain = keras.layers.GRU.from_config(config)
    plain.use_cudnn = False
    plain(inputs(layer))
    for weight in weights_of(layer):
        getattr(plain.cell, weight.attribute).assign(weight.effective_value())
    if layer.use_bias:
        plain.cell.bias.assign(layer.cell.bias)
    return plain


def outputs_and_gradients(layer, x, jit, training=False):
    bias = layer.cell.bias

    @tf.function(jit_compile=jit, autograph=False)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(y * tf.cos(y))
        kernels = [layer.cell.kernel.value, layer.cell.recurrent_kernel.value]
        biases = [] if bias is None else [bias.value]
        return y, *tape.gradient(loss, [x, *kernels, *biases])

    return [v.numpy() for v in run(tf.constant(x))]


def stored(weight, d_dense):
    """Return the stored blocks of a dense gradient."""
    rows, columns = weight.mask_scores.shape
    d_dense = d_dense.reshape(rows, 4, columns, 8).transpose(2, 0, 1, 3)
    index = weight.block_index.numpy()[:, :, None, None]
    return np.take_along_axis(d_dense, index, axis=1)


@with_and_without_xla
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reset_after": False},
        {"use_bias": False},
        {"reset_after": False, "use_bias": False, "return_sequences": True},
        {"return_sequences": True, "go_backwards": True},
        {"unroll": True},
    ],
    ids=str,
)
def test_equals_the_dense_layer(options, jit):
    layer = built(gru(**options))
    x = inputs(layer)
    found = outputs_and_gradients(layer, x, jit)
    expected = outputs_and_gradients(plain_of(layer), x, jit)
    kernel, recurrent = weights_of(layer)
    expected[2:4] = stored(kernel, expected[2]), stored(recurrent, expected[3])
    for value, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.4},
        {"dropout": 0.4, "reset_after": False},
        {"dropout": 0.4, "recurrent_dropout": 0.3},
        {"dropout": 0.4, "recurrent_dropout": 0.3, "reset_after": False},
        {"recurrent_dropout": 0.3, "use_bias": False},
        {"dropout": 0.4, "implementation": 1},
    ],
    ids=str,
)
def test_dropout_is_that_of_the_dense_layer(options):
    layer = built(gru(seed=7, **options))
    plain = plain_of(layer)
    plain.cell.implementation = layer.cell.implementation
    if "implementation" in options:
        plain.cell.dropout_mask_count = 3
    x = inputs(layer)
    plain.cell.seed_generator.state.assign(layer.cell.seed_generator.state)
    found, expected = layer(x, training=True), plain(x, training=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found - layer(x, training=False)).max() > 1e-3


def test_initial_state_states_and_cells_by_hand():
    layer = built(gru(return_state=True))
    plain, x = plain_of(layer), inputs(layer)
    state = np.random.default_rng(3).normal(size=(5, 16)).astype("float32")
    for found, expected in zip(
        layer(x, initial_state=state), plain(x, initial_state=state)
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    by_hand = keras.layers.RNN(layer.cell)
    np.testing.assert_allclose(by_hand(x), layer(x)[0], rtol=1e-5, atol=1e-6)


def test_counts_are_exact_and_weights_differ():
    layer = built(gru(sparsity={"kernel": 0.5, "recurrent_kernel": 0.75}))
    kernel, recurrent = weights_of(layer)
    assert (kernel.shape, recurrent.shape) == ((24, 48), (16, 48))
    assert (kernel.unit_count, recurrent.unit_count) == (3 * 6, 1 * 6)
    for weight in (kernel, recurrent):
        assert weight.nnz == np.count_nonzero(weight.effective_value())
    layer = built(gru(block_size={"kernel": (4, 8), "recurrent_kernel": 2}))
    assert layer.cell.kernel.shape[2:] == (4, 8)
    assert layer.cell.recurrent_kernel.shape[2:] == (2, 2)


def test_cudnn_is_off_and_xla_allowed():
    layer = gru(use_cudnn="auto")
    assert layer.use_cudnn is False and layer.supports_jit


def test_signature_is_that_of_gru():
    plain = list(inspect.signature(keras.layers.GRU.__init__).parameters)[1:-1]
    found = list(inspect.signature(BlockSparseGRU).parameters)
    assert found == [*plain, "sparsity", "block_size", "mask_seed", "kwargs"]
    layer = BlockSparseGRU(
        16, "relu", "sigmoid", False, sparsity=0.5, block_size=8, name="mine",
        dtype="mixed_bfloat16",
    )  # fmt: skip
    assert (layer.name, layer.cell.use_bias) == ("mine", False)
    assert layer.activation is keras.activations.relu
    assert layer.cell.compute_dtype == layer.compute_dtype == "bfloat16"
    with pytest.raises(ValueError, match="unknown"):
        gru(unknown=1)


def test_config_round_trip():
    layer = gru(reset_after=False, dropout=0.1, return_sequences=True, name="mine")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is BlockSparseGRU and type(again.cell) is BlockSparseGRUCell
    assert again.get_config() == layer.get_config()
    built(layer), built(again)
    np.testing.assert_array_equal(again(inputs(layer)), layer(inputs(layer)))


@pytest.mark.parametrize(
    "wrap, jit",
    [
        (lambda x: x, True),
        (keras.layers.Bidirectional, False),
        slow(lambda x: x, False),
        slow(keras.layers.Bidirectional, True),
    ],
)
def test_trains_saves_and_loads(wrap, jit, tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 7, 24)).astype("float32")
    head = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((7, 24)), wrap(gru()), head])
    model = keras_es.ESSequential(model.layers)
    optimizer = keras_es.optimizers.Static(keras.optimizers.Adam(0.02))
    model.compile(optimizer, "mse", jit_compile=jit)
    y = np.random.default_rng(5).normal(size=(5, 2))
    losses = model.fit(x, y, epochs=25, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(x), model(x), rtol=1e-6)


def test_mixed_precision():
    model, x = model_of(gru(dtype="mixed_float16"))
    model.compile("adam", "mse", jit_compile=False)
    assert np.isfinite(model.fit(x, np.ones((5, 2)), verbose=0).history["loss"]).all()


def test_saved_models_are_block_sparse_and_need_only_tensorflow(tmp_path):
    layer = moved(gru())
    model, x = model_of(layer)
    serve_elsewhere(model, x, math.prod(layer.cell.kernel.shape), tmp_path)


@pytest.mark.parametrize("reset_after", [True, False])
def test_strip_masks_gives_the_dense_layer(reset_after, tmp_path):
    model, x = model_of(moved(gru(reset_after=reset_after)))
    plain = keras_es.strip_masks(model)
    assert type(plain.layers[0]) is keras.layers.GRU
    assert type(plain.layers[0].cell) is keras.layers.GRUCell
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-5, atol=1e-6)
    names = [v.name for v in plain.layers[0].weights]
    assert names == ["kernel", "recurrent_kernel", "bias"]
    assert "keras_es" not in json.dumps(keras.saving.serialize_keras_object(plain))
    plain.save(tmp_path / "plain.keras")
    again = keras.saving.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(again(x), plain(x))


def test_cells_by_hand_are_stripped():
    cells = [BlockSparseGRUCell(16, sparsity=0.5, block_size=8) for _ in range(2)]
    model = keras.Sequential([keras.Input((7, 24)), keras.layers.RNN(cells)])
    x = np.random.default_rng(0).normal(size=(2, 7, 24)).astype("float32")
    plain = keras_es.strip_masks(model)
    assert "keras_es" not in json.dumps(keras.saving.serialize_keras_object(plain))
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-5, atol=1e-6)


def test_report_names_the_layer():
    model, _ = model_of(moved(gru(name="mine")))
    report = keras_es.sparsity_report(model)
    assert [(r["layer"], r["weight"], r["nnz"]) for r in report.rows] == [
        ("mine", "kernel", 576),
        ("mine", "recurrent_kernel", 384),
    ]
    assert report.parameters == keras_es.strip_masks(model).count_params()


def test_gates_must_be_whole_columns_of_blocks():
    with pytest.raises(
        ValueError,
        match=r"gru_cell.*4 x 12.*'kernel' of shape \(24, 48\).*3 gates.*Received",
    ):
        built(gru(block_size=(4, 12)))
