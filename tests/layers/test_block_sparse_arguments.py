"""What block-sparse layers refuse, in words, and what they take as plain layers do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es.layers import MaskedDense
from tests.layers.block_sparse_layers import built, dense, gru
from tests.layers.test_block_sparse_dense import plain_of


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: dense(block_size=(3, 8)), r"'mine'.*3 x 8.*\(40, 48\).*\(3, 8\)"),
        (lambda: dense(block_size=(4, 9)), r"'mine'.*4 x 9.*\(40, 48\).*\(4, 9\)"),
        (lambda: dense(block_size=0), "pair.*Received: block_size=0"),
        (lambda: dense(block_size=(4, 4, 4)), r"Received: block_size=\(4, 4, 4\)"),
        (lambda: dense(block_size=(4, 2.0)), "positive integer.*Received"),
        (lambda: dense(block_size=True), "Received: block_size=True"),
        (lambda: dense(sparsity=None), r"in \[0, 1\).*Received: sparsity=None"),
        (lambda: dense(sparsity=1.0), "Received: sparsity=1.0"),
        (lambda: dense(sparsity={"other": 0.5}), "keys among.*Received"),
        (lambda: dense(lora_rank=2), "LoRA needs a dense kernel.*'mine'"),
        (lambda: dense(dtype="int8_from_float32"), "Quantization.*'mine'"),
        (
            lambda: MaskedDense(8, sparsity=0.5, dtype="int8_from_float32"),
            "Quantization needs a dense kernel.*'mine'",
        ),
        (
            lambda: dense(kernel_constraint=keras.constraints.UnitNorm(axis=1)),
            "inputs, axis=0.*Received: UnitNorm with axis=1",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        layer = make()
        layer.name = "mine"
        layer(np.zeros((5, 40), "float32"))


@pytest.mark.parametrize("make, shape", [(dense, (None,)), (gru, (4, None))])
def test_inputs_of_unknown_size(make, shape):
    with pytest.raises(ValueError, match=r"known size, a multiple of 4.*inputs=None"):
        make()(keras.Input(shape))


def test_inputs_are_multiplied_as_by_a_plain_layer():
    layer = built(dense())
    plain, x = plain_of(layer), np.arange(80).reshape(2, 40) % 3
    for kind in ("int32", "bool", "uint8"):
        found, expected = layer(x.astype(kind)), plain(x.astype(kind))
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    x = x.astype("float32")
    found = layer(tf.sparse.from_dense(x))
    np.testing.assert_allclose(found, plain(x), rtol=1e-5, atol=1e-5)
    assert gru()(np.ones((2, 3, 24), "int32")).dtype == tf.float32


class Halved(keras.initializers.GlorotUniform):
    def __call__(self, shape, dtype=None):
        return 0.5 * super().__call__(shape, dtype)


def test_initializers_of_ones_own_are_asked():
    kernels = []
    for initializer in (Halved(seed=1), keras.initializers.GlorotUniform(seed=1)):
        layer = dense(kernel_initializer=initializer)
        layer.build((None, 40))
        kernels.append(layer.kernel.numpy())
    np.testing.assert_array_equal(kernels[0], 0.5 * kernels[1])


@pytest.mark.parametrize(
    "call", [lambda x: x.enable_lora(2), lambda x: x.quantize("int8")]
)
def test_what_needs_a_dense_kernel_is_refused(call):
    with pytest.raises(ValueError, match="strip_masks.*Received: layer='mine'"):
        call(built(dense(name="mine")))


def test_kernel_before_build():
    with pytest.raises(AttributeError, match="must build"):
        dense().kernel  # noqa: B018
