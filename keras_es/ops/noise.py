"""Stateless noise: a pure function of (seed, stream, generation, pair).

This file needs TensorFlow: `keras.random` does not let the algorithm be named, and
the default one is two orders of magnitude slower under XLA on CPU. Philox is given
its key and counter here: the public functions scramble a seed into them in one way
under XLA and in another without, and a member drawn inside a compiled function could
not be drawn again outside.
"""

import hashlib
import math

import tensorflow as tf

from keras_es import _compat
from keras_es.ops import philox

PHILOX = 1
"""The number of the algorithm in `tf.raw_ops`."""


def stream_key(seed, stream):
    """Mix a user's seed and the name of a noise stream into one 63-bit integer.

    Args:
        seed: Integer, the optimizer's seed.
        stream: String, what the noise is for (the path of a masked weight).

    Returns:
        Python integer in [0, 2**63).

    Example:

    >>> stream_key(0, "dense/kernel") == stream_key(0, "dense/kernel")
    True
    >>> stream_key(0, "dense/kernel") == stream_key(1, "dense/kernel")
    False
    """
    # A cryptographic digest, not hash(): Python salts hash(str) in each process.
    digest = hashlib.blake2b(f"{int(seed)}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def counter_seed(key, generation, pair):
    """Return the seed [2] of one draw: the stream's key and the position in it.

    Args:
        key: Python integer from `stream_key`.
        generation: Integer tensor or int, below 2**40.
        pair: Integer tensor or int, index of the antithetic pair, below 2**22.

    Returns:
        int64 tensor of shape [2].
    """
    position = tf.cast(generation, tf.int64) * 2**22 + tf.cast(pair, tf.int64)
    return tf.stack([tf.constant(key, tf.int64), position])


def _bits(shape, seed):
    """Return 32 random bits each, uint32 of the given shape."""
    key, position = tf.unstack(tf.bitcast(seed, tf.uint64))
    # The low word of the counter counts the numbers of one draw.
    counter = tf.stack([tf.zeros_like(position), position])
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=shape, key=key[None], counter=counter, alg=PHILOX, dtype=tf.uint32
    )


def uniform(shape, seed):
    """Draw uniform noise in [0, 1), float32 of the given static shape.

    The numbers are the same to the bit with XLA and without: multiples of 2**-24.
    """
    return _fraction(_bits(shape, seed))


def _fraction(bits):
    return tf.cast(tf.cast(tf.bitwise.right_shift(bits, 8), tf.int32), tf.float32) * (
        2.0**-24
    )


def normal(shape, seed):
    """Draw standard normal noise, float32 of the given static shape.

    Of two uniforms u in (0, 1], v in [0, 1), sqrt(-2 ln u) (cos 2 pi v, sin 2 pi v).

    References:
        Box, Muller 1958, A note on the generation of random normal deviates.
    """
    size = math.prod(shape)
    bits = _bits((2, (size + 1) // 2), seed)
    # One function for all weights; XLA would not fuse it with the bits.
    pairs = _normal_pairs(bits) if _compat.in_xla() else _normal_pairs_apart(bits)
    return tf.reshape(pairs[:size], shape)


def _normal_pairs(bits):
    first, second = tf.unstack(bits)
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - _fraction(first)))
    cosine, sine = philox.cos_and_sin_of_turn(second)
    return tf.concat([radius * cosine, radius * sine], axis=0)


_normal_pairs_apart = _compat.called_apart(
    _normal_pairs, input_signature=[tf.TensorSpec([2, None], tf.uint32)]
)
