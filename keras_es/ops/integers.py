"""Evolution on a grid of integers: rounded noise, and rounding whose error is kept."""

import math

import tensorflow as tf

from keras_es.ops import noise, philox
from keras_es.ops.perturbation import largest_divisor

LIMIT = 127
"""Weights of eight bits are from -127 to 127."""

NUMBERS_AT_ONCE = 2**18
"""Numbers of noise that are drawn at once: what a core's cache holds."""


def rounded_noise(seed, stream, shape, generation, pairs, sigma):
    """Return floor(sigma eps + v), eps normal and v uniform: sigma eps on average.

    Args:
        seed: Integer.
        stream: String, what the noise is for.
        shape: Static shape of the weight.
        generation: Integer scalar.
        pairs: [pairs] integers.
        sigma: Scale in units of the grid.

    Returns:
        [pairs, *shape] float32 whole numbers.
    """
    axes = (-1, *(1,) * len(shape))
    normal, uniform = (
        tuple(
            tf.reshape(word, axes)
            for word in philox.stream(
                noise.stream_key(seed, f"{stream} {law}"), generation, pairs
            )
        )
        for law in ("normal", "uniform")
    )
    shape = (1, *shape)
    drawn = philox.normal(shape, normal) * sigma
    return tf.floor(drawn + philox.uniform(shape, uniform))


def search_gradient(draw, weights, shape, sigma):
    """Return 1/(n sigma) sum_k w_k delta_k over antithetic pairs.

    Noise is drawn again, some pairs at a time.

    Args:
        draw: Function of [pairs] integers to [pairs, *shape] rounded noise.
        weights: [pairs] tensor, u+ - u- of each pair.
        shape: Static shape of the weight.
        sigma: Scale of the noise.
    """
    pairs = weights.shape[0]
    limit = min(pairs, NUMBERS_AT_ONCE // max(1, math.prod(shape)))
    chunk = largest_divisor(pairs, limit)

    def body(i, total):
        first = i * chunk
        own = tf.reshape(weights[first : first + chunk], (-1, *(1,) * len(shape)))
        return i + 1, total + tf.reduce_sum(own * draw(first + tf.range(chunk)), axis=0)

    loop = (tf.constant(0), tf.zeros(shape))
    _, total = tf.while_loop(lambda i, _: i < pairs // chunk, body, loop)
    return total / (2.0 * pairs * sigma)


def with_feedback(update, residual, decay):
    """Return what of an update moves integers, and what is left for the next one.

        a = update + decay * residual,    move = round(a),    residual = a - move.

    Args:
        update: Tensor, in units of the grid.
        residual: What the last call left.
        decay: In [0, 1].

    Returns:
        (move, residual), |residual| <= 1/2. Of an update that is infinite nothing is
        left, and one that is NaN is none.
    """
    wanted = update + decay * residual
    wanted = tf.where(tf.math.is_nan(wanted), 0.0, wanted)
    move = tf.round(wanted)
    return move, tf.where(tf.math.is_finite(wanted), wanted - move, 0.0)


def moved(weight, move):
    """Return int8 weights after a move by whole numbers, within the grid."""
    sums = tf.cast(weight, tf.float32) + move
    return tf.cast(tf.clip_by_value(sums, -LIMIT, LIMIT), tf.int8)
