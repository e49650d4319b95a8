"""All randomness of a run, as a function of counters: nothing drawn is ever stored.

This file needs TensorFlow, as `keras_es.ops.philox` does.
"""

import math

import tensorflow as tf

from keras_es._arguments import is_integer
from keras_es.ops import noise, philox

# The word that stands for the step in the seed of an episode, which no step has.
BEGIN = 0xFFFFFFFF


def normal(shape, seed):
    """Draw standard normal numbers in a `Task`.

    TensorFlow's own stateless operations are not vectorized over particles, and draw
    other numbers under XLA than without.

    Args:
        shape: Static shape.
        seed: int32 tensor [2], as a task gets it, or `fold_in` of it.

    Returns:
        float32 tensor.

    Raises:
        ValueError: If an argument is of another kind.

    Example:

    >>> keras_es.unrolled.normal((3,), tf.constant([1, 2])).shape
    TensorShape([3])
    """
    return tf.reshape(philox.normal(_at_least_1d(shape), _words(seed)), shape)


def uniform(shape, seed):
    """Draw numbers in [0, 1) in a `Task`, multiples of 2**-24.

    Args:
        shape: Static shape.
        seed: int32 tensor [2], as a task gets it, or `fold_in` of it.

    Returns:
        float32 tensor.

    Raises:
        ValueError: If an argument is of another kind.

    Example:

    >>> u = keras_es.unrolled.uniform((3,), tf.constant([1, 2]))
    >>> bool(tf.reduce_all((u >= 0.0) & (u < 1.0)))
    True
    """
    first, _ = philox.bits(_at_least_1d(shape), _words(seed))
    top = tf.cast(tf.bitwise.right_shift(first, _word(8)), tf.int32)
    return tf.reshape(tf.cast(top, tf.float32) * 2.0**-24, shape)


def fold_in(seed, number):
    """Return another seed, for a second draw in the same step.

    Args:
        seed: int32 tensor [2].
        number: Integer or integer scalar tensor of at least 0.

    Returns:
        int32 tensor [2].

    Raises:
        ValueError: If an argument is of another kind.

    Example:

    >>> seed = tf.constant([1, 2])
    >>> bool(tf.reduce_all(keras_es.unrolled.fold_in(seed, 1) == seed))
    False
    """
    first, second = _words(seed)
    return _as_seed(philox.philox2x32(_number(number), first, second))


def start_windows(key, particle, count):
    """Return in which window of the episode each particle begins.

    Args:
        key: Python integer from `noise.stream_key`.
        particle: int32 tensor [n].
        count: Number of windows in an episode.

    Returns:
        int32 tensor [n], uniform in [0, count).
    """
    # Of another stream than the noise: the key is another.
    word, _ = philox.stream(key, 0, particle)
    return _half(word) % count


def episode_position(key, particle, episode):
    """Return the words that the seeds of an episode are made of, uint32 [n] each."""
    return philox.stream(key, episode, particle)


def seeds(position, t=None):
    """Return the seeds of one step of all particles, or of the episodes' beginnings.

    Args:
        position: What `episode_position` returned.
        t: int32 tensor [n], or None.

    Returns:
        int32 tensor [n, 2] of numbers of at least 0.
    """
    word = _word(BEGIN) if t is None else tf.cast(t, tf.uint32)
    return _as_seed(philox.philox2x32(word, *position))


def perturbation(key, shape, particle, episode, period):
    """Draw each particle's standard normal noise of one weight.

    Args:
        key: Python integer from `noise.stream_key`, of the weight.
        shape: Static shape of the weight.
        particle: int32 tensor [n].
        episode: int32 tensor [n].
        period: int32 tensor [n], how often noise was drawn before in this episode.

    Returns:
        float32 tensor [n, *shape].
    """
    high = tf.cast(period, tf.int64) * 2**32
    words = philox.stream(key, high + tf.cast(episode, tf.int64), particle)
    ones = (1,) * len(shape)
    words = [tf.reshape(w, (-1, *ones)) for w in words]
    values = philox.normal((1, *shape), words)
    return tf.reshape(values, (particle.shape[0], *shape))


def stream_key(seed, what):
    """Return the key of one of the streams of a run."""
    return noise.stream_key(seed, f"unrolled/{what}")


def _at_least_1d(shape):
    known = isinstance(shape, list | tuple | tf.TensorShape)
    if not known or not all(is_integer(size) and size >= 0 for size in shape):
        raise ValueError(
            "`shape` must be a static shape, a tuple of integers of at least 0. "
            f"Received: shape={shape!r}"
        )
    shape = tuple(shape)
    return shape if math.prod(shape) != 1 else (1,)


def _words(seed):
    wanted = "an integer tensor of shape [2], as a task gets it"
    found = _integers("seed", seed, [2], wanted)
    return found[0], found[1]


def _number(number):
    return _integers("number", number, [], "an integer, or a scalar tensor of integers")


def _integers(name, value, shape, wanted):
    """Return a tensor of integers as words, or raise for what is none of that shape."""
    try:
        found = tf.convert_to_tensor(value)
    except (TypeError, ValueError):
        found = tf.constant("")
    if not found.dtype.is_integer or not found.shape.is_compatible_with(shape):
        raise ValueError(f"`{name}` must be {wanted}. Received: {name}={value!r}")
    return tf.cast(found, tf.uint32)


def _as_seed(words):
    return tf.stack([_half(w) for w in words], axis=-1)


def _half(word):
    """Drop a bit: the rest is the same number in signed integers."""
    return tf.cast(tf.bitwise.right_shift(word, _word(1)), tf.int32)


def _word(value):
    return tf.constant(value, tf.uint32)
