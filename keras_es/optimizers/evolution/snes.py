"""Separable natural evolution strategy over mask scores."""

import math

from keras import ops

from keras_es._arguments import Argument, optional, schedule
from keras_es.distribution.collectives import assign_all
from keras_es.ops import search
from keras_es.optimizers import arguments
from keras_es.optimizers.base import register
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.search.layer_noise import LayerNoise


@register
class SNES(LayerNoise, EvolutionStrategy):
    r"""Separable natural evolution strategy: a mean and a std for each coordinate.

    Coordinates are the scores of masks; with `inner_optimizer=None` all weights too.

    With utilities u_k of the ranked members and their noise z_k,

        mean <- mean + eta_mu * std * sum_k u_k z_k
        std  <- std * exp(eta_sigma / 2 * sum_k u_k (z_k**2 - 1)).

    Args:
        inner_optimizer: Optimizer of the weights, or None to evolve them (see
            `EvolutionStrategy`).
        population_size: Even integer, members of one generation; None for 8 (256).
        batch_mode: "split" or "full" (see `EvolutionStrategy`).
        fitness: None or a function (see `EvolutionStrategy`).
        fitness_shaping: Name or function; "nes" in the paper.
        sigma: Initial std of every score, in units of the initial scores, None for
            0.3; of weights 0.05, and their scores then get ten times that.
        mean_learning_rate: eta_mu or a schedule, None for 1, as in the paper, or where
            weights have an optimizer for min(1, 4/sqrt d). d is the number of units
            of the weight, or with `inner_optimizer=None` of all coordinates.
        std_learning_rate: eta_sigma, None for (3 + ln d)/(5 sqrt d), as in the paper;
            0 holds the std.
        noise, examples, turns, density, semi_updates: See `EvolutionStrategy`. Under
            noise on outputs, with g what it says of the gradient, s the slope of the
            utilities over the losses and n members, these weights move by what the sum
            above is on average,

                mean <- mean - eta_mu * s * n * std**2 * g,

            and their std stays as it is.
        seed: Integer seed of the noise.
        name: Name of the optimizer.

    Example:

    >>> SNES("adam", population_size=16).population_size
    16

    References:
        Schaul, Glasmachers, Schmidhuber 2011, High dimensions and heavy tails for
        natural evolution strategies.
    """

    separable = True

    fitness_shaping = Argument(
        arguments.fitness_shaping, "nes", serialize=arguments.serialize_shaping
    )
    mean_learning_rate = Argument(optional(schedule), None)
    std_learning_rate = Argument(optional(schedule), None)

    def check_arguments(self):
        """Refuse a schedule of sigma."""
        super().check_arguments()
        self.require_number("sigma", self.sigma)

    def build_search(self):
        """Create one std for each coordinate."""
        self._stds = self.add_searched("std", self.initial_stds())

    def scales(self):
        """Return the std of each coordinate."""
        return [std.value for std in self._stds]

    def search_gradient(self, fitness, valid, guidance):
        """Return sum_k u_k z_k, then sum_k u_k (z_k**2 - 1), for each variable."""
        utilities = self.utilities(fitness, valid)
        sums = self.noise_sums(utilities, utilities, self.groups(guidance))
        stds = self.scales()

        def expected(i, gradient):
            return search.expected_noise(gradient, self.ranked_members, stds[i])

        return self.put_outputs(sums, fitness, utilities, valid, guidance, expected)

    def update_masks(self, search_gradient, ok):
        """Apply the two updates of the paper."""
        count = len(self.searched)
        means, squares = search_gradient[:count], search_gradient[count:]
        centers, stds = [], []
        for variable, std, mean, square in zip(
            self.searched, self._stds, means, squares
        ):
            eta_mean, eta_std = self._learning_rates(variable)
            value = ops.cast(variable.value, "float32")
            centers.append(search.snes_mean_update(value, std.value, mean, eta_mean))
            stds.append((std, search.snes_std_update(std.value, square, eta_std)))
        assign_all(stds, ok)
        return centers

    def _learning_rates(self, variable):
        # One search over all weights; masks are searched one by one.
        dimension = self.space.size if self.pure else math.prod(variable.shape)
        eta_mean, eta_std = self.mean_learning_rate, self.std_learning_rate
        if eta_mean is None:
            few = search.snes_mean_learning_rate(dimension)
            eta_mean = 1.0 if self.pure else few
        if eta_std is None:
            eta_std = search.snes_std_learning_rate(dimension)
        return self.current(eta_mean), self.current(eta_std)
