"""A whole number of units shared out among weights, by how much each is to have."""

import tensorflow as tf


def whole_shares(wanted, least, most, total):
    """Return whole numbers k with sum `total`, in proportion to what is wanted.

    The real numbers clip(x w_i, least_i, most_i) have the sum `total` at one x. Between
    two of the points where one of them meets a bound their sum is a straight line in x,
    so x is found without search. They are rounded down, and what is left goes to the
    largest fractions.

    Args:
        wanted: w, [n] positive numbers.
        least: [n] integers, at least 0.
        most: [n] integers, at least `least`.
        total: Integer scalar from sum `least` to sum `most`.

    Returns:
        [n] int64.

    Example:

    >>> whole_shares([1.0, 1.0, 4.0], [1, 1, 1], [9, 9, 9], 12).numpy().tolist()
    [2, 2, 8]
    >>> whole_shares([1.0, 1.0, 99.0], [1, 1, 1], [9, 9, 9], 12).numpy().tolist()
    [2, 1, 9]
    """
    w, low, high, all_ = (
        tf.cast(value, tf.float64) for value in (wanted, least, most, total)
    )
    points = tf.concat([low / w, high / w], 0)
    sums = tf.reduce_sum(tf.clip_by_value(points[:, None] * w, low, high), 1)
    below = sums <= all_
    x = tf.reduce_max(tf.where(below, points, 0.0))
    known = tf.reduce_max(tf.where(below, sums, 0.0))
    slope = tf.reduce_sum(tf.where((low / w <= x) & (x < high / w), w, 0.0))
    x += tf.math.divide_no_nan(all_ - known, slope)
    real = tf.clip_by_value(x * w, low, high)
    whole = tf.floor(real)
    left = all_ - tf.reduce_sum(whole)
    rest, index = real - whole, tf.range(tf.size(whole))
    # Places by comparison: XLA takes half a minute to compile a sort.
    before = rest[:, None] < rest
    before |= (rest[:, None] == rest) & (index[:, None] > index)
    place = tf.reduce_sum(tf.cast(before, tf.float64), 1)
    return tf.cast(whole, tf.int64) + tf.cast(place < left, tf.int64)
