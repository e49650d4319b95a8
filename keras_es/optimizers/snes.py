"""Separable natural evolution strategy over mask scores."""

import keras
from keras import ops

from keras_es.distribution import assign_all
from keras_es.ops import search
from keras_es.optimizers.base import register
from keras_es.optimizers.evolution import (
    EvolutionStrategy,
    check_schedule,
    serialize_schedule,
)


@register
class SNES(EvolutionStrategy):
    r"""Separable natural evolution strategy: a mean and a std for each score.

    With utilities u_k of the ranked members and their noise z_k,

        mean <- mean + eta_mu * std * sum_k u_k z_k
        std  <- std * exp(eta_sigma / 2 * sum_k u_k (z_k**2 - 1)).

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`).
        population_size: Even integer, members in one step.
        batch_mode: "split" or "full" (see `EvolutionStrategy`).
        fitness: None or a function (see `EvolutionStrategy`).
        fitness_shaping: Name or function; "nes" in the paper.
        sigma: Initial std of every score, in units of the initial scores.
        mean_learning_rate: eta_mu or a schedule, None for min(1, 4/sqrt d) with d the
            number of units of the weight; 1 in the paper, where d is small.
        std_learning_rate: eta_sigma, None for (3 + ln d)/(5 sqrt d) with d the
            number of units of the weight, as in the paper; 0 holds the std.
        seed: Integer seed of the noise.
        name: Name of the optimizer.

    Example:

    >>> SNES("adam", population_size=16).population_size
    16

    References:
        Schaul, Glasmachers, Schmidhuber 2011, High dimensions and heavy tails for
        natural evolution strategies.
    """

    def __init__(
        self,
        inner_optimizer,
        population_size=8,
        batch_mode="split",
        fitness=None,
        fitness_shaping="nes",
        sigma=0.3,
        mean_learning_rate=None,
        std_learning_rate=None,
        *,
        seed=0,
        name=None,
        **kwargs,
    ):
        super().__init__(
            inner_optimizer, population_size, batch_mode, fitness, fitness_shaping,
            sigma, seed=seed, name=name, **kwargs,
        )  # fmt: skip
        if not isinstance(self.sigma, float) or self.sigma == 0:
            raise ValueError(
                "`sigma` of SNES is the initial std, which then adapts itself: it "
                f"must be a number above 0. Received: sigma={sigma!r}"
            )
        self.mean_learning_rate = _optional("mean_learning_rate", mean_learning_rate)
        self.std_learning_rate = _optional("std_learning_rate", std_learning_rate)

    def build_search(self):
        """Create one std for each score."""
        self._stds = [
            self.add_variable(
                tuple(m.mask_scores.shape),
                initializer=keras.initializers.Constant(self.sigma),
                dtype="float32",
                name=f"std_{i}",
                aggregation="only_first_replica",
            )
            for i, m in enumerate(self.masked_weights)
        ]

    def scales(self):
        """Return the std of each score."""
        return [std.value for std in self._stds]

    def search_gradient(self, fitness, valid, guidance):
        """Return sum_k u_k z_k, then sum_k u_k (z_k**2 - 1), for each weight."""
        utilities = self.utilities(fitness, valid)
        differences = self.own_pairs(utilities[0::2] - utilities[1::2])
        sums = self.own_pairs(utilities[0::2] + utilities[1::2])

        def term(pair):
            noises = self.noise(pair)
            first = [differences[pair] * z for z in noises]
            return first + [sums[pair] * (ops.square(z) - 1.0) for z in noises]

        return self.sum_over_pairs(term)

    def update_masks(self, search_gradient, ok):
        """Apply the two updates of the paper."""
        count = len(self.masked_weights)
        means, squares = search_gradient[:count], search_gradient[count:]
        scores, stds = [], []
        for masked, std, mean, square in zip(
            self.masked_weights, self._stds, means, squares
        ):
            eta_mean, eta_std = self._learning_rates(masked.units)
            value = masked.mask_scores.value
            scores.append(search.snes_mean_update(value, std.value, mean, eta_mean))
            new_std = search.snes_std_update(std.value, square, eta_std)
            stds.append((std, ops.where(ok, new_std, std.value)))
        assign_all(stds)
        return scores

    def _learning_rates(self, dimension):
        eta_mean, eta_std = self.mean_learning_rate, self.std_learning_rate
        if eta_mean is None:
            eta_mean = search.snes_mean_learning_rate(dimension)
        if eta_std is None:
            eta_std = search.snes_std_learning_rate(dimension)
        return self.current(eta_mean), self.current(eta_std)

    def get_config(self):
        """Return the arguments of the constructor."""
        rates = {
            name: value if value is None else serialize_schedule(value)
            for name, value in (
                ("mean_learning_rate", self.mean_learning_rate),
                ("std_learning_rate", self.std_learning_rate),
            )
        }
        return {**super().get_config(), **rates}


def _optional(name, value):
    return None if value is None else check_schedule(name, value)
