"""OpenAI's evolution strategy over mask scores."""

from keras_es.ops import search
from keras_es.optimizers.base import register
from keras_es.optimizers.score_gradient import ScoreGradientStrategy


@register
class OpenES(ScoreGradientStrategy):
    """Mirrored Gaussian noise of one scale; an ordinary optimizer takes the step.

    g = -(1/(n sigma)) sum_k u_k eps_k, u the centred ranks of the losses.

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`).
        population_size: Even integer, members in one step.
        batch_mode: "split" or "full" (see `EvolutionStrategy`).
        fitness: None or a function (see `EvolutionStrategy`).
        fitness_shaping: Name or function; "centered_rank" in the paper.
        sigma: Scale of the noise or a schedule.
        score_optimizer: Keras optimizer of the scores; None for Adam at 0.003.
        seed: Integer seed of the noise.
        name: Name of the optimizer.

    Example:

    >>> OpenES("adam", sigma=0.3).sigma
    0.3

    References:
        Salimans et al. 2017, Evolution strategies as a scalable alternative to
        reinforcement learning, arXiv 1703.03864.
    """

    def search_gradient(self, fitness, valid, guidance):
        """Return g for each weight."""
        sums = self.signed_noise_sums(self.utilities(fitness, valid))
        sigma = self.current(self.sigma)
        return [search.gaussian(s, self.ranked_members, sigma) for s in sums]
