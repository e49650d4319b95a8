"""The noise of all weights in pure evolution, a function of (seed, generation, pair).

Nothing is stored: whoever needs the noise of a pair draws it again.
"""

import tensorflow as tf

from keras_es.ops import noise, philox
from keras_es.ops.perturbation import perturbation


class WeightNoise:
    """Draws the perturbations of a list of weights for antithetic pairs of members.

    With `pairs_per_draw` g > 1, g neighbouring pairs share a draw E and differ by
    random signs d of its output columns: E diag(d). The law of each member is that of
    independent noise to the letter, full rank included, members are uncorrelated, and
    the search gradient stays unbiased. Its variance grows: for a linear function by
    about the share g / columns.

    Args:
        variables: List of float weights.
        seed: Integer.
        rank: None for full rank or r >= 1 for E = A B^T / sqrt(r).
        pairs_per_draw: g >= 1.

    References:
        Wen, Vicol, Ba, Tran, Grosse 2018, Flipout, arXiv 1803.04386 (here with
        the signs of the outputs alone).
    """

    def __init__(self, variables, seed=0, rank=None, pairs_per_draw=1):
        self.variables = list(variables)
        self.pairs_per_draw = pairs_per_draw
        self.perturbations = [perturbation(v.shape, rank) for v in self.variables]
        indices = range(len(self.variables))
        self._keys = [noise.stream_key(seed, f"weight {i}") for i in indices]
        self._sign_keys = [noise.stream_key(seed, f"signs {i}") for i in indices]

    def draw(self, generation, indices, scales):
        """Return the factors of some draws and the multipliers of their members.

        Args:
            generation: Integer scalar.
            indices: [draws] integers, pair // pairs_per_draw.
            scales: List of sigmas, scalars or tensors of the weights' shapes.

        Returns:
            (factors, multipliers). Factors are a list of tensors [draws, ...] for each
            weight. Multipliers are a tensor for each weight, pairs side by side:
            [draws, 2], which is +1 and -1, if g is 1; else [draws, 2g, columns].
        """

        def draw():
            factors = [
                p.draw(philox.stream(key, generation, indices), scale)
                for p, key, scale in zip(self.perturbations, self._keys, scales)
            ]
            return factors, self._multipliers(generation, indices)

        return philox.kept(draw, generation)

    def _multipliers(self, generation, indices):
        g, draws = self.pairs_per_draw, indices.shape[0]
        antithetic = tf.constant([1.0, -1.0])
        if g == 1:
            return [tf.tile(antithetic[None], (draws, 1)) for _ in self.variables]
        pairs = tf.reshape(indices[:, None] * g + tf.range(g), (-1,))
        return [
            tf.reshape(antithetic[:, None] * d[:, None], (draws, 2 * g, d.shape[-1]))
            for d in self._signs(generation, pairs)
        ]

    def _signs(self, generation, pairs):
        """Return, for each weight, the signs [pairs, columns]."""
        drawn = []
        for variable, key in zip(self.variables, self._sign_keys):
            columns = variable.shape[-1] if variable.shape else 1
            second, word = philox.stream(key, generation, pairs)
            position = (second[:, None], word[:, None])
            drawn.append(philox.signs((1, columns), position))
        return drawn

    def value(self, factors, multipliers):
        """Return m * E of one member for each weight.

        Args:
            factors: What `draw` returned.
            multipliers: For each weight, a scalar or [columns].
        """
        return [
            tf.reshape(m, m.shape if v.shape else ()) * p.value(f)
            for p, f, m, v in zip(
                self.perturbations, factors, multipliers, self.variables
            )
        ]

    def weighted_sums(self, generation, weights, first_pair=0, draws_per_chunk=8):
        """Return sum_k w_k e_k for each weight, e_k the noise of pair k at sigma 1.

        Draws are made again, a few at a time, so memory does not grow with them.

        Args:
            generation: Integer scalar.
            weights: [pairs] tensor; for the search gradient, the difference of the
                utilities of each pair's members.
            first_pair: Index of the first pair in `weights`.
            draws_per_chunk: Draws made in one turn of the loop, at most.
        """
        draws = weights.shape[0] // self.pairs_per_draw
        chunk = largest_divisor(draws, draws_per_chunk)
        weights = tf.reshape(weights, (draws // chunk, chunk * self.pairs_per_draw))

        def body(i, sums):
            terms = self._terms(generation, weights[i], first_pair, i * chunk, chunk)
            return i + 1, [s + t for s, t in zip(sums, terms)]

        zeros = [tf.zeros(p.shape) for p in self.perturbations]
        count = draws // chunk
        loop = (tf.constant(0), zeros)
        return tf.while_loop(lambda i, _: i < count, body, loop)[1]

    def _terms(self, generation, weights, first_pair, first_draw, chunk):
        g = self.pairs_per_draw
        first_draw = first_draw + first_pair // g
        draws = first_draw + tf.range(chunk)

        def signed():
            signs = self._signs(generation, first_draw * g + tf.range(chunk * g))
            signed = [tf.reshape(weights[:, None] * d, (chunk, g, -1)) for d in signs]
            return [tf.reduce_sum(d, axis=1) for d in signed]

        by_column = [weights for _ in self.variables]
        if g > 1:
            by_column = philox.kept(signed, generation)
        return [
            p.weighted_sum(philox.stream(key, generation, draws), w)
            for p, key, w in zip(self.perturbations, self._keys, by_column)
        ]


def largest_divisor(number, limit):
    """Return the largest divisor of `number` that is at most `limit` (or 1).

    Example:

    >>> largest_divisor(12, 5)
    4
    """
    return max(d for d in range(1, max(limit, 1) + 1) if number % d == 0)
