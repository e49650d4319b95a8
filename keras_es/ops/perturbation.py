"""Perturbations of one weight: full rank or low rank, and their products and sums.

A member's weight is W + m * E with E the noise of a draw (scaled by sigma) and m the
member's multiplier: +1 or -1, or a sign for each output column. A layer that is linear
in its kernel never needs that sum:

    x (W + m * E) = x W + m * (x E),

where x E serves all members of the draw, and x W all members if they share x.
"""

import dataclasses
import math
from typing import Any

import tensorflow as tf

from keras_es.ops import philox


@dataclasses.dataclass(frozen=True)
class FullRank:
    """Independent standard normal noise for each entry.

    Args:
        shape: Shape of the weight.
    """

    shape: tuple[int, ...]

    def draw(self, positions, scale):
        """Return the factors of some draws, here [scale * E].

        Args:
            positions: What `philox.stream` returned, two [draws] tensors.
            scale: sigma, a scalar or a tensor of the weight's shape.

        Returns:
            List of tensors with a first axis of draws.
        """
        return [scale * self._noise(positions)]

    def value(self, factors):
        """Return the noise as a tensor of the weight's shape."""
        return factors[0]

    def values(self, factors):
        """Return the noise of several draws, [draws, *shape]."""
        return factors[0]

    def product(self, first, factors):
        """Return x E.

        Args:
            first: x times the first factor.
            factors: What `draw` returned.
        """
        return first

    def weighted_sum(self, positions, weights):
        """Return sum_k w_k m_k * E_k over draws, which are drawn again.

        Args:
            positions: Two [draws] tensors, the positions of the draws.
            weights: [draws], or [draws, columns] with signs multiplied in.
        """
        noise = self._noise(positions)
        return tf.reduce_sum(_over_columns(weights, len(self.shape)) * noise, axis=0)

    def weighted_square(self, positions, weights):
        """Return sum_k v_k (E_k**2 - 1) over draws, which are drawn again.

        Args:
            positions: Two [draws] tensors.
            weights: [draws].
        """
        squares = tf.square(self._noise(positions)) - 1.0
        weights = _over_columns(weights, len(self.shape))
        return tf.reduce_sum(weights * squares, axis=0)

    def _noise(self, positions):
        return _normal(self.shape, positions)


@dataclasses.dataclass(frozen=True)
class Entries(FullRank):
    """Some entries of the noise of a larger weight, equal to those to the bit.

    Args:
        shape: (k,).
        entries: int32 variable [k], indices into the flat larger weight.
    """

    entries: Any

    def _noise(self, positions):
        second, key = (p[:, None] for p in positions)
        entries = tf.convert_to_tensor(self.entries.value)
        return philox.normal_at(entries[None], (second, key))


@dataclasses.dataclass(frozen=True)
class LowRank:
    """E = A B^T / sqrt(r), with A [rows, r] and B [columns, r] standard normal.

    Rows are all axes but the last. Entries have mean 0 and variance 1 and are
    uncorrelated, but neither independent nor normal: the search gradient of an
    antithetic population is exact for quadratic functions, and for others it is that of
    a Gaussian up to terms that vanish with sigma and as r grows.

    Args:
        shape: Shape of the weight, at least two axes.
        rank: r >= 1.

    References:
        Sarkar, Fellows, Duque et al. 2025, Evolution strategies at the hyperscale
        (EGGROLL), arXiv 2511.16652.
    """

    shape: tuple[int, ...]
    rank: int

    def draw(self, positions, scale):
        """Return [scale * A / sqrt(r), B]; A has the weight's shape but r columns."""
        a, b = self._factors(positions)
        a = a * (scale / math.sqrt(self.rank))
        return [tf.reshape(a, (-1, *self.shape[:-1], self.rank)), b]

    def _factors(self, positions):
        rows, columns = math.prod(self.shape[:-1]), self.shape[-1]
        both = _normal((rows + columns, self.rank), positions)
        return both[:, :rows], both[:, rows:]

    def value(self, factors):
        """Return the noise as a tensor of the weight's shape."""
        a, b = factors
        a = tf.reshape(a, (-1, self.rank))
        return tf.reshape(tf.matmul(a, b, transpose_b=True), self.shape)

    def values(self, factors):
        """Return the noise of several draws, [draws, *shape]."""
        a, b = factors
        a = tf.reshape(a, (a.shape[0], -1, self.rank))
        return tf.reshape(tf.matmul(a, b, transpose_b=True), (-1, *self.shape))

    def product(self, first, factors):
        """Return x E = (x A) B^T.

        Args:
            first: x A.
            factors: What `draw` returned.
        """
        return tf.matmul(first, factors[1], transpose_b=True)

    def weighted_sum(self, positions, weights):
        """Return sum_k w_k E_k over draws: one product of all their factors.

        Args:
            positions: Two [draws] tensors.
            weights: [draws], or [draws, columns] with signs multiplied in.
        """
        a, b = self._factors(positions)
        b = b * _over_columns(weights, 2, swap=True)
        total = tf.einsum("kir,kjr->ij", a, b) / math.sqrt(self.rank)
        return tf.reshape(total, self.shape)

    def weighted_square(self, positions, weights):
        """Return sum_k v_k (E_k**2 - 1) over draws.

        Args:
            positions: Two [draws] tensors.
            weights: [draws].
        """
        squares = tf.square(self.full(positions)) - 1.0
        return tf.reduce_sum(_over_columns(weights, len(self.shape)) * squares, axis=0)

    def full(self, positions):
        """Return the products A B^T / sqrt(r), [draws, *shape]."""
        a, b = self._factors(positions)
        noise = tf.matmul(a, b, transpose_b=True) / math.sqrt(self.rank)
        return tf.reshape(noise, (-1, *self.shape))


@dataclasses.dataclass(frozen=True)
class ScaledLowRank:
    """sigma * E with E of low rank and a sigma for each coordinate.

    The product with sigma has full rank, so layers gain nothing; but r (rows + columns)
    normal numbers are drawn in place of rows * columns.

    Args:
        shape: Shape of the weight, at least two axes.
        rank: r >= 1.
    """

    shape: tuple[int, ...]
    rank: int

    @property
    def _noise(self):
        return LowRank(self.shape, self.rank)

    def draw(self, positions, scale):
        """Return [scale * E] (see `FullRank`)."""
        return [scale * self._noise.full(positions)]

    def value(self, factors):
        """Return the noise as a tensor of the weight's shape."""
        return factors[0]

    def values(self, factors):
        """Return the noise of several draws, [draws, *shape]."""
        return factors[0]

    def product(self, first, factors):
        """Return x E."""
        return first

    def weighted_sum(self, positions, weights):
        """Return sum_k w_k E_k (see `LowRank`)."""
        return self._noise.weighted_sum(positions, weights)

    def weighted_square(self, positions, weights):
        """Return sum_k v_k (E_k**2 - 1) (see `LowRank`)."""
        return self._noise.weighted_square(positions, weights)


@dataclasses.dataclass(frozen=True)
class Still:
    """No noise: for weights of layers that have noise on their outputs.

    Args:
        shape: Shape of the weight.
    """

    shape: tuple[int, ...]

    def draw(self, positions, scale):
        """Return [0], one for each draw."""
        return [tf.zeros(positions[0].shape)]

    def value(self, factors):
        """Return 0, a scalar."""
        return factors[0]

    def weighted_sum(self, positions, weights):
        """Return 0 of the weight's shape."""
        return tf.zeros(self.shape)

    weighted_square = weighted_sum


def _normal(shape, positions):
    """Return standard normal noise [draws, *shape]."""
    axes = (1,) * len(shape)
    second, key = (tf.reshape(p, (-1, *axes)) for p in positions)
    return philox.normal((1, *shape), (second, key))


def _over_columns(weights, rank, swap=False):
    """Bring [draws] or [draws, columns] to where it multiplies [draws, *shape]."""
    if rank == 0:  # A scalar weight has no columns.
        return tf.reshape(weights, (-1,))
    columns = 1 if weights.shape.rank == 1 else weights.shape[1]
    if swap:
        return tf.reshape(weights, (-1, columns, 1))
    return tf.reshape(weights, (-1, *(1,) * (rank - 1), columns))


def perturbation(shape, rank, separable=False):
    """Return what draws the noise of a weight of this shape.

    Args:
        shape: Shape of the weight.
        rank: None for full rank, or r: full rank is kept where r factors would hold
            as many numbers as the weight, as for biases.
        separable: Whether sigma is a tensor of the weight's shape.

    Returns:
        A `FullRank`, a `LowRank` or a `ScaledLowRank`.

    Example:

    >>> perturbation((784, 128), 1)
    LowRank(shape=(784, 128), rank=1)
    >>> perturbation((128,), 1)
    FullRank(shape=(128,))
    """
    shape = tuple(shape)
    if rank is None or len(shape) < 2:
        return FullRank(shape)
    rows = math.prod(shape[:-1])
    if rank * (rows + shape[-1]) >= rows * shape[-1]:
        return FullRank(shape)
    return (ScaledLowRank if separable else LowRank)(shape, rank)


def largest_divisor(number, limit):
    """Return the largest divisor of `number` that is at most `limit` (or 1).

    By so many draws at once noise is made where all of it would not fit.

    Example:

    >>> largest_divisor(12, 5)
    4
    """
    return max(d for d in range(1, max(limit, 1) + 1) if number % d == 0)
