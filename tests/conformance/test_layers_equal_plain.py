"""A masked layer with mask m equals the plain layer with kernel * m."""

import numpy as np
import tensorflow as tf

import keras_es
from tests.conformance.masked_layers import (
    built,
    every_layer,
    every_layer_and_pattern,
    inputs,
    plain_of,
)


@every_layer_and_pattern
def test_output_equals_the_plain_layers(cls, pattern):
    layer = built(cls, pattern)
    x = inputs(cls)
    np.testing.assert_array_equal(layer(x), plain_of(layer)(x))


@every_layer
def test_gradients_are_the_plain_layers_where_the_mask_is(cls):
    layer = built(cls)
    plain, x = plain_of(layer), inputs(cls)
    found = _gradients(layer, x)
    expected = _gradients(plain, x)
    masks = {m.attribute: m.kernel_mask.numpy() for m in keras_es.masked_weights(layer)}
    for variable, g, e in zip(layer.trainable_variables, found, expected):
        mask = masks.get(variable.name, np.ones(variable.shape, bool))
        np.testing.assert_allclose(g, e * mask, rtol=1e-5, atol=1e-6)


def _gradients(layer, x):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(layer(x)))
    gradients = tape.gradient(loss, [v.value for v in layer.trainable_variables])
    return [tf.convert_to_tensor(g) for g in gradients]  # some are of some rows


@every_layer
def test_masked_out_weights_that_are_nan_do_not_reach_the_output(cls):
    layer = built(cls)
    x = inputs(cls)
    before = layer(x)
    for masked in keras_es.masked_weights(layer):
        spoilt = np.where(masked.kernel_mask.numpy(), masked.kernel.numpy(), np.nan)
        masked.kernel.assign(spoilt)
    np.testing.assert_array_equal(layer(x), before)


@every_layer
def test_dense_by_default(cls):
    layer = built(cls, sparsity=None)
    assert all(m.nnz == m.size for m in keras_es.masked_weights(layer))
