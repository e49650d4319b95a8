"""Noise of pairs that are orthogonal to each other, for searches in few dimensions."""

import math

import tensorflow as tf

from keras_es.noise.weights import WeightNoise
from keras_es.ops.orthogonal import orthogonal_rows


class OrthogonalNoise(WeightNoise):
    """`WeightNoise` of full rank, orthogonal over all weights within a generation.

    All draws of a generation (of one replica) are made at once, whoever asks for some.

    Args:
        variables: List of float weights.
        seed: Integer.
        draws: Number of draws in a generation.
        mirrored: See `WeightNoise`.
        separable: See `WeightNoise`.
    """

    def __init__(self, variables, seed, draws, mirrored=True, separable=False):
        super().__init__(variables, seed, mirrored=mirrored, separable=separable)
        self.draws = draws

    def weighted_moments(
        self, generation, weights, square_weights, first_pair=0, draws_per_chunk=None
    ):
        """Return sum_k w_k e_k, then sum_k v_k (e_k**2 - 1) (see `WeightNoise`)."""
        indices = first_pair + tf.range(weights.shape[0])
        noises = self._orthogonal(generation, indices)
        sums = [tf.tensordot(weights, e, 1) for e in noises]
        if square_weights is None:
            return sums
        squares = [tf.square(e) - 1.0 for e in noises]
        return sums + [tf.tensordot(square_weights, e, 1) for e in squares]

    def _factors(self, generation, indices, scales):
        noises = self._orthogonal(generation, indices)
        return [[scale * e] for scale, e in zip(scales, noises)]

    def _orthogonal(self, generation, indices):
        """Return the noise [draws, *shape] of some draws of one replica."""
        first = indices[0] // self.draws * self.draws
        everyone = first + tf.range(self.draws)
        drawn = super()._factors(generation, everyone, [1.0] * len(self.variables))
        rows = [tf.reshape(e, (self.draws, -1)) for (e,) in drawn]
        rows = tf.gather(orthogonal_rows(tf.concat(rows, axis=1)), indices - first)
        sizes = [math.prod(v.shape) for v in self.variables]
        return [
            tf.reshape(part, (-1, *v.shape))
            for part, v in zip(tf.split(rows, sizes, axis=1), self.variables)
        ]
