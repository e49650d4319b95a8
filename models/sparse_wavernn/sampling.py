"""Random numbers of a sample, and a value of 8 bits drawn by them.

The number that decides about a sample is a function of (seed, utterance, sample) and of
nothing else: Philox 2x32-10 of the sample's index, keyed by the other two (see
`keras_es.ops.philox`). What was drawn before, in how many calls and beside which other
utterances, makes no difference.
"""

import numpy as np
import tensorflow as tf

from keras_es.ops import philox

STREAM = 0x57415645
"""Tells these numbers from others of the same seed."""

SIDE = 16
"""256 values in a square of so many rows."""


def position(seed, utterances):
    """Return what tells the numbers of utterances from those of others.

    Args:
        seed: int64 scalar.
        utterances: int64 [voices].

    Returns:
        Two uint32 tensors [voices].
    """
    low, high = _words(seed)
    first, second = _words(utterances)
    xor = tf.bitwise.bitwise_xor
    a, b = philox.philox2x32(first, xor(second, _word(STREAM)), low)
    return philox.philox2x32(xor(a, high), b, low)


def uniforms(first, count, position):
    """Return the numbers of some samples in [0, 1), float32 [count, 2, voices].

    Args:
        first: int64 scalar, index of the first sample.
        count: Static number of samples.
        position: What `position` returned.
    """
    index = tf.cast(first, tf.uint32) + tf.cast(tf.range(count), tf.uint32)
    second, key = (word[None] for word in position)
    words = philox.philox2x32(index[:, None], second, key)
    return philox.fraction(tf.stack(words, axis=1))


def draw(logits, uniform):
    """Return values with p = softmax(logits), int32, and what is proportional to p.

    The value is the number of those whose cumulative probability is at most `uniform`.
    The sums are two products with triangles: one within rows of 16, one over rows.

    Args:
        logits: [256] or [256, voices].
        uniform: [] or [voices], in [0, 1).

    Returns:
        (values [] or [voices], weights like `logits`).
    """
    weights = tf.exp(logits - tf.reduce_max(logits, axis=0))
    square = tf.reshape(weights, [SIDE, SIDE, *logits.shape[1:]])
    triangle = np.tril(np.ones((SIDE, SIDE), "float32"))
    within = tf.einsum("ij,gj...->gi...", triangle, square)
    others = triangle - np.eye(SIDE, dtype="float32")
    before = tf.einsum("gj,j...->g...", others, within[:, -1])
    total = before[-1] + within[-1, -1]
    sums = tf.reshape(within + before[:, None], logits.shape)
    # Below the total even when rounded: what is drawn has a probability.
    reached = tf.minimum(uniform, 1.0 - 2.0**-23) * total
    return tf.reduce_sum(tf.cast(sums <= reached, tf.int32), axis=0), weights


def _words(number):
    """Return the lower and the upper 32 bits."""
    number = tf.cast(number, tf.uint64)
    high = tf.bitwise.right_shift(number, tf.constant(32, tf.uint64))
    return tf.cast(number, tf.uint32), tf.cast(high, tf.uint32)


def _word(value):
    return tf.constant(value, tf.uint32)
