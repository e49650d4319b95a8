"""Policy gradients with parameter-based exploration over all weights."""

import math

from keras import ops

from keras_es._arguments import Argument, Refused, decay, optional, schedule
from keras_es.distribution.collectives import assign_all
from keras_es.ops import pgpe
from keras_es.optimizers import arguments
from keras_es.optimizers.base import register
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.search.weights import center_of


@register
class PGPE(EvolutionStrategy):
    """Mirrored noise with a std for each weight; ClipUp moves the mean.

    g_mu = -(std/n) sum_k u_k z_k, and with the velocity v of all weights together

        v <- momentum v - alpha g_mu/|g_mu|,  |v| <= max_speed,  mean <- mean + v,
        std <- std + eta (std/n) sum_k u_k (z_k**2 - 1), by 20 % at most.

    Args:
        inner_optimizer: None: PGPE evolves the weights (see `EvolvesWeights`).
        population_size: Even integer, members of one generation.
        fitness: None or a function (see `EvolutionStrategy`).
        fitness_shaping: Name or function, see `keras_es.ops.fitness`.
        sigma: Initial std of the weights; scores of masks get ten times that.
        max_speed: Largest |v| or a schedule, None for sigma sqrt(d)/15: the radius of
            the first population over 15, as the paper has it.
        mean_learning_rate: alpha or a schedule, None for max_speed/2.
        momentum: In [0, 1).
        std_learning_rate: eta or a schedule; 0 holds the std.
        seed: Integer seed of the noise.
        name: Name of the optimizer.
        batch_mode, noise, examples, turns, semi_updates: See `EvolutionStrategy`.

    Example:

    >>> PGPE(population_size=64).momentum
    0.9

    References:
        Sehnke et al. 2010, Parameter-exploring policy gradients.
        Toklu, Liskowski, Srivastava 2020, ClipUp, arXiv 2008.02387.
    """

    separable = True
    needs_none = True

    inner_optimizer = Argument(arguments.no_optimizer, None)
    density = Refused("its masks are as sparse as wanted from the first generation")
    max_speed = Argument(optional(schedule), None, keyword=True)
    mean_learning_rate = Argument(optional(schedule), None, keyword=True)
    momentum = Argument(decay, 0.9, keyword=True)
    std_learning_rate = Argument(schedule, 0.1, keyword=True)

    def check_arguments(self):
        """Refuse a schedule of sigma."""
        super().check_arguments()
        self.require_number("sigma", self.sigma)

    MAX_CHANGE = 0.2
    """Largest relative change of the std in a generation."""

    def build_search(self):
        """Create std and velocity of each weight."""
        self._stds = self.add_searched("std", self.initial_stds())
        self._velocities = self.add_searched("velocity")

    def scales(self):
        """Return the std of each coordinate."""
        return [std.value for std in self._stds]

    def speed_and_rate(self):
        """Return max_speed and alpha of this generation."""
        speed = self.max_speed
        if speed is None:
            squares = (
                f * f * math.prod(v.shape)
                for f, v in zip(self.scale_factors, self.searched)
            )
            speed = self.sigma * math.sqrt(sum(squares)) / 15.0
        speed = self.current(speed)
        rate = self.mean_learning_rate
        return speed, 0.5 * speed if rate is None else self.current(rate)

    def search_gradient(self, fitness, valid, guidance):
        """Return the gradients of all means, then of all stds."""
        utilities = self.utilities(fitness, valid)
        utilities = utilities - ops.mean(utilities)
        sums = self.noise_sums(utilities, utilities)
        count = len(self.searched)
        gradients = [
            pgpe.pgpe_gradients(std.value, first, square, self.ranked_members)
            for std, first, square in zip(self._stds, sums[:count], sums[count:])
        ]
        return [g[0] for g in gradients] + [g[1] for g in gradients]

    def update_masks(self, search_gradient, ok):
        """Return the new means of what is searched."""
        count = len(self.searched)
        speed, rate = self.speed_and_rate()
        velocities = pgpe.clip_up(
            [v.value for v in self._velocities],
            search_gradient[:count], rate, self.momentum, speed,
        )  # fmt: skip
        eta = self.current(self.std_learning_rate)
        stds = [
            pgpe.pgpe_std_update(std.value, gradient, eta, self.MAX_CHANGE)
            for std, gradient in zip(self._stds, search_gradient[count:])
        ]
        state = [*zip(self._velocities, velocities), *zip(self._stds, stds)]
        assign_all(state, ok)
        return [m + v for m, v in zip(center_of(self.searched), velocities)]
