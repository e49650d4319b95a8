"""OpenAI's evolution strategy over mask scores, or over all weights."""

import keras

from keras_es import _compat
from keras_es._arguments import Argument, optional
from keras_es.ops import search
from keras_es.optimizers import arguments
from keras_es.optimizers.base import register
from keras_es.optimizers.guarded import guarded_apply
from keras_es.optimizers.score_optimizer import ScoreGradientStrategy
from keras_es.optimizers.search.layer_noise import LayerNoise
from keras_es.optimizers.search.weights import as_gradients


@register
class OpenES(LayerNoise, ScoreGradientStrategy):
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
        noise, examples, turns, density, semi_updates: See `EvolutionStrategy`.
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

    evolves_weights = True
    default_mean_learning_rate = 0.01

    mean_optimizer = Argument(optional(arguments.keras_optimizer), None, keyword=True)

    def check_arguments(self):
        """Make the optimizer of the weights, and refuse it where they have one."""
        super().check_arguments()
        if not self.pure:
            return self.refuse_in_hybrid({"mean_optimizer": self.mean_optimizer})
        if self.mean_optimizer is None:
            self.mean_optimizer = keras.optimizers.Adam(self.default_mean_learning_rate)
        self.refuse_shared("mean_optimizer", self.mean_optimizer)

    @staticmethod
    def small_search(population_size, sigma):
        """Return arguments for a search in few dimensions: larger steps too."""
        adam = keras.optimizers.Adam(0.2 * sigma)
        common = ScoreGradientStrategy.small_search(population_size, sigma)
        return {**common, "mean_optimizer": adam}

    def build_search(self):
        """Build the optimizers of scores and weights."""
        super().build_search()
        if self.pure:
            _compat.record_slots(self.mean_optimizer, self.space.weights)

    @property
    def weights_optimizer(self):
        """The Keras optimizer that moves weights."""
        return self.mean_optimizer if self.pure else self.inner_optimizer

    @property
    def variables(self):
        """Own variables, then those of the optimizers of weights and scores."""
        more = self.mean_optimizer.variables if self.pure else []
        return super().variables + more

    def search_gradient(self, fitness, valid, guidance):
        """Return g for each searched variable."""
        utilities = self.utilities(fitness, valid)
        sums = self.noise_sums(utilities, groups=self.groups(guidance))
        gradients = [
            search.gaussian(s, self.ranked_members, sigma)
            for s, sigma in zip(sums, self.scales())
        ]
        return self.put_outputs(gradients, fitness, utilities, valid, guidance)

    def update_masks(self, search_gradient, ok):
        """Descend the search gradient."""
        if not self.pure:
            return super().update_masks(search_gradient, ok)
        weights = self.space.weights
        count = len(weights)
        scores = super().update_masks(search_gradient[count:], ok) or []
        gradients = as_gradients(search_gradient[:count])
        guarded_apply(self.mean_optimizer, gradients, weights, {}, ok)
        return [w.value for w in weights] + scores
