"""`AskTell`: a pure evolution strategy without a model, for loops of one's own."""

import tensorflow as tf

from keras_es.ops import fitness as shaping


class AskTell:
    """Mixin of methods that can evolve weights (`EvolvesWeights`)."""

    by_rank = False
    """Whether of the losses only their order counts."""

    def ask(self):
        """Return the population: a tensor [n, *shape] for each searched variable.

        The same until `tell`: members are a function of (seed, generation).
        """
        return self._traced("ask", self.members)()

    def tell(self, fitness):
        """Move what is searched by the losses of the population of `ask`.

        Args:
            fitness: [n] losses, lower is better; NaN and infinity rank worst. They
                are compared in float64.

        Raises:
            ValueError: If it has another shape.
        """
        fitness = tf.convert_to_tensor(fitness, dtype_hint=tf.float64)
        fitness = tf.cast(fitness, tf.float64)
        if tuple(fitness.shape) != (self.population_size,):
            raise ValueError(
                f"`fitness` must have shape [{self.population_size}], the loss of each "
                f"member of the population. Received: shape={tuple(fitness.shape)}"
            )
        self._traced("tell", self._tell)(fitness)

    def _tell(self, fitness):
        fitness = shaping.in_single_precision(fitness, self.by_rank)
        valid = tf.math.is_finite(fitness)
        ok = tf.reduce_any(valid)
        self.count_step(valid, ok)
        gradient = self.search_gradient(fitness, valid, None)
        self.end_generation(gradient, ok)

    def _traced(self, name, function):
        """Return a graph function of a method, traced once."""
        if name not in self.__dict__.setdefault("functions", {}):
            self.functions[name] = tf.function(function, autograph=False)
        return self.functions[name]

    def members(self):
        """Return the values of all members, [n, *shape] for each searched variable."""
        draws = self.population_size // self.weight_noise.members_per_draw
        noises = self.weight_noise.members(self.generation.value, draws, self.scales())
        return [
            v[None] + tf.cast(e, v.dtype) for v, e in zip(self.space.values(), noises)
        ]
