"""The noise of all weights in pure evolution, a function of (seed, generation, pair).

Nothing is stored: whoever needs the noise of a pair draws it again.
"""

import copy

import tensorflow as tf

from keras_es.ops import noise, philox
from keras_es.ops.perturbation import Entries, Still, largest_divisor, perturbation


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
        mirrored: True for pairs of members +E and -E; False for members that are
            independent of each other, each of them a "pair" of its own.
        separable: Whether sigma may be a tensor, one for each coordinate.

    References:
        Wen, Vicol, Ba, Tran, Grosse 2018, Flipout, arXiv 1803.04386 (here with
        the signs of the outputs alone).
    """

    def __init__(
        self,
        variables,
        seed=0,
        rank=None,
        pairs_per_draw=1,
        mirrored=True,
        separable=False,
    ):
        self.variables = list(variables)
        self.pairs_per_draw = pairs_per_draw
        self.signs = (1.0, -1.0) if mirrored else (1.0,)
        self.perturbations = [_perturbation(v, rank, separable) for v in self.variables]
        indices = range(len(self.variables))
        self._keys = [noise.stream_key(seed, f"weight {i}") for i in indices]
        self._sign_keys = [noise.stream_key(seed, f"signs {i}") for i in indices]

    def without(self, variables):
        """Return the same noise, but none for some of the variables."""
        left_out = {id(v) for v in variables}
        other = copy.copy(self)
        other.perturbations = [
            Still(p.shape) if id(v) in left_out else p
            for v, p in zip(self.variables, self.perturbations)
        ]
        return other

    @property
    def members_per_draw(self):
        """Number of members that share a draw."""
        return len(self.signs) * self.pairs_per_draw

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
            (Not mirrored: [draws, 1], which is 1, or [draws, g, columns].)
        """

        def draw():
            factors = self._factors(generation, indices, scales)
            return factors, self._multipliers(generation, indices)

        return philox.kept(draw, generation)

    def _factors(self, generation, indices, scales):
        return [
            p.draw(philox.stream(key, generation, indices), scale)
            for p, key, scale in zip(self.perturbations, self._keys, scales)
        ]

    def _multipliers(self, generation, indices):
        g, draws = self.pairs_per_draw, indices.shape[0]
        both = tf.constant(self.signs)
        if g == 1:
            return [tf.tile(both[None], (draws, 1)) for _ in self.variables]
        pairs = tf.reshape(indices[:, None] * g + tf.range(g), (-1,))
        shape = (draws, self.members_per_draw)
        return [
            tf.reshape(both[:, None] * d[:, None], (*shape, d.shape[-1]))
            for d in self._signs(generation, pairs)
        ]

    def _signs(self, generation, pairs):
        """Return, for each weight, the signs [pairs, columns]."""
        drawn = []
        for variable, key in zip(self.variables, self._sign_keys):
            columns = variable.shape[-1] if len(variable.shape) else 1
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
            tf.reshape(m, m.shape if len(v.shape) else ()) * p.value(f)
            for p, f, m, v in zip(
                self.perturbations, factors, multipliers, self.variables
            )
        ]

    def members(self, generation, draws, scales, first_draw=0):
        """Return m * E of all members at once, [members, *shape] for each weight.

        Args:
            generation: Integer scalar.
            draws: Number of draws.
            scales: List of sigmas, as for `draw`.
            first_draw: Index of the first one.
        """
        indices = first_draw + tf.range(draws)
        factors, multipliers = self.draw(generation, indices, scales)
        values = []
        for p, f, m, v in zip(self.perturbations, factors, multipliers, self.variables):
            columns = m.shape[2] if m.shape.rank == 3 else 1
            axes = (1,) * (len(v.shape) - 1) + (columns,) * (len(v.shape) > 0)
            m = tf.reshape(m, (draws, -1, *axes))
            noise = m * p.values(f)[:, None]
            values.append(tf.reshape(noise, (-1, *v.shape)))
        return values

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
        return self.weighted_moments(
            generation, weights, None, first_pair, draws_per_chunk
        )

    def weighted_moments(
        self, generation, weights, square_weights, first_pair=0, draws_per_chunk=8
    ):
        """Return sum_k w_k e_k, then sum_k v_k (e_k**2 - 1), for each weight.

        Args:
            generation: Integer scalar.
            weights: [pairs] tensor w.
            square_weights: [pairs] tensor v, or None to leave the second sums out.
            first_pair: Index of the first pair in `weights`.
            draws_per_chunk: Draws made in one turn of the loop, at most.
        """
        draws = weights.shape[0] // self.pairs_per_draw
        chunk = largest_divisor(draws, draws_per_chunk)
        count, g = draws // chunk, self.pairs_per_draw
        rows = [
            None if w is None else tf.reshape(w, (count, chunk * g))
            for w in (weights, square_weights)
        ]

        def body(i, sums):
            first, second = (None if w is None else w[i] for w in rows)
            start = first_pair // g + i * chunk
            terms = self._terms(generation, first, second, start, chunk)
            return i + 1, [s + t for s, t in zip(sums, terms)]

        moments = 1 if square_weights is None else 2
        zeros = [tf.zeros(p.shape) for p in self.perturbations] * moments
        loop = (tf.constant(0), zeros)
        return tf.while_loop(lambda i, _: i < count, body, loop)[1]

    def grouped_moments(self, groups, generation, weights, square_weights, first_pair):
        """Return the moments where each pair had noise on some of the weights alone.

        Those of a group of n_l of n draws are taken n / n_l times, as if all draws
        had spoken of its weights; they are 0 for weights without noise.

        Args:
            groups: List of `layer_groups.LayerGroup` of this noise.
            generation: Integer scalar.
            weights: See `weighted_moments`.
            square_weights: See `weighted_moments`.
            first_pair: See `weighted_moments`.
        """
        if len(groups) == 1:
            return groups[0].noise.weighted_moments(
                generation, weights, square_weights, first_pair
            )
        moments, g = 1 if square_weights is None else 2, self.pairs_per_draw
        found = [tf.zeros(p.shape) for p in self.perturbations] * moments
        for group in groups:
            pairs = slice(group.first_draw * g, (group.first_draw + group.draws) * g)
            first, square = (
                None if w is None else w[pairs] for w in (weights, square_weights)
            )
            own = group.noise.weighted_moments(
                generation, first, square, first_pair + pairs.start
            )
            factor = weights.shape[0] / (group.draws * g)
            found = [a + factor * b for a, b in zip(found, own)]
        return found

    def _terms(self, generation, weights, square_weights, first_draw, chunk):
        g = self.pairs_per_draw
        draws = first_draw + tf.range(chunk)

        def signed():
            signs = self._signs(generation, first_draw * g + tf.range(chunk * g))
            signed = [tf.reshape(weights[:, None] * d, (chunk, g, -1)) for d in signs]
            return [tf.reduce_sum(d, axis=1) for d in signed]

        by_column = [weights for _ in self.variables]
        if g > 1:
            by_column = philox.kept(signed, generation)
        positions = [philox.stream(key, generation, draws) for key in self._keys]
        terms = [
            p.weighted_sum(position, w)
            for p, position, w in zip(self.perturbations, positions, by_column)
        ]
        if square_weights is None:
            return terms
        # Signs of columns do not change squares.
        v = tf.reduce_sum(tf.reshape(square_weights, (chunk, g)), axis=1)
        return terms + [
            p.weighted_square(position, v)
            for p, position in zip(self.perturbations, positions)
        ]


def _perturbation(variable, rank, separable):
    entries = getattr(variable, "noise_entries", None)
    if entries is not None:
        return Entries(tuple(variable.shape), entries)
    return perturbation(variable.shape, rank, separable)
