"""Layers build, run and train alike: eagerly, symbolically, in graphs and by XLA."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from tests.conformance.masked_layers import (
    built,
    every_layer,
    every_layer_and_pattern,
    inputs,
    make,
    one_layer_model,
    plain_of,
)


@every_layer_and_pattern
def test_symbolic_build_makes_the_same_masks(cls, pattern):
    symbolic, eager = make(cls, pattern), make(cls, pattern)
    one_layer_model(symbolic)
    eager(inputs(cls))
    a, b = (keras_es.masked_weights(layer) for layer in (symbolic, eager))
    for new, old in zip(a, b, strict=True):
        np.testing.assert_array_equal(new.mask_scores.numpy(), old.mask_scores.numpy())
        np.testing.assert_array_equal(new.kernel_mask.numpy(), old.kernel_mask.numpy())


@every_layer
def test_build_within_a_trace_makes_the_same_masks(cls):
    traced, eager = make(cls), make(cls)
    tf.function(lambda x: traced(x), autograph=False)(inputs(cls))
    eager(inputs(cls))
    a, b = (keras_es.masked_weights(layer) for layer in (traced, eager))
    for new, old in zip(a, b, strict=True):
        np.testing.assert_array_equal(new.kernel_mask.numpy(), old.kernel_mask.numpy())


@every_layer
def test_masks_exist_once_and_are_not_trained(cls):
    layer = built(cls)
    count = len(layer.weights)
    layer(inputs(cls))
    assert len(layer.weights) == count
    masked = keras_es.masked_weights(layer)
    hidden = {id(v) for m in masked for v in (m.kernel_mask, m.mask_scores)}
    assert hidden <= {id(v) for v in layer.non_trainable_variables}
    assert len(layer.weights) == len({v.path for v in layer.weights})


@every_layer
@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_graph_and_xla_compute_the_same(cls, jit):
    layer, x = built(cls), inputs(cls)
    run = tf.function(lambda x: layer(x), autograph=False, jit_compile=jit)
    np.testing.assert_allclose(run(x), layer(x), rtol=1e-5, atol=1e-5)


@every_layer
def test_plain_optimizers_train_kept_weights_only(cls):
    layer, x = built(cls), inputs(cls)
    model = one_layer_model(layer)
    model.compile("sgd", "mse", jit_compile=False)
    masked = keras_es.masked_weights(layer)
    before = [m.kernel.numpy() for m in masked]
    model.fit(x, np.zeros(layer(x).shape, "float32"), verbose=0)
    for m, old in zip(masked, before):
        mask = m.kernel_mask.numpy()
        np.testing.assert_array_equal(m.kernel.numpy()[~mask], old[~mask])
        assert (m.kernel.numpy()[mask] != old[mask]).any()


@every_layer
def test_kernel_before_build_says_so(cls):
    layer = make(cls)
    holder = getattr(layer, "cell", layer)
    with pytest.raises(AttributeError, match="build the layer"):
        getattr(holder, holder.masked_attributes[0])


@every_layer
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_low_precision_equals_the_plain_layers(cls, dtype):
    if dtype == "bfloat16" and issubclass(cls, keras.layers.RNN):
        pytest.skip("TensorFlow has no orthogonal initializer in bfloat16")
    layer, x = built(cls, dtype=dtype), inputs(cls)
    expected = plain_of(layer)(x)
    found = layer(x)
    assert keras.backend.standardize_dtype(found.dtype) == layer.compute_dtype
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(found), keras.ops.convert_to_numpy(expected)
    )
    for masked in keras_es.masked_weights(layer):
        assert masked.mask_scores.dtype == "float32"
        assert masked.kernel_mask.dtype == "bool"
