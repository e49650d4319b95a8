"""`EvolvesWeights`: with `inner_optimizer=None` losses alone move all variables."""

import keras

from keras_es.distribution.collectives import assign_all, replica_count, replica_index
from keras_es.noise.weights import WeightNoise
from keras_es.optimizers.arguments import check_integer
from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.search.ask_tell import AskTell
from keras_es.optimizers.search.space import SearchSpace
from keras_es.optimizers.wrapper import OptimizerWrapper
from keras_es.populations.perturbed import WeightPopulation


class EvolvesWeights(AskTell, MaskOptimizer):
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
        sampled_examples: None, or k >= 1: the mean is called once with the whole batch
            of n, and members see k examples of it, drawn with probabilities

                p_i = 0.8 |l_i| / sum_j |l_j| + 0.2 / n

            by the part l of the loss (or fitness) that each has, and weighted by
            1/(n p_i), which leaves the expected losses of members as they are.
            What a network does well already then costs next to nothing: give `fit`
            batches of some hundred examples. `loss` and `population_loss` are
            estimates for the whole batch, metrics are those of the mean on all of it.
        seed: Integer seed of the noise.
        name: Name of the optimizer.
    """

    evolves_weights = True

    mirrored = True
    """Whether members come in pairs +noise, -noise."""

    separable = False
    """Whether each coordinate has a sigma of its own."""

    needs_none = False
    """Whether there is no hybrid form: `inner_optimizer` must be None."""

    space = None
    """The `SearchSpace` of pure evolution."""

    layerwise = False
    """Whether each pair has noise on the weights of one layer alone."""

    output_variables = ()
    """Weights that have no noise themselves, but their layers' outputs."""

    def __init__(
        self,
        inner_optimizer,
        *,
        rank=None,
        pairs_per_draw=1,
        members_per_chunk=None,
        sampled_examples=None,
        seed=0,
        name=None,
        **kwargs,
    ):
        super().__init__(inner_optimizer, seed=seed, name=name, **kwargs)
        if self.needs_none and not self.pure:
            raise ValueError(
                f"{type(self).__name__} evolves the weights: `inner_optimizer` must "
                "be None. For weights by gradient and masks by evolution take SNES or "
                f"OpenES. Received: inner_optimizer={self.inner_optimizer.name!r}"
            )
        given = {
            "rank": rank, "members_per_chunk": members_per_chunk,
            "sampled_examples": sampled_examples,
        }  # fmt: skip
        for key, value in given.items():
            if value is not None:
                check_integer(key, value, minimum=1)
        check_integer("pairs_per_draw", pairs_per_draw, minimum=1)
        if not self.pure:
            self.refuse_in_hybrid({**given, "pairs_per_draw": pairs_per_draw})
        self.rank, self.members_per_chunk = rank, members_per_chunk
        self.pairs_per_draw = pairs_per_draw
        self.sampled_examples = sampled_examples

    def refuse_in_hybrid(self, arguments):
        """Raise for an argument of pure evolution if weights have an optimizer."""
        for key, value in arguments.items():
            default = 1 if key == "pairs_per_draw" else None
            if value != default:
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

    def add_searched(self, name, values=None):
        """Create a float32 variable of the shape of each searched one.

        Args:
            name: Name of the variables, to which an index is added.
            values: First value of each, None for 0.
        """
        values = [0.0] * len(self.searched) if values is None else values
        return [
            self.add_variable(
                tuple(variable.shape),
                initializer=keras.initializers.Constant(value),
                dtype="float32",
                name=f"{name}_{i}",
                aggregation="only_first_replica",
            )
            for i, (variable, value) in enumerate(zip(self.searched, values))
        ]

    def initial_stds(self):
        """Return the first std of each searched variable."""
        return [self.sigma * factor for factor in self.scale_factors]

    def require_number(self, name, value):
        """Raise for a schedule or 0 where the value is where adaption begins."""
        if not isinstance(value, float) or value == 0:
            raise ValueError(
                f"`{name}` of {type(self).__name__} is the initial std, which then "
                "adapts itself: it must be a number above 0. "
                f"Received: {name}={value!r}"
            )

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

    @property
    def pairs(self):
        """Number of pairs in the population; members that are not mirrored are one."""
        return self.population_size // (2 if self.mirrored else 1)

    @property
    def members_per_pair(self):
        """2, or 1 if members are independent."""
        return 2 if self.mirrored else 1

    # What the train step calls.

    def evaluate_members(self, model, function, batch_size=None, **kwargs):
        """Return the results of a function of the model under each member.

        Args:
            model: Keras model.
            function: See `WeightPopulation.evaluate`.
            batch_size: Examples that each member sees, if known.
            **kwargs: `fixed`, `after` and `state` of `WeightPopulation.evaluate`.

        Returns:
            (results, state, guidance): the first two of `WeightPopulation.evaluate`;
            what else `search_gradient` gets, or None.
        """
        population = WeightPopulation(
            model,
            self.weight_noise,
            self.population_size,
            self.members_per_chunk,
            self.space,
            batch_size,
            self.output_noise(),
            self.layerwise,
        )
        results, _, state, (variables, gradients) = population.evaluate(
            function, self.generation.value, self.scales(), self.first_pair, **kwargs
        )
        self.__dict__["output_variables"] = variables  # known with the model alone
        apart = self.layerwise or self.output_noise() is not None
        return results, state, gradients if apart else None

    def output_noise(self):
        """Return the `OutputNoise` of members, or None."""
        return None

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
        assign_all(zip(self.space.weights, values), ok)
        moved = {id(m): s for m, s in zip(self.space.masked, values[count:])}
        if not moved:
            return self.deploy_scores(None, ok)
        scores = [moved.get(id(m), m.mask_scores.value) for m in self.masked_weights]
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
        return super(OptimizerWrapper, self).iterations

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
        return {
            **super().get_config(),
            "rank": self.rank,
            "pairs_per_draw": self.pairs_per_draw,
            "members_per_chunk": self.members_per_chunk,
            "sampled_examples": self.sampled_examples,
        }


def as_gradients(search_gradient):
    """Return search gradients as Keras optimizers want them within replicas.

    Keras sums gradients over replicas; a search gradient is their mean already.
    """
    return [g / replica_count() for g in search_gradient]


def center_of(variables):
    """Return the values of variables as float32 tensors."""
    return [keras.ops.cast(v.value, "float32") for v in variables]
