"""OpenAI's evolution strategy over mask scores, or over all weights."""

import keras

from keras_es.noise.options import Noise
from keras_es.ops import search
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.registry import Tuned, register
from keras_es.optimizers.score_optimizer import (
    build_slots,
    descended,
    optimizer_argument,
    settle_optimizer,
    that_settles,
)


@register(
    "open_es",
    Tuned("score_rate", (0.02, 0.05, 0.12), "score_optimizer", "initial_learning_rate"),
)
class OpenES(EvolutionStrategy):
    """Mirrored Gaussian noise of one scale; an ordinary optimizer takes the step.

    g = -(1/(n sigma)) sum_k u_k eps_k, u the centred ranks of the losses.

    With `inner_optimizer=None` weights are evolved as well: `mean_optimizer` moves
    them, with its weight decay, clipping and schedules, and no gradient is taken.

    Args:
        inner_optimizer: Optimizer of the weights, or None to evolve them (see
            `EvolutionStrategy`).
        population_size: Even integer, members of one generation; None for 8 (256).
        batch_mode: "split" or "full" (see `EvolutionStrategy`).
        fitness: None or a function (see `EvolutionStrategy`).
        fitness_shaping: Name or function; "centered_rank" in the paper.
        sigma: Scale of the noise or a schedule; None for 0.3, of weights 0.05.
        score_optimizer: Keras optimizer of the scores; None for Adam at 0.003.
        mean_optimizer: With `inner_optimizer=None`, Keras optimizer of the weights;
            None for Adam at 0.01.
        noise, turns, density, semi_updates, masked_out: See `EvolutionStrategy`.
        seed: Integer seed of the noise.
        name: Name of the optimizer.

    Example:

    >>> OpenES("adam", sigma=0.3).sigma
    0.3
    >>> OpenES(None, noise=keras_es.noise.LowRank(1)).population_size
    256

    References:
        Salimans et al. 2017, Evolution strategies as a scalable alternative to
        reinforcement learning, arXiv 1703.03864.
    """

    noises = (Noise,)
    default_score_learning_rate = 0.003
    default_mean_learning_rate = 0.01

    score_optimizer = optimizer_argument()
    mean_optimizer = optimizer_argument(keyword=True)

    def check_arguments(self):
        """Make the optimizers of scores and weights."""
        super().check_arguments()
        rates = {
            "score_optimizer": self.default_score_learning_rate,
            "mean_optimizer": self.default_mean_learning_rate,
        }
        self.search.refuse_optimizers(rates)
        for name in self.search.optimizers:
            settle_optimizer(self, name, rates[name])

    @classmethod
    def settle(cls, run):
        """Let a search that losses alone can finish end before the run does."""
        arguments = super().settle(run)
        if not (run.dense or run.few):
            rate = 3.0 * cls.default_score_learning_rate
            scores = that_settles(rate, run.generations)
            return {**arguments, "score_optimizer": scores}
        sigma = (0.5 if run.few else 1.0) if run.dense else 2.0
        falling = keras.optimizers.schedules.PolynomialDecay(sigma, run.searched, 0.0)
        scores = that_settles(0.05, run.searched)
        return {**arguments, "sigma": falling, "score_optimizer": scores}

    @staticmethod
    def small_search(population_size, sigma):
        """Return arguments for a search in few dimensions: larger steps too."""
        adam = keras.optimizers.Adam(0.2 * sigma)
        common = EvolutionStrategy.small_search(population_size, sigma)
        return {**common, "mean_optimizer": adam}

    def held_optimizers(self):
        """Return the optimizers of the scores and, where it has one, of the mean."""
        return [getattr(self, name) for name in self.search.optimizers]

    def build_search(self):
        """Build the optimizers of scores and weights."""
        for name, variables in self.search.optimizers.items():
            build_slots(getattr(self, name), variables())

    def estimate(self, fitness, valid, said):
        """Return the search gradient g for each searched variable."""
        utilities = self.utilities(fitness, valid)
        sums = self.search.noise_sums(utilities, said=said)
        gradients = [
            search.gaussian(s, self.ranking.members, sigma)
            for s, sigma in zip(sums, self.scales())
        ]
        return self.search.put_outputs(gradients, fitness, utilities, valid, said)

    def update(self, estimate, ok):
        """Descend the search gradient."""
        gradients = {id(v): g for v, g in zip(self.search.variables, estimate)}
        for name, variables in self.search.optimizers.items():
            own = [gradients[id(v)] for v in variables()]
            descended(getattr(self, name), own, variables(), ok)
        return [v.value for v in self.search.variables] or None, []
