"""All masked layers and patterns, small enough to try each property on each."""

import itertools

import keras
import numpy as np
import pytest

import keras_es
from keras_es import layers
from keras_es.layers.embedding import REVERSIBLE, MaskedTable
from keras_es.patterns import Block, Channel, NByM, Rows, Unstructured
from tests.marks import slow_unless

SHAPES = {
    layers.MaskedDense: ((8,), (2, 16)),
    layers.MaskedEinsumDense: (("abc,cde->abde", (None, 4, 2)), (2, 3, 16)),
    layers.MaskedConv1D: ((8, 3), (2, 6, 8)),
    layers.MaskedConv2D: ((8, 2), (2, 5, 5, 4)),
    layers.MaskedDepthwiseConv2D: (((2, 4), 1, "valid", 2), (2, 5, 5, 4)),
    layers.MaskedEmbedding: ((8, 8), (2, 5)),
    **{cls: ((8, 8), (2, 5)) for cls in REVERSIBLE},
    layers.MaskedSimpleRNN: ((8,), (2, 4, 16)),
    layers.MaskedGRU: ((8,), (2, 4, 16)),
    layers.MaskedLSTM: ((8,), (2, 4, 16)),
}
"""Masked class -> (positional arguments of the plain layer, shape of the input)."""

PATTERNS = [Unstructured(), Block(4, 2), NByM(1, 4), Channel(), Rows()]
SPARSITY = 0.75

every_layer = pytest.mark.parametrize(
    "cls", list(layers.TWINS.values()), ids=lambda c: c.__name__
)

_LAYERS = list(layers.TWINS.values())
_ALL = list(itertools.product(_LAYERS, PATTERNS))
# All patterns of the plainest layer, and two of each other one, in turns.
_KEPT = [(layers.MaskedDense, pattern) for pattern in PATTERNS]
_KEPT += [
    (cls, PATTERNS[(i + shift) % len(PATTERNS)])
    for i, cls in enumerate(_LAYERS)
    for shift in (0, 2)
]

every_layer_and_pattern = pytest.mark.parametrize(
    "cls, pattern",
    slow_unless(_KEPT, _ALL),
    ids=[f"{pattern}-{cls.__name__}" for cls, pattern in _ALL],
)


def make(cls, pattern=None, **kwargs):
    """Make a masked layer, not built."""
    kwargs = {"sparsity": SPARSITY, "mask_seed": 3, "name": "masked", **kwargs}
    return cls(*SHAPES[cls][0], pattern=pattern, **kwargs)


def make_plain(cls, **kwargs):
    """Make the plain layer of the same arguments, not built."""
    return cls.plain_class()(*SHAPES[cls][0], **kwargs)


def inputs(cls, seed=0):
    """Return an input batch."""
    shape = SHAPES[cls][1]
    if issubclass(cls, MaskedTable):
        return np.random.default_rng(seed).integers(0, 8, shape)
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def built(cls, pattern=None, **kwargs):
    """Make a masked layer with weights that are not zero anywhere."""
    layer = make(cls, pattern, **kwargs)
    layer(inputs(cls))
    rng = np.random.default_rng(1)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return layer


def plain_of(layer):
    """Return the plain layer whose kernels are kernel * mask, by NumPy."""
    cls = type(layer)
    plain = make_plain(cls, dtype=layer.dtype_policy)
    plain(inputs(cls))
    effective = {
        m.attribute: m.kernel.numpy() * m.kernel_mask.numpy()
        for m in keras_es.masked_weights(layer)
    }
    for new, old in zip(plain.weights, layer.trainable_variables):
        new.assign(effective.get(old.name, old.numpy()))
    return plain


def one_layer_model(layer):
    """Return a functional model of this layer alone."""
    shape = SHAPES[type(layer)][1][1:]
    x = keras.Input(shape, dtype=inputs(type(layer)).dtype.name)
    return keras.Model(x, layer(x))
