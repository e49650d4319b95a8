"""Exact selection of the k largest values, ties broken by index.

The threshold is found by counting, which needs neither a sort of all values nor an
index list: some six passes of compare-and-count. This file needs TensorFlow
for the bit cast and the loop, which is traced once for each size and compiled by XLA
where the step around it is. Compiling it by itself would save a third of the time
of a run and cost 0.7 s for each size: half a minute in a MobileNet.
"""

import functools

import tensorflow as tf


def ordered_keys(values):
    """Map float32 to int32 so that the integers are ordered as the floats are.

    Args:
        values: float32 tensor without NaN, any shape.

    Returns:
        int32 tensor of the same shape; -0.0 and +0.0 get the same key (and subnormal
        numbers theirs, where the processor flushes them to zero).
    """
    values = tf.where(tf.equal(values, 0.0), 0.0, values)
    bits = tf.bitcast(values, tf.int32)
    return tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, 0x7FFFFFFF), bits)


_SAMPLE = 1024


def _count(condition):
    return tf.reduce_sum(tf.cast(condition, tf.int32))


def _bisect(count_at_least, k, low, bits):
    """Return the largest t = low + sum of powers of two with count(t) >= k."""

    def body(bit, threshold):
        candidate = threshold + tf.bitwise.left_shift(1, bit)
        enough = count_at_least(candidate) >= k
        return bit - 1, tf.where(enough, candidate, threshold)

    _, threshold = tf.while_loop(
        lambda bit, _: bit >= 0, body, (tf.constant(bits - 1), low)
    )
    return threshold


def _first_of_ties(ties, needed):
    """Keep the first `needed` true entries of a boolean vector."""
    size = ties.shape[0]
    reverse = tf.range(size - 1, -1, -1, dtype=tf.int32)
    # Largest reversed index r such that at least `needed` ties lie at or before it.
    cutoff = _bisect(
        lambda r: _count(tf.logical_and(ties, reverse >= r)),
        needed,
        tf.constant(0),
        max(1, (size - 1).bit_length()),
    )
    return tf.logical_and(ties, reverse >= cutoff)


def _kth_largest(keys, k):
    """Return t, count(keys >= t) and count(keys > t), the second at least k.

    Either it is k, or keys equal to t are tied for the last places and the third is
    below k.

    The k-th largest is searched between bounds low and high, count(low) >= k >
    count(high), first by the quantiles of a sample, then by a straight line through
    the two counts, which is nearly exact where bounds are close; every third try halves
    the interval, so that the worst case is that of bisection.
    """
    size = keys.shape[0]
    guesses = _quantiles_of_sample(keys, k)

    def searching(_, low, at_low, high, __):
        # The difference may be beyond int32; bounds are halved to compare them.
        return tf.logical_and(at_low > k, _gap(low, high) > 1.0)

    def body(turn, low, at_low, high, at_high):
        share = tf.cast(at_low - k, tf.float64) + 0.5
        share = share / tf.cast(at_low - at_high, tf.float64)
        share = tf.where(tf.equal(turn % 3, 2), tf.constant(0.5, tf.float64), share)
        step = tf.clip_by_value(share * _gap(low, high), 1.0, _gap(low, high) - 1.0)
        candidate = tf.cast(tf.cast(low, tf.float64) + tf.floor(step), tf.int32)
        if guesses is not None:
            guess = guesses[tf.minimum(turn, 1)]
            inside = tf.logical_and(guess > low, guess < high)
            candidate = tf.where(tf.logical_and(turn < 2, inside), guess, candidate)
        count = _count(keys >= candidate)
        enough = count >= k
        return (
            turn + 1,
            tf.where(enough, candidate, low),
            tf.where(enough, count, at_low),
            tf.where(enough, high, candidate),
            tf.where(enough, at_high, count),
        )

    # No key is as high: -NaN is the lowest integer, and NaN the highest.
    numbers = (0, tf.int32.min, size, tf.int32.max, 0)
    start = [tf.constant(number, tf.int32) for number in numbers]
    _, low, count, _, above = tf.while_loop(searching, body, start)
    return low, count, above


def _gap(low, high):
    return tf.cast(high, tf.float64) - tf.cast(low, tf.float64)


def _quantiles_of_sample(keys, k):
    """Return two keys that the k-th largest most likely lies between, or None."""
    size = keys.shape[0]
    if size < 4 * _SAMPLE:
        return None
    sample = tf.sort(keys[:: size // _SAMPLE][:_SAMPLE], direction="DESCENDING")
    share = tf.cast(k, tf.float32) / size
    # Four standard errors of a rank in the sample.
    margin = 4.0 * tf.sqrt(_SAMPLE * share * (1.0 - share)) + 1.0
    ranks = tf.stack([share * _SAMPLE + margin, share * _SAMPLE - margin])
    ranks = tf.clip_by_value(tf.cast(ranks, tf.int32), 0, _SAMPLE - 1)
    return tf.gather(sample, ranks)


def _top_k_mask(values, k):
    """Mark exactly k of a float32 vector; k is an int32 scalar."""
    keys = ordered_keys(values)
    threshold, count, above = _kth_largest(keys, k)

    def first_of_ties():
        ties = tf.equal(keys, threshold)
        return (keys > threshold) | _first_of_ties(ties, k - above)

    return tf.cond(tf.equal(count, k), lambda: keys >= threshold, first_of_ties)


@functools.cache
def _traced_top_k_mask(size):
    """Return `_top_k_mask` as a graph function of vectors of one size.

    A model has many kernels of few sizes and each is decoded for each member. (A
    `tf.function` that is called with many shapes would log warnings of retracing.)
    """
    function = tf.function(_top_k_mask, autograph=False)
    values = tf.TensorSpec([size], tf.float32)
    return function.get_concrete_function(values, tf.TensorSpec([], tf.int32))


def top_k_mask(scores, k):
    """Mark the k largest scores, exactly k of them.

    m_i = 1 if s_i is among the k largest; of equal scores those with the smaller
    index win, so that the number of ones is k whatever the ties.

    Args:
        scores: float32 tensor without NaN, any static shape with d elements.
        k: Integer or int32 scalar tensor in [0, d].

    Returns:
        Boolean tensor of the shape of `scores` with exactly k true entries.

    Example:

    >>> top_k_mask(tf.constant([1.0, 3.0, 3.0, 3.0]), 2).numpy().tolist()
    [False, True, True, False]
    """
    size = scores.shape.num_elements()
    if isinstance(k, int):
        if not 0 <= k <= size:
            raise ValueError(
                f"`k` must be in [0, {size}], the number of scores. Received: k={k}"
            )
        if k == 0:
            return tf.zeros(scores.shape, tf.bool)
        if k == size:
            return tf.ones(scores.shape, tf.bool)
    flat = tf.reshape(tf.cast(scores, tf.float32), [size])
    select = _top_k_mask if tf.executing_eagerly() else _traced_top_k_mask(size)
    return tf.reshape(select(flat, tf.cast(k, tf.int32)), scores.shape)


def top_n_in_groups(scores, n, axis):
    """Mark the n largest scores along one short axis, ties broken by index.

    rank_i = #{j : s_j > s_i or (s_j = s_i and j < i)}, m_i = [rank_i < n].

    Args:
        scores: float32 tensor; `axis` has m elements, compared all with all (m**2).
        n: Integer or int32 scalar tensor in [0, m].
        axis: Integer, the axis of the group.

    Returns:
        Boolean tensor of the same shape with n true entries in each group.

    Example:

    >>> top_n_in_groups(tf.constant([1.0, 5.0, 5.0, 0.0]), 1, 0).numpy().tolist()
    [False, True, False, False]
    """
    members = tf.unstack(scores, axis=axis)
    ranks = []
    for i, own in enumerate(members):
        ahead = [
            tf.cast(other >= own if j < i else other > own, tf.int32)
            for j, other in enumerate(members)
            if j != i
        ]
        ranks.append(tf.add_n(ahead) if ahead else tf.zeros_like(own, tf.int32))
    return tf.stack([rank < n for rank in ranks], axis=axis)
