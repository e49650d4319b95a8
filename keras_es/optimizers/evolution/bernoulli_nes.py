"""Natural evolution strategy over independent Bernoulli masks."""

from keras_es._arguments import Refused
from keras_es.ops import search
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.registry import Tuned, register
from keras_es.optimizers.score_optimizer import (
    build_slots,
    descended,
    optimizer_argument,
    settle_optimizer,
)
from keras_es.optimizers.search.bernoulli import BernoulliSearch, settled_bernoulli


@register(
    "bernoulli_nes",
    Tuned(
        "score_rate", (0.003, 0.01, 0.03), "score_optimizer", "initial_learning_rate"
    ),
)
class BernoulliNES(EvolutionStrategy):
    """Masks m ~ Bernoulli(p), p = sigmoid((scores - tau)/T), of lower variance.

    With antithetic pairs m+ = [u < p], m- = [1 - u < p],

        grad E f = E[(f(m+) - f(m-))/2 * (m+ - m-) * max(p, 1 - p)] / T,

    with utilities in place of -f. While training, the number of non-zeros of a
    member is random with the wanted mean; the deployed mask is exact. With all
    weight on the best member (`fitness_shaping="best_only"`) this is PBIL.

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`).
        population_size: Even integer, members in one step.
        batch_mode: "split" or "full" (see `EvolutionStrategy`).
        fitness: None or a function (see `EvolutionStrategy`).
        fitness_shaping: Name or function; "raw" makes the estimate unbiased.
        sigma: Temperature T > 0 or a schedule.
        score_optimizer: Keras optimizer of the scores; None for Adam at 0.003.
        seed: Integer seed of the noise.
        name: Name of the optimizer.

    Example:

    >>> BernoulliNES("adam", fitness_shaping="best_only").population_size
    8

    References:
        Dong, Mnih, Tucker 2020, arXiv 2006.10680 (the antithetic estimate);
        Baluja 1994 (PBIL).
    """

    default_score_learning_rate = 0.003
    mask_search, weight_search = BernoulliSearch, None
    noise = Refused("its members are Bernoulli masks, drawn by their probabilities")
    score_optimizer = optimizer_argument()

    def check_arguments(self):
        """Make the optimizer of the scores."""
        super().check_arguments()
        settle_optimizer(self, "score_optimizer", self.default_score_learning_rate)

    @classmethod
    def settle(cls, run):
        """Let scores settle, and temperatures fall, before the run ends."""
        return {**super().settle(run), **settled_bernoulli(cls, run)}

    def held_optimizers(self):
        """Return the optimizer of the scores."""
        return [self.score_optimizer]

    def build_search(self):
        """Build the optimizer of the scores."""
        build_slots(self.score_optimizer, self.search.variables)

    def estimate(self, fitness, valid, said):
        """Return the search gradient, the mean over pairs, for each weight."""
        utilities = self.utilities(fitness, valid)
        # As f(m+) - f(m-).
        differences = self.ranking.own_pairs(utilities[1::2] - utilities[0::2])
        probabilities = self.search.probabilities()
        scale = 2.0 / (self.ranking.members * self.search.temperature())

        def term(pair):
            samples = zip(self.search.pair_samples(pair), probabilities)
            return [
                differences[pair] * scale * search.antithetic_bernoulli(a, b, p)
                for (a, b), p in samples
            ]

        return self.search.sum_over_pairs(term)

    def update(self, estimate, ok):
        """Descend the search gradient."""
        scores = self.search.variables
        new = descended(self.score_optimizer, estimate, scores, ok)
        return new or None, []
