"""A masked layer takes what the plain layer takes, and the arguments of masks."""

import inspect

import pytest

from keras_es import layers
from tests.conformance.masked_layers import SHAPES, every_layer, make

CELLS = [layers.MaskedSimpleRNNCell, layers.MaskedGRUCell, layers.MaskedLSTMCell]


def parameters(cls):
    return dict(inspect.signature(cls).parameters)


@pytest.mark.parametrize(
    "cls", [*layers.TWINS.values(), *CELLS], ids=lambda c: c.__name__
)
def test_signature_is_the_plain_one_and_masks(cls):
    masked, plain = parameters(cls), parameters(cls.plain_class())
    for name in ("sparsity", "pattern", "mask_seed"):
        argument = masked.pop(name)
        assert argument.kind is inspect.Parameter.KEYWORD_ONLY
        assert argument.default is None
    assert masked == plain


def test_every_exported_twin_is_tested():
    assert set(SHAPES) == set(layers.TWINS.values())


@every_layer
def test_twins_are_named_after_the_plain_layer_and_derive_from_it(cls):
    assert cls.__name__ == "Masked" + cls.plain_class().__name__
    assert isinstance(make(cls), cls.plain_class())


@every_layer
def test_unknown_arguments_are_refused(cls):
    with pytest.raises((TypeError, ValueError), match="sparseness"):
        make(cls, sparseness=0.5)
