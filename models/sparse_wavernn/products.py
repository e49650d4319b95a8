"""Products of one state, or of some, with a matrix that is mostly zero.

In a loop that speaks, a product reads each weight for one multiplication (or one for
each voice), so zeros are worth something if they are not read. XLA makes vector
instructions of what is elementwise and has its innermost axis in one piece, and of
little else: a gather with a sum over its rows becomes scalar code. So the sum over the
blocks of a column is written out, term by term, and each term is elementwise,

    y[c, l] = sum_j  h[16 i_cj + l] W_cj[l],      y[c] = sum_l y[c, l],

with lanes l of one voice, or, where there are several, of the voices. Columns with as
many blocks make one such sum; they are sorted by that.
"""

import numpy as np
import tensorflow as tf

LANES = 8
"""Numbers of a block that one term multiplies, if there is one voice."""

LAUNCH = 250
"""How many blocks of a column take as long as beginning another group of columns."""

MOST_TERMS = 512
"""Terms of one sum that are written out; XLA would take minutes to compile more."""


class Dense(tf.Module):
    """y = W^T h for h [n] or [n, voices].

    Args:
        matrix: W [n, m], NumPy.
    """

    def __init__(self, matrix):
        super().__init__()
        self.matrix = tf.Variable(np.ascontiguousarray(matrix.T), trainable=False)

    def __call__(self, h):
        h = tf.convert_to_tensor(h)
        if h.shape.rank == 1:
            return tf.linalg.matvec(self.matrix, h)
        return tf.matmul(self.matrix, h)


class Blocks(tf.Module):
    """The same of a matrix whose zeros are blocks of some rows by one column.

    Args:
        matrix: W [n, m], NumPy.
        rows: Rows of a block.
        voices: Number of them.
    """

    def __init__(self, matrix, rows, voices):
        super().__init__()
        self.rows, self.voices = rows, voices
        active = active_blocks(matrix, rows)
        counts = active.sum(axis=0)
        order = np.argsort(-counts, kind="stable")
        pieces = divide(counts[order])
        alone = len(pieces) == 1  # and then they need not be sorted
        order = np.arange(len(counts)) if alone else order
        self.groups = [
            _Group(matrix, active, order[first:last], rows, voices)
            for first, last in pieces
        ]
        self.order = None
        if not alone:
            # Where each column is among the sorted ones.
            self.order = tf.Variable(np.argsort(order).astype("int32"), trainable=False)

    def __call__(self, h):
        found = [group(h) for group in self.groups]
        if self.order is None:
            return found[0]
        return tf.gather(tf.concat(found, axis=0), self.order)


class _Group(tf.Module):
    """Columns that are given as many blocks, [columns] or [columns, voices]."""

    def __init__(self, matrix, active, columns, rows, voices):
        super().__init__()
        self.rows, self.voices, self.columns = rows, voices, len(columns)
        own = active[:, columns]
        self.count = int(own.sum(axis=0).max())
        if not self.count:
            return
        # Active blocks first, then others, whose weights are zero.
        index = np.argsort(~own, axis=0, kind="stable")[: self.count]
        blocks = matrix.reshape(-1, rows, matrix.shape[1])[index, :, columns]
        if voices == 1:
            lanes = self.lanes = min(LANES, rows) if rows % LANES == 0 else rows
            shape = (self.count, len(columns), rows // lanes, lanes)
            weights = blocks.reshape(shape).transpose(0, 2, 1, 3)
        else:
            weights = blocks.transpose(0, 2, 1)
        self.index = tf.Variable(index.astype("int32"), trainable=False)
        self.weights = tf.Variable(np.ascontiguousarray(weights), trainable=False)

    def __call__(self, h):
        if not self.count:
            return tf.zeros([self.columns, *h.shape[1:]], h.dtype)
        if self.voices > 1:
            return self._by_voice(h)
        parts = self.rows // self.lanes
        pieces, total = tf.reshape(h, [-1, self.lanes]), None
        for j in range(self.count):
            for part in range(parts):
                piece = tf.gather(pieces, self.index[j] * parts + part)
                term = piece * self.weights[j, part]
                total = term if total is None else total + term
        return tf.linalg.matvec(total, tf.ones([self.lanes], h.dtype))

    def _by_voice(self, h):
        total = None
        for j in range(self.count):
            for row in range(self.rows):
                values = tf.gather(h, self.index[j] * self.rows + row)
                term = values * self.weights[j, row][:, None]
                total = term if total is None else total + term
        return total


def active_blocks(matrix, rows):
    """Return which blocks of rows x 1 have a weight that is not zero, [n / rows, m]."""
    grid = matrix.reshape(-1, rows, matrix.shape[1])
    return np.any(grid != 0.0, axis=1)


def divide(counts):
    """Return where to divide sorted columns, so that groups have little to fill up.

    Of all divisions into pieces of neighbours it is the one with the least sum of
    (largest count x columns + LAUNCH).

    Args:
        counts: Blocks of each column, falling.

    Returns:
        List of (first, last).
    """
    counts = np.asarray(counts)
    ends = [0, *(np.flatnonzero(np.diff(counts)) + 1), len(counts)]
    best, since = [0.0], [0]
    for j in range(1, len(ends)):
        costs = [
            best[i] + counts[ends[i]] * (ends[j] - ends[i]) + LAUNCH for i in range(j)
        ]
        best.append(min(costs))
        since.append(int(np.argmin(costs)))
    found, j = [], len(ends) - 1
    while j:
        found.append((int(ends[since[j]]), int(ends[j])))
        j = since[j]
    return found[::-1]
