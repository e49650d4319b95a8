"""Quantized models: zeros stay zero, and no model is quantized by half."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es.layers import tree

# Keras says so of input layers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not have"),
    pytest.mark.filterwarnings("ignore:__array__"),
]


def kernel_of(layer):
    """Return what a layer without bias multiplies by, as far as its outputs tell."""
    return np.array(layer(np.eye(32, dtype="float32"), training=False))


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_zeros_of_a_stripped_model_stay_zero(mode):
    plain = keras.Sequential(
        [
            keras.Input((32,)),
            keras.layers.Dense(32, use_bias=False),
            keras.layers.EinsumDense("ab,bc->ac", 16),
        ]
    )
    sparse = keras_es.sparsify(plain, 0.8)
    masks = [np.array(m.deployed_mask()) for m in tree.masked_weights(sparse)]
    stripped = keras_es.strip_masks(sparse)
    before = [kernel_of(layer) for layer in stripped.layers]
    stripped.quantize(mode)
    assert [layer.quantization_mode for layer in stripped.layers] == [mode, mode]
    for layer, mask, kernel in zip(stripped.layers, masks, before, strict=True):
        after = kernel_of(layer)
        np.testing.assert_array_equal(after[~mask], 0.0)
        # int4 rounds some small weights to zero; none of the zeros comes back.
        assert 0 < np.count_nonzero(after) <= mask.sum()
        bits = {"int8": 7, "int4": 3, "float8": 3}[mode]
        error = np.abs(after - kernel).max()
        assert error <= 2.0 ** -(bits - 1) * np.abs(kernel).max()
    x = np.ones((3, 32), "float32")
    assert np.isfinite(stripped.predict(x, verbose=0)).all()


def test_a_quantized_model_is_saved_with_its_zeros(tmp_path):
    plain = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32)])
    stripped = keras_es.strip_masks(keras_es.sparsify(plain, 0.8))
    stripped.quantize("int8")
    kernel = np.array(stripped.layers[0]._kernel)
    assert kernel.dtype == np.int8
    assert np.count_nonzero(kernel) <= round(0.2 * 32 * 32)
    stripped.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.array(loaded.layers[0]._kernel), kernel)


def network(inner):
    """Return layers around a masked or block-sparse one."""
    first, last = (keras.layers.Dense(8, name=name) for name in ("first", "last"))
    return [keras.Input((8,)), first, inner, last]


def masked():
    return keras_es.layers.MaskedDense(8, sparsity=0.5, name="masked")


def blocks():
    return keras_es.layers.BlockSparseDense(
        8, sparsity=0.5, block_size=2, name="masked"
    )


def nested():
    inner = keras.Sequential([keras.Input((8,)), masked()], name="inner")
    return keras.Sequential(network(inner))


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.Sequential(network(masked())),
        lambda: keras.Sequential(network(blocks())),
        lambda: keras_es.ESSequential(network(masked())),
        nested,
    ],
)
def test_a_model_with_masked_layers_refuses_as_a_whole(make):
    model = make()
    before = model.get_weights()
    for wrong in ({}, {"filters": "masked"}, {"filters": ["a", "last", "mask"]}):
        with pytest.raises(ValueError, match=r"strip_masks.*masked layers \['.*masked"):
            model.quantize("int8", **wrong)
    after = model.get_weights()
    assert [w.dtype for w in after] == [w.dtype for w in before]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_user_may_leave_masked_layers_out():
    model = keras.Sequential(network(masked()))
    x = np.ones((1, 8), "float32")
    want = np.array(model.layers[1](x))
    model.quantize("int8", filters="first|last")
    dtypes = [layer._kernel.dtype for layer in model.layers]
    assert dtypes == ["int8", "float32", "int8"]
    np.testing.assert_array_equal(model.layers[1](x), want)
    with pytest.raises(ValueError, match="strip_masks.*layer='masked'"):
        model.layers[1].quantize("int8")


def test_models_without_masks_quantize_as_ever():
    model = keras.Sequential(network(keras.layers.Dense(8)))
    model.quantize("int8")
    assert {layer._kernel.dtype for layer in model.layers} == {"int8"}
    with pytest.raises(ValueError, match="int9"):
        model.quantize("int9")
