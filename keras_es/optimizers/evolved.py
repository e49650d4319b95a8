"""`EvolvesWeights`: with `inner_optimizer=None` all variables are searched by losses."""

import keras
import tensorflow as tf

from keras_es.distribution import assign_all, replica_count, replica_index
from keras_es.optimizers.arguments import check_integer
from keras_es.optimizers.base import MaskOptimizer
from keras_es.search_space import SearchSpace
from keras_es.weight_noise import WeightNoise
from keras_es.weight_population import WeightPopulation


class EvolvesWeights(MaskOptimizer):
    """Base of methods that can evolve weights: pure evolution, without gradients.

    With `inner_optimizer=None` the searched variables are all trainable weights, and
    the scores of masks that can move. Members are evaluated on the whole batch.

    Args:
        inner_optimizer: None, or the optimizer of the weights (see `MaskOptimizer`).
        rank: With None: full-rank noise; or r >= 1 for noise of rank r, which is drawn
            and multiplied several times faster.
        pairs_per_draw: g >= 1 pairs share their noise up to random signs of its
            columns, which is faster; the estimate stays unbiased.
        members_per_chunk: How many members are evaluated at once, a divisor of the
            population; None for as many as fit the caches.
        seed: Integer seed of the noise.
        name: Name of the optimizer.
    """

    evolves_weights = True

    mirrored = True
    """Whether members come in pairs +noise, -noise."""

    separable = False
    """Whether each coordinate has a sigma of its own."""

    space = None
    """The `SearchSpace` of pure evolution."""

    def __init__(
        self,
        inner_optimizer,
        *,
        rank=None,
        pairs_per_draw=1,
        members_per_chunk=None,
        seed=0,
        name=None,
        **kwargs,
    ):
        super().__init__(inner_optimizer, seed=seed, name=name, **kwargs)
        given = {"rank": rank, "members_per_chunk": members_per_chunk}
        for key, value in given.items():
            if value is not None:
                check_integer(key, value, minimum=1)
        check_integer("pairs_per_draw", pairs_per_draw, minimum=1)
        if not self.pure:
            self.refuse_in_hybrid({**given, "pairs_per_draw": pairs_per_draw})
        self.rank, self.members_per_chunk = rank, members_per_chunk
        self.pairs_per_draw = pairs_per_draw

    def refuse_in_hybrid(self, arguments):
        """Raise for an argument of pure evolution if weights have an optimizer."""
        for key, value in arguments.items():
            if value not in (None, 1) or value is True:
                raise ValueError(
                    f"`{key}` is of pure evolution: {type(self).__name__}(None, "
                    f"{key}=...). Here the weights are trained by gradient. "
                    f"Received: {key}={value!r}"
                )

    @property
    def pure(self):
        """Whether weights are evolved, and no gradient is taken."""
        return self.inner_optimizer is None

    @property
    def searched(self):
        """The variables that are searched: mask scores, or all in pure evolution."""
        if self.pure:
            return self.space.variables
        return [m.mask_scores for m in self.masked_weights]

    def build(self, variables):
        """Create the state of the search, and of the optimizer of the weights."""
        if self.built:
            return
        if self.pure:
            variables = list(variables)
            masked = [v.masked_weight for v in variables if hasattr(v, "masked_weight")]
            # Not through Keras's tracking of attributes, which is for state.
            self.__dict__["space"] = SearchSpace(variables, masked)
            self.__dict__["weight_noise"] = self.make_noise()
        super().build(variables)

    def make_noise(self):
        """Return the noise of the searched variables."""
        return WeightNoise(
            self.space.variables,
            self.seed,
            self.rank,
            self.pairs_per_draw,
            self.mirrored,
            self.separable,
        )

    def scales(self):
        """Return sigma of each searched variable, a scalar or one per coordinate."""
        raise NotImplementedError

    # What the train step calls.

    def evaluate_members(self, model, function, batch_size=None, **kwargs):
        """Return the results of a function of the model under each member.

        Args:
            model: Keras model.
            function: See `WeightPopulation.evaluate`.
            batch_size: Examples that each member sees, if known.
            **kwargs: `fixed`, `after` and `state` of `WeightPopulation.evaluate`.

        Returns:
            (results, state) of `WeightPopulation.evaluate`.
        """
        population = WeightPopulation(
            model,
            self.weight_noise,
            self.population_size,
            self.members_per_chunk,
            self.space,
            batch_size,
        )
        results, _, state = population.evaluate(
            function, self.generation.value, self.scales(), self.first_pair, **kwargs
        )
        return results, state

    @property
    def first_pair(self):
        """Index of this replica's first pair among those of all replicas."""
        return replica_index() * self.pairs

    def update_weights(self, gradients, variables, active, ok):
        """Apply the inner optimizer, if there is one."""
        if not self.pure:
            super().update_weights(gradients, variables, active, ok)

    def end_generation(self, search_gradient, ok):
        """Move what is searched, and count."""
        if not self.pure:
            return super().end_generation(search_gradient, ok)
        values = self.update_masks(search_gradient, ok)
        count = len(self.space.weights)
        assign_all(
            [
                (v, tf.where(ok, tf.cast(new, v.dtype), v.value))
                for v, new in zip(self.space.weights, values)
            ]
        )
        moved = {id(m): s for m, s in zip(self.space.masked, values[count:])}
        if not moved:
            return self.deploy_scores(None, ok)
        scores = [moved.get(id(m), m.mask_scores.value) for m in self.masked_weights]
        scores = [
            tf.where(ok, new, m.mask_scores.value)
            for m, new in zip(self.masked_weights, scores)
        ]
        return self.deploy_scores(scores, ok)

    # The contract of Keras optimizers, where there is no inner optimizer.

    @property
    def variables(self):
        """Own variables, then those of the inner optimizer if there is one."""
        return list(self._variables) if self.pure else super().variables

    @property
    def learning_rate(self):
        """Learning rate of the optimizer of weights; 1 if a method has none."""
        optimizer = self.weights_optimizer
        return 1.0 if optimizer is None else optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        if self.weights_optimizer is None:
            raise AttributeError(
                f"{type(self).__name__} with inner_optimizer=None has no "
                "`learning_rate` that can be set while it trains; give schedules to "
                f"its arguments. Received: learning_rate={value!r}"
            )
        self.weights_optimizer.learning_rate = value

    @property
    def weights_optimizer(self):
        """The Keras optimizer that moves weights, or None."""
        return self.inner_optimizer

    @property
    def iterations(self):
        """Steps so far."""
        if not self.pure:
            return super().iterations
        return super(MaskOptimizer, self).iterations

    def scale_inner_loss(self):
        """Put loss scaling around the inner optimizer; losses alone need none."""
        if not self.pure:
            super().scale_inner_loss()

    def scale_loss(self, loss):
        """Scale the loss as the inner optimizer wants it (float16)."""
        return loss if self.pure else super().scale_loss(loss)

    def finalize_variable_values(self, var_list):
        """Let the optimizer of weights overwrite them by their average (EMA)."""
        if self.weights_optimizer is not None:
            self.weights_optimizer.finalize_variable_values(var_list)

    def get_config(self):
        """Return the arguments of the constructor."""
        config = super().get_config()
        if self.pure:
            config["inner_optimizer"] = None
        return {
            **config,
            "rank": self.rank,
            "pairs_per_draw": self.pairs_per_draw,
            "members_per_chunk": self.members_per_chunk,
        }


def as_gradients(search_gradient):
    """Return search gradients as Keras optimizers want them within replicas.

    Keras sums gradients over replicas; a search gradient is their mean already.
    """
    return [g / replica_count() for g in search_gradient]


def center_of(variables):
    """Return the values of variables as float32 tensors."""
    return [keras.ops.cast(v.value, "float32") for v in variables]
