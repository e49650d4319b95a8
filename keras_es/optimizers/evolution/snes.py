"""Separable natural evolution strategy over mask scores, or over all weights."""

from keras_es._arguments import Argument, optional, schedule
from keras_es.noise.options import Noise
from keras_es.ops import search
from keras_es.optimizers import arguments
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.registry import Tuned, register


@register("snes", Tuned("sigma", (0.1, 0.3, 1.0)))
class SNES(EvolutionStrategy):
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
        noise, turns, density, semi_updates, masked_out: See `EvolutionStrategy`. Under
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
    noises = (Noise,)

    fitness_shaping = Argument(
        arguments.fitness_shaping, "nes", serialize=arguments.serialize_shaping
    )
    mean_learning_rate = Argument(optional(schedule), None)
    std_learning_rate = Argument(optional(schedule), None)

    def check_arguments(self):
        """Refuse a schedule of sigma."""
        super().check_arguments()
        self.require_initial_sigma()

    def build_search(self):
        """Create one std for each coordinate."""
        self._stds = self.search.add("std", self.initial_stds())

    def scales(self):
        """Return the std of each coordinate."""
        return [std.value for std in self._stds]

    def estimate(self, fitness, valid, said):
        """Return sum_k u_k z_k and sum_k u_k (z_k**2 - 1), for each variable."""
        utilities = self.utilities(fitness, valid)
        sums, squares = self.search.noise_sums(utilities, utilities, said)
        stds = self.scales()

        def expected(i, gradient):
            return search.expected_noise(gradient, self.ranking.members, stds[i])

        sums = self.search.put_outputs(sums, fitness, utilities, valid, said, expected)
        return sums, squares

    def update(self, estimate, ok):
        """Apply the two updates of the paper."""
        centers, stds = [], []
        for variable, center, std, sum_, square in zip(
            self.search.variables, self.search.centers(), self._stds, *estimate
        ):
            d = self.search.dimension(variable)
            eta_mean, eta_std = self.mean_learning_rate, self.std_learning_rate
            if eta_mean is None:
                eta_mean = self.search.mean_rate(d)
            if eta_std is None:
                eta_std = search.snes_std_learning_rate(d)
            eta_mean, eta_std = self.current(eta_mean), self.current(eta_std)
            centers.append(search.snes_mean_update(center, std.value, sum_, eta_mean))
            stds.append((std, search.snes_std_update(std.value, square, eta_std)))
        return centers, stds
