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


_COUNTED = 128


def count_true(condition):
    """Return how many entries of a boolean vector are true, int32.

    By products with a vector of ones, of rows that float32 counts exactly: XLA on a CPU
    takes less than half of the time for them that it takes for a sum of the vector,
    which it adds number by number.
    """
    size = condition.shape[0]
    whole = size // _COUNTED * _COUNTED
    if not whole:
        return tf.reduce_sum(tf.cast(condition, tf.int32))
    rows = tf.reshape(tf.cast(condition[:whole], tf.float32), (-1, _COUNTED))
    counts = tf.linalg.matvec(rows, tf.ones(_COUNTED))
    rest = tf.cast(condition[whole:], tf.int32)
    return tf.reduce_sum(tf.cast(counts, tf.int32)) + tf.reduce_sum(rest)


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
        lambda r: count_true(tf.logical_and(ties, reverse >= r)),
        needed,
        tf.constant(0),
        max(1, (size - 1).bit_length()),
    )
    return tf.logical_and(ties, reverse >= cutoff)


def _kth_largest(keys, k, guess, density):
    """Return t, count(keys >= t), count(keys > t), and the density of keys near t.

    The second is at least k. Either it is k, or keys equal to t are tied for the last
    places and the third is below k.

    The k-th largest is searched between bounds low and high, count(low) >= k >
    count(high): where `guess` says, until there is a bound on either side, then by a
    straight line through the two counts, which is nearly exact where bounds are close.
    After some turns every third halves the interval, so that the worst case is that of
    bisection.

    Args:
        keys: int32 vector.
        k: int32 scalar.
        guess: Function (turn, key, its count, density) -> key to look at next, in the
            first turns; one that is not between the bounds is none.
        density: Keys for each step of the integers, as far as is known, float64.
    """
    size = keys.shape[0]

    def searching(turn, low, at_low, high, *_):
        # The difference may be beyond int32; bounds are halved to compare them.
        return tf.logical_and(at_low > k, _gap(low, high) > 1.0)

    def body(turn, low, at_low, high, at_high, key, at_key, density):
        share = tf.cast(at_low - k, tf.float64) + 0.5
        share = share / tf.cast(at_low - at_high, tf.float64)
        halves = tf.logical_and(turn >= 5, tf.equal(turn % 3, 2))
        share = tf.where(halves, tf.constant(0.5, tf.float64), share)
        step = tf.clip_by_value(share * _gap(low, high), 1.0, _gap(low, high) - 1.0)
        candidate = tf.cast(tf.cast(low, tf.float64) + tf.floor(step), tf.int32)
        guessed = guess(turn, key, at_key, density)
        open_side = tf.equal(low, tf.int32.min) | tf.equal(high, tf.int32.max)
        use = open_side & (turn < 6) & (guessed > low) & (guessed < high)
        candidate = tf.where(use, guessed, candidate)
        count = count_true(keys >= candidate)
        enough = count >= k
        found = _density(key, at_key, candidate, count)
        known = (turn > 0) & (tf.abs(count - at_key) >= _TOLD)
        return (
            turn + 1,
            tf.where(enough, candidate, low),
            tf.where(enough, count, at_low),
            tf.where(enough, high, candidate),
            tf.where(enough, at_high, count),
            candidate,
            count,
            tf.where(known, found, density),
        )

    # No key is as high: -NaN is the lowest integer, and NaN the highest.
    numbers = (0, tf.int32.min, size, tf.int32.max, 0, 0, 0)
    start = [tf.constant(number, tf.int32) for number in numbers]
    end = tf.while_loop(searching, body, [*start, density])
    _, low, count, _, above, _, _, density = end
    return low, count, above, density


_TOLD = 16
"""How many keys must lie between two for their density to be told from them."""


def _density(key, at_key, other, at_other):
    """Return the number of keys for each step of the integers between two."""
    count = tf.cast(tf.abs(at_key - at_other), tf.float64)
    return count / tf.maximum(tf.abs(_gap(key, other)), 1.0)


def _gap(low, high):
    return tf.cast(high, tf.float64) - tf.cast(low, tf.float64)


def _quantiles_of_sample(keys, k):
    """Return a guess: two keys that the k-th largest most likely lies between."""
    size = keys.shape[0]
    if size < 4 * _SAMPLE:
        return lambda *_: tf.int32.min
    sample = tf.sort(keys[:: size // _SAMPLE][:_SAMPLE], direction="DESCENDING")
    share = tf.cast(k, tf.float32) / size
    # Four standard errors of a rank in the sample.
    margin = 4.0 * tf.sqrt(_SAMPLE * share * (1.0 - share)) + 1.0
    ranks = tf.stack([share * _SAMPLE + margin, share * _SAMPLE - margin])
    ranks = tf.clip_by_value(tf.cast(ranks, tf.int32), 0, _SAMPLE - 1)
    guesses = tf.gather(sample, ranks)
    return lambda turn, *_: tf.where(
        turn < 2, guesses[tf.minimum(turn, 1)], tf.int32.min
    )


def _from_last(start, k):
    """Return a guess: the threshold of before, then where its density leads to."""

    def guess(turn, key, at_key, density):
        left = tf.cast(at_key - k, tf.float64)
        # Half a key beyond, so that a bound on the other side is found.
        step = (left + 0.5 * tf.sign(left)) / tf.maximum(density, 1e-30)
        there = tf.cast(key, tf.float64) + step
        there = tf.clip_by_value(there, tf.int32.min + 1.0, tf.int32.max - 1.0)
        return tf.where(tf.equal(turn, 0), start, tf.cast(there, tf.int32))

    return guess


def _marked(keys, k, found):
    """Mark exactly k keys, from what `_kth_largest` has found."""
    threshold, count, above = found

    def first_of_ties():
        ties = tf.equal(keys, threshold)
        return (keys > threshold) | _first_of_ties(ties, k - above)

    return tf.cond(tf.equal(count, k), lambda: keys >= threshold, first_of_ties)


def _top_k_mask(values, k):
    """Mark exactly k of a float32 vector; k is an int32 scalar."""
    keys = ordered_keys(values)
    none = tf.constant(0.0, tf.float64)
    *found, _ = _kth_largest(keys, k, _quantiles_of_sample(keys, k), none)
    return _marked(keys, k, found)


def _top_k_near(values, k, start):
    """Mark exactly k of a float32 vector, and return where to start next time."""
    keys = ordered_keys(values)
    guess = _from_last(ordered_keys(start[0]), k)
    *found, density = _kth_largest(keys, k, guess, tf.cast(start[1], tf.float64))
    # Where all or none are chosen the bound that was found is no number.
    threshold = _values_of(found[0])
    threshold = tf.where(tf.math.is_finite(threshold), threshold, start[0])
    return _marked(keys, k, found), tf.stack([threshold, tf.cast(density, tf.float32)])


def _values_of(keys):
    """Return the floats that have some keys, the inverse of `ordered_keys`."""
    bits = tf.where(keys < 0, tf.bitwise.bitwise_xor(keys, 0x7FFFFFFF), keys)
    return tf.bitcast(bits, tf.float32)


@functools.cache
def _traced(function, size, *shapes):
    """Return a selection as a graph function of vectors of one size.

    A model has many kernels of few sizes and each is decoded for each member. (A
    `tf.function` that is called with many shapes would log warnings of retracing.)
    """
    traced = tf.function(function, autograph=False)
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    values, k = tf.TensorSpec([size], tf.float32), tf.TensorSpec([], tf.int32)
    return traced.get_concrete_function(values, k, *specs)


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
    select = _top_k_mask if tf.executing_eagerly() else _traced(_top_k_mask, size)
    return tf.reshape(select(flat, tf.cast(k, tf.int32)), scores.shape)


def top_k_near(scores, k, start):
    """Mark the k largest scores as `top_k_mask` does, from where they were before.

    For scores and k that change little from step to step: the mask is the same whatever
    `start`, but if the k-th largest is near to where it was it is found in a few passes
    of counting, with no sample to sort.

    Args:
        scores: float32 tensor without NaN, any static shape with d elements.
        k: Integer or int32 scalar tensor in [0, d].
        start: float32 [2]: the k-th largest as it was, and how many scores there are
            around it for each float; what the last call returned, zeros at first.

    Returns:
        (mask, start): booleans of the shape of `scores`, exactly k of them true; and
        `start` of the next call.

    Example:

    >>> mask, start = top_k_near(tf.constant([1.0, 3.0, 3.0, 3.0]), 2, tf.zeros(2))
    >>> mask.numpy().tolist(), float(start[0])
    ([False, True, True, False], 3.0)
    """
    size = scores.shape.num_elements()
    flat = tf.reshape(tf.cast(scores, tf.float32), [size])
    select = _top_k_near
    if not tf.executing_eagerly():
        select = _traced(_top_k_near, size, (2,))
    mask, start = select(flat, tf.cast(k, tf.int32), tf.cast(start, tf.float32))
    return tf.reshape(mask, scores.shape), start


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
