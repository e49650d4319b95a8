"""OpenAI's evolution strategy over mask scores, or over all weights."""

import keras
from keras import ops

from keras_es import _compat
from keras_es.ops import search
from keras_es.optimizers.arguments import check_schedule, serialize_schedule
from keras_es.optimizers.base import register
from keras_es.optimizers.evolved import as_gradients
from keras_es.optimizers.guarded import guarded_apply
from keras_es.optimizers.score_gradient import ScoreGradientStrategy
from keras_es.output_noise import OutputNoise


@register
class OpenES(ScoreGradientStrategy):
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
        output_sigma: With `inner_optimizer=None`, None, or a number or a schedule of
            the generation: scale of noise on the outputs x W of dense layers and
            convolutions with at least four times as many weights for an output as
            positions where it is computed (a dense layer has one). Their kernels and
            biases have none then and move by

                dc/dy ~ sum_k (c_k+ - c_k-) delta_k / (2 K sigma),    dc/dW = x^T dc/dy

            with the part c of the fitness that hangs on one example, random signs
            delta for each example and output, K pairs, and x of the mean: unknown are
            then a few outputs instead of all weights, so far fewer evaluations do. The
            rest has noise of `sigma`. An example's part is taken to depend on its own
            outputs alone, so not for models whose examples see each other in training
            (BatchNormalization), nor where only all together have a fitness. Layers of
            your own take part through a method `kernel_product` (docs/pure_es.md).
        rank: With `inner_optimizer=None`, None or the rank of the noise (see
            `EvolvesWeights`).
        seed: Integer seed of the noise.
        name: Name of the optimizer.

    Example:

    >>> OpenES("adam", sigma=0.3).sigma
    0.3
    >>> OpenES(None, rank=1, mean_optimizer="sgd").population_size
    256

    References:
        Salimans et al. 2017, Evolution strategies as a scalable alternative to
        reinforcement learning, arXiv 1703.03864.
        Noise on outputs: Widrow, Lehr 1990 (MADALINE rule III); Ren et al. 2023,
        arXiv 2210.03310.
    """

    evolves_weights = True
    default_mean_learning_rate = 0.01

    def __init__(
        self, inner_optimizer, *args, mean_optimizer=None, output_sigma=None, **kwargs
    ):
        super().__init__(inner_optimizer, *args, **kwargs)
        if output_sigma is not None:
            output_sigma = check_schedule("output_sigma", output_sigma)
        self.output_sigma = output_sigma
        if not self.pure:
            given = {"mean_optimizer": mean_optimizer, "output_sigma": output_sigma}
            self.refuse_in_hybrid(given)
        elif mean_optimizer is None:
            mean_optimizer = keras.optimizers.Adam(self.default_mean_learning_rate)
        self.mean_optimizer = None
        if self.pure:
            self.mean_optimizer = keras.optimizers.get(mean_optimizer)
            self.refuse_shared("mean_optimizer", self.mean_optimizer)

    @staticmethod
    def small_search(population_size, sigma):
        """Return arguments for a search in few dimensions: larger steps too."""
        adam = keras.optimizers.Adam(0.2 * sigma)
        return {
            "population_size": population_size, "sigma": sigma, "mean_optimizer": adam
        }  # fmt: skip

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

    def output_noise(self):
        """Return the `OutputNoise` of members, or None."""
        if self.output_sigma is None:
            return None
        return OutputNoise(
            self.seed, ops.cast(self.current(self.output_sigma), "float32")
        )

    def search_gradient(self, fitness, valid, guidance):
        """Return g for each searched variable."""
        utilities = self.utilities(fitness, valid)
        sums = self.noise_sums(utilities)
        gradients = [
            search.gaussian(s, self.ranked_members, sigma)
            for s, sigma in zip(sums, self.scales())
        ]
        if guidance is None:
            return gradients
        # Those of outputs are in units of the fitness, not of utilities.
        scale = search.utility_slope(fitness, utilities, valid)
        found = {id(v): scale * g for v, g in zip(self.output_variables, guidance)}
        return [found.get(id(v), g) for v, g in zip(self.space.variables, gradients)]

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

    def get_config(self):
        """Return the arguments of the constructor."""
        optimizer = None
        if self.pure:
            optimizer = keras.saving.serialize_keras_object(self.mean_optimizer)
        return {
            **super().get_config(),
            "mean_optimizer": optimizer,
            "output_sigma": serialize_schedule(self.output_sigma),
        }
