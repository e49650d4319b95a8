"""Products of one state, or of some, with a matrix that is mostly zero.

In a loop that speaks, a product reads each weight for one multiplication (or one for
each voice), so zeros are worth something if they are not read. XLA makes vector
instructions of what is elementwise and reads its arrays in one piece, and of little
else; so all that is multiplied is laid out for that. The active blocks of the same rows
of the matrix lie side by side, CHUNK of them in a piece,

    p[k, n] = sum_l  h[rows * i_k + l] W[l, k, n],

with l written out: for a piece k each factor h is a constant. Only then a number is
gathered for each block, and not for each weight:

    y[c] = sum_j  p[place_cj].

Columns with about as many blocks make one such sum; they are sorted by that. XLA would
compute p anew for each number that is gathered; see `Apart`.
"""

import numpy as np
import tensorflow as tf

CHUNK = 32
"""Blocks that lie side by side."""

LAUNCH = 1000
"""How many blocks take as long to sum as beginning another group of columns."""

MOST_ROWS = 128
"""Rows of blocks up to which their sum is written out."""


class Apart(tf.Module):
    """Calls functions whose results XLA computes once, and in a loop of their own.

    XLA joins operations that follow each other in one loop over the numbers of the last
    one, and then computes the first ones anew wherever they are read more than once, or
    finds no vector instructions for what is around a gather. It joins nothing across
    the border of a branch. This one is always taken, but XLA cannot know.
    """

    def __init__(self):
        super().__init__()
        self.always = tf.Variable(True, trainable=False)

    def __call__(self, function, *given):
        """Return function(*given), a tensor or a structure of them."""
        found = []

        def taken():
            found.append(function(*given))
            return found[0]

        def never():
            return tf.nest.map_structure(lambda x: tf.zeros(x.shape, x.dtype), found[0])

        return tf.cond(self.always, taken, never)


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
    """

    def __init__(self, matrix, rows):
        super().__init__()
        self.rows, active = rows, active_blocks(matrix, rows)
        self.apart = Apart()
        weights, of_pieces, places, empty = _pieces(matrix, active, rows)
        counts = active.sum(axis=0)
        order = np.argsort(-counts, kind="stable")
        groups = divide(counts[order])
        alone = len(groups) == 1  # and then they need not be sorted
        order = np.arange(len(counts)) if alone else order
        self.weights = tf.Variable(weights, trainable=False)
        self.of_pieces = tf.Variable(of_pieces, trainable=False)
        self.places = [
            tf.Variable(_column_places(active, places, columns, empty), trainable=False)
            for columns in (order[first:last] for first, last in groups)
        ]
        self.order = None
        if not alone:
            # Where each column is among the sorted ones.
            self.order = tf.Variable(np.argsort(order).astype("int32"), trainable=False)

    def __call__(self, h):
        h = tf.convert_to_tensor(h)
        return self.apart(self._summed, self.apart(self._multiplied, h))

    def _multiplied(self, h):
        """Return p, [pieces, CHUNK] or [pieces, CHUNK, voices]."""
        voices = h.shape[1:]
        of_blocks = tf.reshape(h, [-1, self.rows, *voices])
        factors, total = tf.gather(of_blocks, self.of_pieces)[:, :, None], None
        for row in range(self.rows):
            weights = self.weights[row]
            weights = weights[..., None] if voices.rank else weights
            term = weights * factors[:, row]
            total = term if total is None else total + term
        return total

    def _summed(self, p):
        p = tf.reshape(p, [-1, *p.shape[2:]])
        found = [tf.reduce_sum(tf.gather(p, place), axis=0) for place in self.places]
        if self.order is None:
            return found[0]
        return tf.gather(tf.concat(found, axis=0), self.order)


def _pieces(matrix, active, rows):
    """Return W [rows, pieces, CHUNK], the i of each piece, and places of blocks.

    Places are those in p, [n / rows, m]; the last result is one that stays zero.
    """
    columns = [np.flatnonzero(own) for own in active]
    of_pieces = [
        (i, own[first : first + CHUNK])
        for i, own in enumerate(columns)
        for first in range(0, len(own), CHUNK)
    ]
    # One more than there are: somewhere must be a zero, also if all are full.
    weights = np.zeros((len(of_pieces) + 1, rows, CHUNK), "float32")
    places = np.zeros(active.shape, "int32")
    for k, (i, own) in enumerate(of_pieces):
        weights[k, :, : len(own)] = matrix[rows * i : rows * (i + 1), own]
        places[i, own] = CHUNK * k + np.arange(len(own))
    index = np.array([i for i, _ in of_pieces] + [0], "int32")
    weights = np.ascontiguousarray(weights.transpose(1, 0, 2))
    return weights, index, places, CHUNK * len(of_pieces)


def _column_places(active, places, columns, empty):
    """Return the places of the blocks of columns, [most blocks, columns]."""
    own = active[:, columns]
    most = int(own.sum(axis=0).max(initial=0))
    # Active blocks first, then others, for which a zero is read.
    index = np.argsort(~own, axis=0, kind="stable")[:most]
    found = np.where(own, places[:, columns], empty).astype("int32")
    return np.take_along_axis(found, index, axis=0)


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
