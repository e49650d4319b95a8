"""Ask and tell: pure evolution without `fit`, for loops of one's own."""

import tensorflow as tf

from keras_es.ops import fitness as shaping


class AskTell:
    """The loop of a strategy whose variables no model trains.

    Args:
        strategy: Built `EvolutionStrategy` with `inner_optimizer=None`.

    Raises:
        ValueError: If it is another.
    """

    def __init__(self, strategy):
        if not hasattr(strategy.search, "members"):
            raise ValueError(
                "`ask` and `tell` are of pure evolution: make the strategy with "
                "inner_optimizer=None. Here `fit` of a model moves the masks. "
                f"Received: inner_optimizer={strategy.inner_optimizer.name!r}"
            )
        if not strategy.built:
            raise ValueError(
                "Call `build(variables)` with the list of `keras.Variable` to search "
                f"before `ask` and `tell`. Received: {strategy.name!r}, not built"
            )
        self.strategy = strategy
        self._ask = tf.function(strategy.search.members, autograph=False)
        self._told = tf.function(self._tell, autograph=False)
        self._told_apart = tf.function(self._tell_apart, autograph=False)

    def ask(self):
        """Return the population: a tensor [n, *shape] for each searched variable."""
        return self._ask()

    def tell(self, fitness):
        """Move what is searched by the losses of the population of `ask`.

        Raises:
            ValueError: If they are no numbers, or of another shape.
        """
        n = self.strategy.population_size
        try:
            fitness = tf.convert_to_tensor(fitness, dtype_hint=tf.float64)
            if fitness.dtype.is_complex:
                raise TypeError("complex numbers have no order")
            fitness = tf.cast(fitness, tf.float64)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise ValueError(
                f"`fitness` must be {n} numbers, the loss of each member of the "
                f"population. Received: fitness={fitness!r}"
            ) from error
        if tuple(fitness.shape) != (n,):
            raise ValueError(
                f"`fitness` must have shape [{n}], the loss of each "
                f"member of the population. Received: shape={tuple(fitness.shape)}"
            )
        self._told(fitness)

    def member(self, index):
        """Return what a model reads as one member, a list of (variable, value).

        Args:
            index: Of the member in the population of `ask`, integer scalar.
        """
        return self.strategy.search.member(index)

    def tell_apart(self, fitness, valid):
        """Move what is searched by finite losses, some of which say nothing.

        Args:
            fitness: [n] float64 finite losses, of members that failed too.
            valid: [n] booleans, False for members that are counted as failed.
        """
        self._told_apart(tf.constant(fitness, tf.float64), tf.constant(valid))

    def _tell(self, fitness):
        fitness = shaping.in_single_precision(fitness, self.strategy.by_rank)
        valid = tf.math.is_finite(fitness)
        self._learn(fitness, valid, valid)

    def _tell_apart(self, fitness, valid):
        fitness = shaping.in_single_precision(fitness, self.strategy.by_rank)
        self._learn(fitness, valid, tf.ones_like(valid))

    def _learn(self, fitness, counted, ranked):
        """Count members that failed, and learn from those that have a loss."""
        ok = tf.reduce_any(counted)
        self.strategy.count_step(counted, ok)
        self.strategy.learn(fitness, ranked, None, ok)
