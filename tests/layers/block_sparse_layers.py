"""Block-sparse layers in small, and the plain layers they equal."""

import keras
import numpy as np
import pytest

from keras_es.layers import BlockSparseDense, BlockSparseGRU, tree

with_and_without_xla = pytest.mark.parametrize(
    "jit", [False, True], ids=["graph", "xla"]
)


def dense(**kwargs):
    """Return a layer of R = 10 by C = 6 blocks of 4 x 8, 3 in each column."""
    given = {"sparsity": 0.7, "block_size": (4, 8), "mask_seed": 3, **kwargs}
    return BlockSparseDense(48, **given)


def gru(**kwargs):
    """Return a GRU of 16 units on 24 features, blocks of 4 x 8."""
    given = {"sparsity": 0.5, "block_size": (4, 8), "mask_seed": 3, **kwargs}
    return BlockSparseGRU(16, **given)


def inputs(layer, batch=5):
    """Return an input batch for either."""
    shape = (batch, 40) if isinstance(layer, BlockSparseDense) else (batch, 4, 24)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def built(layer):
    """Build a layer and fill its weights, also those that begin at zero."""
    layer(inputs(layer))
    rng = np.random.default_rng(1)
    for variable in layer.trainable_variables:
        variable.assign(0.3 * rng.normal(size=variable.shape))
    return layer


def weights_of(layer):
    """Return the block-sparse weights of a layer."""
    return tree.masked_weights(layer)


def model_of(layer):
    """Return a sequential model of this layer and a small head."""
    x = inputs(layer)
    model = keras.Sequential([keras.Input(x.shape[1:]), layer, keras.layers.Dense(2)])
    return model, x
