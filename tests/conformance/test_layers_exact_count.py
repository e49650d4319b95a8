"""Masks have exactly the wanted number of non-zeros, ties broken by index."""

import keras
import numpy as np
import tensorflow as tf

import keras_es
from keras_es.layers.masked_weight import refresh_mask
from tests.conformance.masked_layers import (
    SPARSITY,
    built,
    every_layer,
    every_layer_and_pattern,
)
from tests.reference import numpy_masks


def check(masked):
    mask = masked.kernel_mask.numpy()
    expected = numpy_masks.weight_mask(
        masked.pattern, masked.mask_scores.numpy(), masked.sparsity, masked.matrix_shape
    )
    np.testing.assert_array_equal(mask.reshape(masked.matrix_shape), expected)
    assert mask.sum() == masked.nnz
    assert mask.shape == masked.shape


@every_layer_and_pattern
def test_first_mask_is_the_decoded_first_scores(cls, pattern):
    weights = keras_es.masked_weights(built(cls, pattern))
    assert weights
    for masked in weights:
        check(masked)
        assert masked.nnz == round((1 - SPARSITY) * masked.size)
        assert masked.mask_scores.shape == pattern.units_shape(masked.matrix_shape)


@every_layer_and_pattern
def test_refreshed_masks_are_those_of_numpy_with_ties(cls, pattern):
    weights = keras_es.masked_weights(built(cls, pattern))
    for masked in weights:
        for seed in range(3):
            rng = np.random.default_rng(seed)
            shape = tuple(masked.mask_scores.shape)
            masked.mask_scores.assign(rng.integers(0, 2 + seed, shape))
            refresh_mask(masked)
            check(masked)


@every_layer
def test_decoding_is_the_same_in_a_graph(cls):
    for masked in keras_es.masked_weights(built(cls)):
        scores = tf.constant(
            np.random.default_rng(0).integers(0, 3, masked.mask_scores.shape),
            tf.float32,
        )
        decode = tf.function(masked.decode, autograph=False)
        np.testing.assert_array_equal(decode(scores), masked.decode(scores))


@every_layer
def test_scores_differ_by_seed_and_weight_only(cls):
    def scores(seed):
        layer = built(cls, mask_seed=seed)
        return [m.mask_scores.numpy() for m in keras_es.masked_weights(layer)]

    for a, b, c in zip(scores(1), scores(1), scores(2)):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    flat = [s.ravel()[:8].tolist() for s in scores(1)]
    assert len({tuple(s) for s in flat}) == len(flat)


@every_layer
def test_the_seed_comes_from_keras_unless_given(cls):
    def drawn():
        keras.utils.set_random_seed(5)
        layer = built(cls, mask_seed=None)
        return [m.mask_scores.numpy() for m in keras_es.masked_weights(layer)]

    for a, b in zip(drawn(), drawn()):
        np.testing.assert_array_equal(a, b)
