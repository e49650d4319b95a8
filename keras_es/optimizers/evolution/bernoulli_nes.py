"""Natural evolution strategy over independent Bernoulli masks."""

from keras_es.ops import search
from keras_es.optimizers.base import register
from keras_es.optimizers.score_optimizer import BernoulliStrategy


@register
class BernoulliNES(BernoulliStrategy):
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

    def search_gradient(self, fitness, valid, guidance):
        """Return the mean over pairs for each weight."""
        utilities = self.utilities(fitness, valid)
        # As f(m+) - f(m-).
        differences = self.own_pairs(utilities[1::2] - utilities[0::2])
        probabilities = self.probabilities()
        scale = 2.0 / (self.ranked_members * self.temperature())

        def term(pair):
            return [
                differences[pair] * scale * search.antithetic_bernoulli(a, b, p)
                for (a, b), p in zip(self.pair_samples(pair), probabilities)
            ]

        return self.sum_over_pairs(term)
