"""A genetic algorithm over all weights whose genomes are lists of seeds."""

import tensorflow as tf
from keras import ops

from keras_es._arguments import Argument, Refused, integer, optional, schedule
from keras_es.distribution.collectives import replica_count
from keras_es.noise.options import Active, Full, LowRank
from keras_es.ops import genetic, noise, philox
from keras_es.optimizers import arguments
from keras_es.optimizers.arguments import value_at
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.registry import register
from keras_es.optimizers.search.space import full_dtype
from keras_es.optimizers.search.weights import ValueSearch

WINDOW = 256
"""Genes that a genome can hold before its oldest must be common to all parents."""


@register("genetic_algorithm")
class GeneticAlgorithm(EvolutionStrategy):
    """Truncation selection, Gaussian mutation, no crossover, an elite.

    The T best members of a generation are the parents of the next; a child is a parent
    drawn at random plus sigma * N(0, 1). A genome is the list of the seeds of its
    mutations, one integer for each generation: weights are decoded from it when they
    are needed. Mutations that all parents have in common are added to one set of
    weights, their last common ancestor, so that the rest of a list stays about 2 T
    long. (Weights that are set from outside while it trains are overwritten.)

    The first `elite_candidates` parents live on unchanged and are evaluated again on
    the next batch; the one with the lowest mean of both losses is the elite. Its
    weights are those of the model.

    Args:
        inner_optimizer: None: the weights are evolved (see `EvolutionStrategy`).
        population_size: Integer n > elite_candidates, members of one generation.
        sigma: Mutation power or a schedule of the generation, for weights; scores of
            masks get ten times that.
        parents: T, in [elite_candidates, n].
        elite_candidates: C >= 1, members that are evaluated twice.
        fitness: None or a function (see `EvolutionStrategy`).
        semi_updates: With several replicas, each evaluates n members of its own. True:
            the best by their ranks on their own examples survive; False: by losses.
        seed: Integer seed of the noise.
        name: Name of the optimizer.
        noise: None, `Full()`, `LowRank(r)` or `Active()`.
        batch_mode, turns: See `EvolutionStrategy`.

    Example:

    >>> GeneticAlgorithm(population_size=100).parents
    20

    References:
        Such, Madhavan, Conti, Lehman, Stanley, Clune 2017, Deep neuroevolution, arXiv
        1712.06567 (1,000 members, T = 20, sigma 0.002, ten candidates).
    """

    mask_search, weight_search = None, ValueSearch
    mirrored = False
    # Genomes are decoded in both; as one program XLA compiles them for minutes.
    compiled_together = False

    population_size = Argument(integer(2), 256)
    sigma = Argument(schedule, 0.01)
    parents = Argument(integer(1), 20)
    elite_candidates = Argument(integer(1), 10)
    batch_mode = Argument(optional(arguments.batch_mode), None, keyword=True)
    fitness_shaping = Refused("the best members survive, whatever their losses are")
    density = Refused("its masks are as sparse as wanted from the first generation")
    noises = (Full, LowRank, Active)

    def check_arguments(self):
        """Refuse more parents than members, or candidates than parents."""
        super().check_arguments()
        integer(self.elite_candidates)("parents", self.parents)
        integer(self.parents)("population_size", self.population_size)
        if self.noise is not None and self.noise.pairs_per_draw > 1:
            raise ValueError(
                "Each mutation of GeneticAlgorithm is a draw of its own: "
                f"`pairs_per_draw` must be 1. Received: noise={self.noise!r}"
            )

    @staticmethod
    def small_search(population_size, sigma):
        """Return arguments for a search in few dimensions: more members."""
        return {
            "population_size": 4 * population_size, "sigma": 0.2 * sigma,
            "parents": population_size, "elite_candidates": 2,
        }  # fmt: skip

    @property
    def ranked_together(self):
        """Whether there are several replicas: they always share one population."""
        return replica_count() > 1

    def build_search(self):
        """Create the genomes and the weights of their last common ancestor."""
        once = {"aggregation": "only_first_replica"}
        self._genes = self.add_variable(
            (self.parents, WINDOW), dtype="int32", name="genes", **once
        )
        self._length = self.add_variable((), dtype="int32", name="length", **once)
        self._losses = self.add_variable(
            (self.elite_candidates,), dtype="float32", name="candidate_losses", **once
        )
        self._ancestors = [
            self.add_variable(
                tuple(v.shape),
                initializer=lambda shape, dtype, v=v: ops.cast(v.value, dtype),
                dtype=full_dtype(v),
                name=f"ancestor_{i}",
                **once,
            )
            for i, v in enumerate(self.search.variables)
        ]

    def scales(self, generation=None):
        """Return the mutation power of each variable in a generation."""
        now = self.generation.value if generation is None else generation
        sigma = value_at(self.sigma, now)
        return [sigma * factor for factor in self.search.factors]

    # From genomes to weights.

    def mutations(self, generation, genes):
        """Return sigma * noise for each variable, [k, *shape]; 0 where a gene is -1."""
        indices = ops.maximum(genes, 0)
        factors, _ = self.search.weight_noise.draw(
            generation, indices, self.scales(generation)
        )
        changes = []
        for variable, p, parts in zip(
            self.search.variables, self.search.weight_noise.perturbations, factors
        ):
            shape = (-1, *(1,) * len(variable.shape))
            mutated = ops.reshape(ops.cast(genes >= 0, "float32"), shape)
            changes.append(mutated * p.values(parts))
        return changes

    def parent_values(self):
        """Return the weights of all parents, [T, *shape] for each variable."""
        start = [
            tf.tile(a.value[None], (self.parents, *(1,) * len(a.shape)))
            for a in self._ancestors
        ]
        genes, newest = self._genes.value, self.generation.value - 1

        def body(i, values):
            born = newest - tf.cast(i, newest.dtype)
            changes = self.mutations(born, tf.gather(genes, i, axis=1))
            return i + 1, [v + ops.cast(c, v.dtype) for v, c in zip(values, changes)]

        length = self._length.value
        # The oldest mutation first, as the ancestor took them on.
        return tf.while_loop(
            lambda i, _: i < length,
            lambda i, values: (i + 1, body(length - 1 - i, values)[1]),
            (tf.constant(0), start),
        )[1]

    def family(self, indices):
        """Return parent and gene of members: candidates first, unchanged."""
        n = self.population_size * replica_count()
        key = noise.stream_key(self.seed, "parents")
        generation = self.generation.value

        def draw():
            uniform = noise.uniform((n,), noise.counter_seed(key, generation, 0))
            return tf.cast(uniform * self.parents, tf.int32)

        drawn = philox.kept(draw, generation)
        everyone = tf.range(n)
        lives_on = everyone < self.elite_candidates
        parents = tf.where(lives_on, everyone, drawn)
        genes = tf.where(lives_on, -1, everyone)
        return tf.gather(parents, indices), tf.gather(genes, indices)

    def children(self, parents, indices):
        """Return the values of members, [k, *shape] for each variable."""
        rows, genes = self.family(indices)
        changes = self.mutations(self.generation.value, genes)
        return [
            tf.gather(p, rows) + ops.cast(c, p.dtype) for p, c in zip(parents, changes)
        ]

    def member_values(self):
        """Return a function from indices to the values of these members."""
        parents = self.parent_values()
        return lambda indices: self.children(parents, indices)

    # Selection.

    def estimate(self, fitness, valid, said):
        """Return the losses of all members, or their ranks on each replica."""
        fitness = ops.where(valid, fitness, float("inf"))
        if self.semi_updates and replica_count() > 1:
            ranks = genetic.relative_ranks(fitness, replica_count())
            fitness = ops.where(valid, ranks, float("inf"))
        return fitness

    def update(self, estimate, ok):
        """Choose elite and parents; the center is the elite."""
        fitness = estimate
        candidates = fitness[: self.elite_candidates]
        elite = ops.cast(ops.argmin(self._losses.value + candidates), "int32")
        chosen = genetic.select(fitness, elite, self.parents)
        rows, mutations = self.family(chosen)
        genes = genetic.inherit(self._genes.value, rows, mutations)
        length = self._length.value + 1
        full = ops.equal(length, WINDOW)
        genes = ops.where(full, genetic.one_lineage(genes, length), genes)
        # The ancestor grows by what all have in common; the elite is a candidate, which
        # is a parent of this generation, unchanged.
        values = [v[elite] for v in self.parent_values()]
        ancestors, kept = self._common(genes, length)
        losses = ops.take(fitness, chosen[: self.elite_candidates])
        state = [
            (self._genes, genes),
            (self._length, kept),
            (self._losses, losses),
            *zip(self._ancestors, ancestors),
        ]
        return values, state

    def _common(self, genes, length):
        """Add the oldest genes that all share to the ancestor, and count the rest."""
        generation = self.generation.value

        def shared(length, _):
            column = tf.gather(genes, tf.maximum(length - 1, 0), axis=1)
            return tf.logical_and(length > 0, tf.reduce_all(column == column[0]))

        def body(length, values):
            born = generation - tf.cast(length - 1, generation.dtype)
            changes = self.mutations(born, tf.gather(genes[:1], length - 1, axis=1))
            changes = [ops.cast(c[0], v.dtype) for v, c in zip(values, changes)]
            return length - 1, [v + c for v, c in zip(values, changes)]

        start = [tf.convert_to_tensor(a.value) for a in self._ancestors]
        length, values = tf.while_loop(shared, body, (length, start))
        return values, length
