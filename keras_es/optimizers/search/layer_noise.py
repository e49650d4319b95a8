"""Strategies that may treat layers apart: noise on outputs, or on one layer a pair."""

from keras import ops

from keras_es.noise import layerwise
from keras_es.noise.options import Noise
from keras_es.noise.outputs import OutputNoise
from keras_es.ops import search


class LayerNoise:
    """Mixin for strategies that may have noise on outputs, or on one layer a pair.

    It goes before `EvolutionStrategy`.
    """

    noises = (Noise,)

    def output_noise(self):
        """Return the `OutputNoise` of members, or None."""
        sigma = self.noise_option.output_sigma
        if sigma is None:
            return None
        sigma = ops.cast(self.current(sigma), "float32")
        return OutputNoise(self.seed, sigma)

    def groups(self, guidance):
        """Return which weights had noise in which pairs (see `noise_sums`)."""
        if guidance is None:  # Of `ask` and `tell` all have: there are no layers.
            return None
        noise = self.weight_noise.without(self.output_variables)
        draws = self.pairs // self.pairs_per_draw
        return layerwise.groups(noise, draws, self.noise_option.apart)

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
