"""A whole number of units shared out among weights, by how much each is to have."""

import tensorflow as tf

ROUNDING = 1e-6
"""What a real number may lack of a whole one by rounding."""


def whole_shares(wanted, least, most, total, prices=None):
    """Return whole numbers k with sum `total`, in proportion to what is wanted.

    The real numbers clip(x w_i, least_i, most_i) have the sum `total` at one x. Between
    two of the points where one of them meets a bound their sum is a straight line in x,
    so x is found without search. They are rounded down, and what is left goes to the
    largest fractions.

    With prices p it is the sum of p_i k_i that is given. What rounding leaves of it
    buys the cheapest, as much as can be had, so that the sum is at most `total`.

    Args:
        wanted: w, [n] positive numbers.
        least: [n] integers, at least 0.
        most: [n] integers, at least `least`.
        total: Integer scalar from sum `least` to sum `most`; with prices any number
            from sum p `least` on.
        prices: p, n positive Python numbers, or None.

    Returns:
        [n] int64.

    Example:

    >>> whole_shares([1.0, 1.0, 4.0], [1, 1, 1], [9, 9, 9], 12).numpy().tolist()
    [2, 2, 8]
    >>> whole_shares([1.0, 1.0, 99.0], [1, 1, 1], [9, 9, 9], 12).numpy().tolist()
    [2, 1, 9]
    >>> whole_shares([1.0, 1.0], [1, 1], [9, 9], 14.0, [4.0, 1.0]).numpy().tolist()
    [2, 6]
    """
    w, low, high, all_ = (
        tf.cast(value, tf.float64) for value in (wanted, least, most, total)
    )
    p = tf.ones_like(w) if prices is None else tf.constant(prices, tf.float64)
    points = tf.concat([low / w, high / w], 0)
    sums = tf.reduce_sum(p * tf.clip_by_value(points[:, None] * w, low, high), 1)
    below = sums <= all_
    x = tf.reduce_max(tf.where(below, points, 0.0))
    known = tf.reduce_max(tf.where(below, sums, 0.0))
    slope = tf.reduce_sum(tf.where((low / w <= x) & (x < high / w), p * w, 0.0))
    x += tf.math.divide_no_nan(all_ - known, slope)
    real = tf.clip_by_value(x * w, low, high)
    if prices is not None:
        return tf.cast(_cheapest_filled(real, high, all_, p), tf.int64)
    whole = tf.floor(real)
    left = all_ - tf.reduce_sum(whole)
    rest, index = real - whole, tf.range(tf.size(whole))
    # Places by comparison: XLA takes half a minute to compile a sort.
    before = rest[:, None] < rest
    before |= (rest[:, None] == rest) & (index[:, None] > index)
    place = tf.reduce_sum(tf.cast(before, tf.float64), 1)
    return tf.cast(whole, tf.int64) + tf.cast(place < left, tf.int64)


def _cheapest_filled(real, most, total, prices):
    """Round down, and buy the cheapest for what is left."""
    whole = tf.floor(real + ROUNDING)
    left = total - tf.reduce_sum(prices * whole)
    cheapest = tf.one_hot(tf.argmin(prices), tf.size(prices), dtype=tf.float64)
    more = tf.floor(tf.maximum(left, 0.0) / tf.reduce_min(prices) + ROUNDING)
    return whole + cheapest * tf.minimum(more, most - whole)
