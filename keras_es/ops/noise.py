"""Stateless noise: a pure function of (seed, stream, generation, pair).

This file needs TensorFlow: `keras.random` does not let the algorithm be named, and
the default one is two orders of magnitude slower under XLA on CPU. Philox is named
everywhere, so the numbers do not depend on the device.
"""

import hashlib

import tensorflow as tf

ALGORITHM = "philox"


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


def normal(shape, seed):
    """Draw standard normal noise, float32 of the given static shape."""
    return tf.random.stateless_normal(shape, seed=seed, alg=ALGORITHM)


def uniform(shape, seed):
    """Draw uniform noise in [0, 1), float32 of the given static shape."""
    return tf.random.stateless_uniform(shape, seed=seed, alg=ALGORITHM)
