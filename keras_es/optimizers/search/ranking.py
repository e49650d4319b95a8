"""Which members of a population are ranked together, and sums over their pairs."""

import contextlib
import contextvars

import tensorflow as tf

from keras_es.distribution.collectives import (
    mean_over_replicas,
    replica_count,
    replica_index,
    sum_over_replicas,
)

_compiled: contextvars.ContextVar = contextvars.ContextVar("compiled")


@contextlib.contextmanager
def sums_compiled_by(compiled):
    """Let sums over pairs be compiled, each by itself, before replicas add them up.

    XLA cannot compile collectives, so what holds one is traced piece by piece.

    Args:
        compiled: Function from a function of no arguments to its result.
    """
    token = _compiled.set(compiled)
    try:
        yield
    finally:
        _compiled.reset(token)


def over_replicas(strategy, compiled, fitness, valid, said):
    """Return what `strategy.estimate` makes of a generation, for all replicas.

    Each replica searches with its own members, and the mean of their estimates counts;
    or all are ranked together, and replicas add their sums.

    Args:
        strategy: The `MaskOptimizer`.
        compiled: Function from a function of no arguments to its result.
        fitness: See `MaskOptimizer.estimate`.
        valid: See there.
        said: See there.
    """

    def estimated():
        return strategy.estimate(fitness, valid, said)

    if strategy.ranked_together:
        with sums_compiled_by(compiled):
            return estimated()
    if not tf.distribute.has_strategy():
        return estimated()
    estimate = compiled(estimated)
    parts = mean_over_replicas(tf.nest.flatten(estimate))
    return tf.nest.pack_sequence_as(estimate, parts)


class Ranking:
    """The members of a replica, or of all replicas as one population.

    Args:
        strategy: The `EvolutionStrategy`.
    """

    def __init__(self, strategy):
        self.strategy = strategy

    @property
    def together(self):
        """Whether the members of several replicas are one population."""
        return self.strategy.ranked_together

    @property
    def members(self):
        """Number of members whose fitness is ranked together."""
        replicas = replica_count() if self.together else 1
        return self.strategy.population_size * replicas

    def own_pairs(self, values):
        """Return what belongs to this replica's pairs, of those ranked together."""
        if not self.together:
            return values
        pairs = self.strategy.pairs
        first = replica_index() * pairs
        return values[first : first + pairs]

    def over_all(self, sums_of_own):
        """Return sums over the ranked pairs, from a function to those of the own.

        Noise is drawn again for each pair, so memory does not grow with them. A
        replica computes the terms of its own pairs; where all are ranked together,
        the sums of all replicas are added.
        """
        if not self.together:
            return sums_of_own()
        compiled = _compiled.get(lambda function: function())
        return sum_over_replicas(compiled(sums_of_own))
