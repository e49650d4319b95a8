"""Strategies that may treat layers apart: noise on outputs, or on one layer a pair."""

from keras import ops

from keras_es.noise import layerwise
from keras_es.noise.outputs import OutputNoise
from keras_es.ops import search
from keras_es.optimizers.arguments import check_schedule, serialize_schedule


class LayerNoise:
    """Mixin for evolution strategies; goes before `EvolutionStrategy`.

    Args:
        inner_optimizer: None for pure evolution, which alone has noise on outputs.
        *args: See the other base class.
        output_sigma: None, or a number or a schedule of the generation: scale of noise
            on the outputs x W of dense layers and convolutions with at least four
            times as many weights for an output as positions where it is computed (a
            dense layer has one). Their kernels and biases have none then; what losses
            say of them is

                dc/dy ~ sum_k (c_k+ - c_k-) delta_k / (2 K sigma),    dc/dW = x^T dc/dy

            with the part c of the fitness that hangs on one example, random signs
            delta for each example and output, K pairs, and x of the mean: unknown are
            then a few outputs instead of all weights, so far fewer evaluations do. The
            rest has noise of `sigma`. An example's part is taken to depend on its own
            outputs alone, so not for models whose examples see each other in training
            (BatchNormalization), nor where only all together have a fitness. Layers of
            your own take part through a method `kernel_product` (docs/pure_es.md).
        layerwise: With `inner_optimizer=None`, whether each pair has noise on the
            weights of one layer alone (and on outputs, with `output_sigma`), instead of
            on all. Pairs are divided in proportion to the square root of the number of
            a layer's weights. What lies before that layer is computed once for all
            its members: convolutions cost a fraction. `population_size` must be large
            enough for a pair for each layer.
        **kwargs: See the other base class.

    References:
        Widrow, Lehr 1990, 30 years of adaptive neural networks (MADALINE rule III);
        Ren et al. 2023, Scaling forward gradient with local losses, arXiv 2210.03310.
    """

    def __init__(
        self, inner_optimizer, *args, output_sigma=None, layerwise=False, **kwargs
    ):
        super().__init__(inner_optimizer, *args, **kwargs)
        if output_sigma is not None:
            output_sigma = check_schedule("output_sigma", output_sigma)
        self.output_sigma, self.layerwise = output_sigma, bool(layerwise)
        if not self.pure:
            given = {"output_sigma": output_sigma, "layerwise": layerwise or None}
            self.refuse_in_hybrid(given)
        self.refuse_with_orthogonal("layerwise", self.layerwise)
        self.refuse_with_orthogonal("output_sigma", output_sigma)

    def output_noise(self):
        """Return the `OutputNoise` of members, or None."""
        if self.output_sigma is None:
            return None
        sigma = ops.cast(self.current(self.output_sigma), "float32")
        return OutputNoise(self.seed, sigma)

    def groups(self, guidance):
        """Return which weights had noise in which pairs (see `noise_sums`)."""
        if guidance is None:  # Of `ask` and `tell` all have: there are no layers.
            return None
        noise = self.weight_noise.without(self.output_variables)
        draws = self.pairs // self.pairs_per_draw
        return layerwise.groups(noise, draws, self.layerwise)

    def put_outputs(self, estimates, fitness, utilities, valid, guidance, scale=None):
        """Put what noise on outputs said in the places of its weights.

        Args:
            estimates: What noise on weights said, for each searched variable first.
            fitness: [n] losses.
            utilities: [n] of them, in whose units the result is.
            valid: [n] booleans.
            guidance: Gradients of the fitness by `output_variables`, or None.
            scale: None, or a function (variable's index, gradient) -> estimate.

        Returns:
            The list `estimates` with the weights' own.
        """
        if guidance is None:
            return estimates
        slope = search.utility_slope(fitness, utilities, valid)
        found = {id(v): slope * g for v, g in zip(self.output_variables, guidance)}
        estimates = list(estimates)
        for i, variable in enumerate(self.space.variables):
            if id(variable) in found:
                gradient = found[id(variable)]
                estimates[i] = gradient if scale is None else scale(i, gradient)
        return estimates

    def get_config(self):
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "output_sigma": serialize_schedule(self.output_sigma),
            "layerwise": self.layerwise,
        }
