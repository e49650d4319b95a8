"""Which blocks a block-sparse matrix stores, and where: see `ops.block_sparse`.

Units are booleans or scores [R, C], one for each block of the matrix; an index is an
int32 tensor [C, k], the blocks that each of the C columns stores. All columns are
treated at once.
"""

import tensorflow as tf

from keras_es.ops import selection

_COUNTED_ROWS = 32


def top_k_in_columns(scores, k):
    """Mark the k largest scores of each column, exactly k; ties go by index.

    Short columns compare all with all, m_i = [#{j ahead of i} < k]; in longer ones the
    k-th largest is found by bisecting its 32 bits, as in `ops.selection`.

    Args:
        scores: float32 tensor [R, C] without NaN.
        k: Integer in [1, R].

    Returns:
        Boolean tensor [R, C] with k true entries in each column.

    Example:

    >>> top_k_in_columns(tf.constant([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]]), 2).numpy()
    array([[False,  True], [ True,  True], [ True, False]])
    """
    keys = selection.ordered_keys(tf.cast(scores, tf.float32))
    if scores.shape[0] <= _COUNTED_ROWS:
        return _by_counting(keys, k)
    return _by_bisection(keys, k)


def _by_counting(keys, k):
    rows = tf.range(keys.shape[0])
    earlier = (rows[None, :] < rows[:, None])[:, :, None]
    own, other = keys[:, None, :], keys[None, :, :]
    ahead = tf.logical_or(other > own, tf.logical_and(tf.equal(other, own), earlier))
    return tf.reduce_sum(tf.cast(ahead, tf.int32), axis=1) < k


def _by_bisection(keys, k):
    def body(bit, threshold):
        candidate = threshold + tf.bitwise.left_shift(1, bit)
        count = tf.reduce_sum(tf.cast(keys >= candidate, tf.int32), axis=0)
        return bit - 1, tf.where(count >= k, candidate, threshold)

    lowest = tf.fill([keys.shape[1]], tf.int32.min)
    _, threshold = tf.while_loop(
        lambda bit, _: bit >= 0, body, (tf.constant(31), lowest)
    )
    above, ties = keys > threshold, tf.equal(keys, threshold)
    needed = k - tf.reduce_sum(tf.cast(above, tf.int32), axis=0)
    first = tf.cumsum(tf.cast(ties, tf.int32), axis=0) <= needed
    return tf.logical_or(above, tf.logical_and(ties, first))


def is_active(units, index):
    """Return [C, k]: whether a unit mask [R, C] uses each stored block."""
    return tf.gather(tf.transpose(units), index, batch_dims=1)


def is_stored(index, rows):
    """Return the unit mask [R, C] of the stored blocks."""
    hits = tf.equal(index[:, None, :], tf.range(rows)[None, :, None])
    return tf.transpose(tf.reduce_any(hits, axis=2))


def spread(values, index, rows):
    """Put values [C, k] of stored blocks at their units [R, C], 0 elsewhere."""
    column = tf.broadcast_to(tf.range(index.shape[0])[:, None], index.shape)
    places = tf.stack([index, column], axis=-1)
    return tf.scatter_nd(places, values, [rows, index.shape[0]])


def positions_of(units, k):
    """Return the index [C, k] of the true units of each column, ascending.

    Args:
        units: Boolean [R, C] with k true entries in each column.
        k: Number of them.
    """
    wanted = tf.broadcast_to(tf.range(1, k + 1), [units.shape[1], k])
    return _nth_true(units, wanted)


def place(index, units):
    """Move to a new unit mask: what stays keeps its place, the rest takes new blocks.

    Args:
        index: int32 [C, k], the stored blocks, all different in a column.
        units: Boolean [R, C], the blocks to store, k in each column.

    Returns:
        (new index [C, k], kept [C, k]): where `kept` is false a new block takes the
        place of one that left; they come in ascending order. (Should `units` have
        fewer than k in a column, places that nobody takes keep their block.)
    """
    kept = is_active(units, index)
    new = tf.logical_and(units, tf.logical_not(is_stored(index, units.shape[0])))
    freed = tf.cumsum(tf.cast(tf.logical_not(kept), tf.int32), axis=1)
    found = _nth_true(new, freed)
    taken = tf.logical_or(kept, found >= units.shape[0])
    return tf.where(taken, index, found), kept


def _nth_true(units, nth):
    """Return the row of the nth true entry (from 1) of a column, R or more if none.

    units: [R, C], nth: [C, k]. The running count of a column is bisected; matching
    all R rows with all k places takes many times as long where R is in the hundreds.
    """
    rows = units.shape[0]
    counts = tf.transpose(tf.cumsum(tf.cast(units, tf.int32), axis=0))
    before = tf.zeros_like(nth)  # so many rows come before the one looked for
    for bit in reversed(range(rows.bit_length())):
        candidate = before + (1 << bit)
        count = tf.gather(counts, tf.minimum(candidate, rows) - 1, batch_dims=1)
        short = tf.logical_and(count < nth, candidate <= rows)
        before = tf.where(short, candidate, before)
    return before
