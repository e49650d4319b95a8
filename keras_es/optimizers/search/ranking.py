"""Which members of a population are ranked together, and sums over their pairs."""

from keras import ops

from keras_es.distribution.collectives import (
    replica_count,
    replica_index,
    sum_over_replicas,
)
from keras_es.optimizers.search.weights import EvolvesWeights


class RankedPairs(EvolvesWeights):
    """Base of strategies that rank the members of a replica, or of all as one."""

    @property
    def ranked_together(self):
        """Whether the members of several replicas are one population."""
        return not self.semi_updates and replica_count() > 1

    @property
    def ranked_members(self):
        """Number of members that `search_gradient` is told the fitness of."""
        replicas = replica_count() if self.ranked_together else 1
        return self.population_size * replicas

    def own_pairs(self, values):
        """Return what belongs to this replica's pairs, of [ranked_members / 2, ...]."""
        if not self.ranked_together:
            return values
        first = replica_index() * self.pairs
        return values[first : first + self.pairs]

    def sum_over_pairs(self, term, copies=1):
        """Return the sum of `term(pair)`, a list of tensors, over the ranked pairs.

        The tensors are of the shapes of the scores, `copies` times all of them.

        Noise is drawn again for each pair, so memory does not grow with them. A
        replica computes the terms of its own pairs, 0 to `pairs` - 1; where all are
        ranked together, the sums of all replicas are added.
        """
        return self._over_ranked(lambda: self._sum_over_own_pairs(term, copies))

    def _over_ranked(self, sums_of_own):
        if not self.ranked_together:
            return sums_of_own()
        return sum_over_replicas(self.compiled(sums_of_own))

    def _sum_over_own_pairs(self, term, copies):
        if self.pairs == 1:
            return term(0)

        def body(pair, *sums):
            return (pair + 1, *(a + b for a, b in zip(sums, term(pair))))

        # From zero: the first term alone would be traced and compiled a second time.
        zeros = [ops.zeros(m.mask_scores.shape) for m in self.masked_weights] * copies
        sums = ops.while_loop(
            lambda pair, *_: pair < self.pairs, body, (ops.cast(0, "int32"), *zeros)
        )
        return list(sums[1:])
