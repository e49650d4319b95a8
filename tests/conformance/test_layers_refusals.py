"""What masked layers refuse, and how they say it."""

import pytest

from keras_es.patterns import Block, NByM
from tests.conformance.masked_layers import built, every_layer, inputs, make


@every_layer
def test_lora_is_refused(cls):
    with pytest.raises(ValueError, match="strip_masks.*layer='masked'"):
        built(cls).enable_lora(2)


@every_layer
def test_quantization_is_refused(cls):
    with pytest.raises(ValueError, match="strip_masks.*layer='masked'"):
        built(cls).quantize("int8")


@every_layer
@pytest.mark.parametrize("sparsity", [-0.1, 1.0, "high", True, float("nan")])
def test_sparsity_out_of_range_is_refused(cls, sparsity):
    with pytest.raises(ValueError, match=r"number in \[0, 1\).*Received: sparsity="):
        make(cls, sparsity=sparsity)


@every_layer
def test_unknown_weights_are_refused(cls):
    with pytest.raises(ValueError, match="keys among.*Received: sparsity="):
        make(cls, sparsity={"kernels": 0.5})


@every_layer
def test_a_pattern_that_is_none_is_refused(cls):
    with pytest.raises(ValueError, match="keras_es.patterns.Pattern"):
        make(cls, pattern="block")


@every_layer
def test_a_pattern_that_does_not_divide_is_refused(cls):
    with pytest.raises(
        ValueError, match=r"masked.*'(kernel|embeddings)'.*Block\(rows=5, cols=1\)"
    ):
        make(cls, Block(5, 1))(inputs(cls))


@every_layer
def test_another_sparsity_than_n_by_m_is_refused(cls):
    with pytest.raises(ValueError, match="fixes the sparsity at 1 - n/m = 0.5"):
        make(cls, NByM(2, 4), sparsity=0.9)(inputs(cls))
