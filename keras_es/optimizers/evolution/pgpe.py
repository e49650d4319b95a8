"""Policy gradients with parameter-based exploration over all weights."""

import math

from keras import ops

from keras_es._arguments import Argument, Refused, decay, optional, schedule
from keras_es.ops import pgpe
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.registry import register


@register("pgpe")
class PGPE(EvolutionStrategy):
    """Mirrored noise with a std for each weight; ClipUp moves the mean.

    g_mu = -(std/n) sum_k u_k z_k, and with the velocity v of all weights together

        v <- momentum v - alpha g_mu/|g_mu|,  |v| <= max_speed,  mean <- mean + v,
        std <- std + eta (std/n) sum_k u_k (z_k**2 - 1), by 20 % at most.

    Args:
        inner_optimizer: None: PGPE evolves the weights (see `EvolutionStrategy`).
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
        batch_mode, noise, turns, semi_updates: See `EvolutionStrategy`.

    Example:

    >>> PGPE(population_size=64).momentum
    0.9

    References:
        Sehnke et al. 2010, Parameter-exploring policy gradients.
        Toklu, Liskowski, Srivastava 2020, ClipUp, arXiv 2008.02387.
    """

    separable = True

    mask_search = None
    density = Refused("its masks are as sparse as wanted from the first generation")
    max_speed = Argument(optional(schedule), None, keyword=True)
    mean_learning_rate = Argument(optional(schedule), None, keyword=True)
    momentum = Argument(decay, 0.9, keyword=True)
    std_learning_rate = Argument(schedule, 0.1, keyword=True)

    def check_arguments(self):
        """Refuse a schedule of sigma."""
        super().check_arguments()
        self.require_initial_sigma()

    MAX_CHANGE = 0.2
    """Largest relative change of the std in a generation."""

    def build_search(self):
        """Create std and velocity of each weight."""
        self._stds = self.search.add("std", self.initial_stds())
        self._velocities = self.search.add("velocity")

    def scales(self):
        """Return the std of each coordinate."""
        return [std.value for std in self._stds]

    def speed_and_rate(self):
        """Return max_speed and alpha of this generation."""
        speed = self.max_speed
        if speed is None:
            squares = (
                f * f * math.prod(v.shape)
                for f, v in zip(self.search.factors, self.search.variables)
            )
            speed = self.sigma * math.sqrt(sum(squares)) / 15.0
        speed = self.current(speed)
        rate = self.mean_learning_rate
        return speed, 0.5 * speed if rate is None else self.current(rate)

    def estimate(self, fitness, valid, said):
        """Return the gradients of all means, and those of all stds."""
        utilities = self.utilities(fitness, valid)
        utilities = utilities - ops.mean(utilities)
        sums = self.search.noise_sums(utilities, utilities)
        gradients = [
            pgpe.pgpe_gradients(std.value, first, square, self.ranking.members)
            for std, first, square in zip(self._stds, *sums)
        ]
        return list(zip(*gradients))

    def update(self, estimate, ok):
        """Let ClipUp move the means, and the gradients the stds."""
        means, spreads = estimate
        speed, rate = self.speed_and_rate()
        old = [v.value for v in self._velocities]
        velocities = pgpe.clip_up(old, means, rate, self.momentum, speed)
        eta = self.current(self.std_learning_rate)
        stds = [
            pgpe.pgpe_std_update(std.value, gradient, eta, self.MAX_CHANGE)
            for std, gradient in zip(self._stds, spreads)
        ]
        state = [*zip(self._velocities, velocities), *zip(self._stds, stds)]
        means = [
            mean + ops.cast(velocity, mean.dtype)
            for mean, velocity in zip(self.search.centers(), velocities)
        ]
        return means, state
