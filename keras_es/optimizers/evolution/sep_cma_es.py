"""Sep-CMA-ES over all weights."""

import keras
from keras import ops

from keras_es._arguments import Argument, Refused, integer, optional, positive
from keras_es.distribution.collectives import replica_count
from keras_es.ops import fitness as shaping
from keras_es.ops import sep_cma_es
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.registry import register


@register("sep_cma_es")
class SepCMAES(EvolutionStrategy):
    """Covariance matrix adaptation with a diagonal matrix: N(mean, sigma**2 diag C).

    The update is `keras_es.ops.sep_cma_es.update`: the better half of the members,
    weighted by rank, moves the mean; evolution paths adapt sigma and C. Members are
    independent, for mirrored ones would shorten the paths.

    Args:
        inner_optimizer: None: Sep-CMA-ES evolves the weights (see `EvolutionStrategy`).
        population_size: Integer n >= 4, members of one generation.
        fitness: None or a function (see `EvolutionStrategy`).
        sigma: Initial sigma of the weights; scores of masks get ten times that.
        rate_scale: Factor of the learning rates of the covariance, None for (d + 2)/3
            as in the paper; 1 gives those of the full matrix.
        seed: Integer seed of the noise.
        name: Name of the optimizer.
        batch_mode, noise, turns, semi_updates: See `EvolutionStrategy`.

    Example:

    >>> SepCMAES(population_size=33).population_size
    33

    References:
        Ros, Hansen 2008, A simple modification in CMA-ES achieving linear time and
        space complexity.
    """

    mirrored = False
    separable = True
    by_rank = True

    mask_search = None
    population_size = Argument(optional(integer(4)), None)
    fitness_shaping = Refused("it weights ranks as the paper has it")
    density = Refused("its masks are as sparse as wanted from the first generation")
    rate_scale = Argument(optional(positive), None, keyword=True)

    def check_arguments(self):
        """Refuse a schedule of sigma."""
        super().check_arguments()
        self.require_initial_sigma()

    def build_search(self):
        """Create sigma, variances and paths."""
        self._sigma = self.add_variable(
            (),
            initializer=keras.initializers.Constant(self.sigma),
            dtype="float32",
            name="sigma",
            aggregation="only_first_replica",
        )
        squares = [f * f for f in self.search.factors]
        self._variances = self.search.add("variance", squares)
        self._sigma_paths = self.search.add("sigma_path")
        self._covariance_paths = self.search.add("covariance_path")

    def scales(self):
        """Return sigma * sqrt(C) of each coordinate."""
        return [self._sigma.value * ops.sqrt(v.value) for v in self._variances]

    def utilities(self, fitness, valid):
        """Return the weights of the better half."""
        known = ops.where(valid, fitness, float("inf"))
        weights = shaping.recombination(known)
        return ops.where(ops.any(valid), weights, ops.zeros_like(weights))

    def estimate(self, fitness, valid, said):
        """Return sum_k w_k z_k and sum_k w_k (z_k**2 - 1), for each variable."""
        weights = self.utilities(fitness, valid)
        return self.search.noise_sums(weights, weights)

    def coefficients(self):
        """Return the constants of the update."""
        averaged = 1 if self.ranked_together else replica_count()
        return sep_cma_es.coefficients(
            self.ranking.members, self.search.space.size, self.rate_scale, averaged
        )

    def update(self, estimate, ok):
        """Move mean, sigma, variances and paths."""
        groups = (self._variances, self._sigma_paths, self._covariance_paths)
        values = [[v.value for v in group] for group in groups]
        state = sep_cma_es.State(self.search.centers(), self._sigma.value, *values)
        new = sep_cma_es.update(
            state, *estimate, self.generation.value, self.coefficients()
        )
        changes = [(self._sigma, new.sigma)]
        parts = (new.variances, new.sigma_paths, new.covariance_paths)
        for group, part in zip(groups, parts):
            changes += zip(group, part)
        return new.means, changes
