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


def _at_once(function, *given):
    return function(*given)


def draw(logits, uniform, apart=_at_once):
    """Return values with p = softmax(logits), int32, and what is proportional to p.

    The value is the number of those whose cumulative probability is at most `uniform`.
    In a square of 16 x 16 the row is found first, by the sums of rows, and then the
    value in it. These are small sums over masks, which XLA puts into few loops.

    Args:
        logits: [256] or [256, voices].
        uniform: [] or [voices], in [0, 1).
        apart: What calls each of the two halves of it; see `products.Apart`.

    Returns:
        (values [] or [voices], weights like `logits`).
    """
    weights, of_rows, sums = apart(_weigh, logits)
    return apart(_choose, weights, of_rows, sums, uniform), weights


def _weigh(logits):
    """Return what is proportional to p, its sums over rows, and the sums of these."""
    weights = tf.exp(logits - tf.reduce_max(logits, axis=0))
    of_rows = tf.reduce_sum(_square(weights), axis=1)
    return weights, of_rows, _cumulative(of_rows)


def _choose(weights, of_rows, sums, uniform):
    """Return the value."""
    square, reached = _square(weights), uniform * sums[-1]
    row, before = _first_above(of_rows, sums, reached)
    own = tf.reduce_sum(tf.where(_index(square) == row, square, 0.0), axis=0)
    column, _ = _first_above(own, _cumulative(own), reached - before)
    return SIDE * row + column


def _square(values):
    return tf.reshape(values, [SIDE, SIDE, *values.shape[1:]])


def _cumulative(parts):
    """Return the sums of the first 1, 2, ... parts, along the first axis."""
    triangle = np.tril(np.ones((SIDE, SIDE), "float32"))
    triangle = triangle.reshape(SIDE, SIDE, *[1] * (parts.shape.rank - 1))
    return tf.reduce_sum(triangle * parts[None], axis=1)


def _first_above(parts, sums, reached):
    """Return the first part above 0 whose sum is above `reached`, and the sum before.

    Where none is, for sums are rounded, it is the last part above 0: what is drawn has
    a probability.
    """
    index, some = _index(parts), parts > 0.0
    first = tf.reduce_min(tf.where(some & (sums > reached), index, SIDE), axis=0)
    last = tf.reduce_max(tf.where(some, index, 0), axis=0)
    first = tf.minimum(first, last)
    return first, tf.reduce_sum(tf.where(index < first, parts, 0.0), axis=0)


def _index(values):
    """Return the index along the first axis, to be broadcast against values."""
    return tf.reshape(tf.range(SIDE), [SIDE, *[1] * (values.shape.rank - 1)])


def _words(number):
    """Return the lower and the upper 32 bits."""
    number = tf.cast(number, tf.uint64)
    high = tf.bitwise.right_shift(number, tf.constant(32, tf.uint64))
    return tf.cast(number, tf.uint32), tf.cast(high, tf.uint32)


def _word(value):
    return tf.constant(value, tf.uint32)
