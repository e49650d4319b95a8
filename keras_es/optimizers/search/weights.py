"""`EvolvesWeights`: with `inner_optimizer=None` losses alone move all variables."""

import keras

from keras_es._arguments import Argument, optional
from keras_es.distribution.collectives import assign_all, replica_count, replica_index
from keras_es.noise.options import Full, LowRank, Orthogonal
from keras_es.optimizers import arguments
from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.options import Chunks, Sampled, Turns
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
        noise: With None: a value of `keras_es.noise`, how noise is drawn and on what;
            None for `Full()`, independent normal noise on every weight.
        examples: With None: "full" (or None) or a `Sampled`, what members see.
        turns: With None: None or `Chunks`, how many members are evaluated at once.
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

    output_variables = ()
    """Weights that have no noise themselves, but their layers' outputs."""

    noises: tuple = (Full, LowRank, Orthogonal)
    """The kinds of noise that a strategy can do with."""

    inner_optimizer = Argument(optional(arguments.optimizer_of_weights))
    noise = Argument(optional(arguments.noise), None, keyword=True)
    examples = Argument(optional(arguments.examples), None, keyword=True)
    turns = Argument(optional(arguments.turns), None, keyword=True)

    def check_arguments(self):
        """Refuse what belongs to the other kind of search."""
        super().check_arguments()
        if self.needs_none and not self.pure:
            raise ValueError(
                f"{type(self).__name__} evolves the weights: `inner_optimizer` must "
                "be None. For weights by gradient and masks by evolution take SNES or "
                f"OpenES. Received: inner_optimizer={self.inner_optimizer.name!r}"
            )
        if self.pure:
            self.check_pure()
        else:
            self.check_hybrid()

    def check_pure(self):
        """Refuse arguments that have no meaning where weights are evolved."""
        if self.examples == "split":
            raise ValueError(
                "With inner_optimizer=None all members see the whole batch, which they "
                'share the work of: give examples="full" (batch_mode="full") or '
                f"Sampled(count), or leave it out. Received: examples={self.examples!r}"
            )
        if isinstance(self.turns, Turns):
            raise ValueError(
                "With inner_optimizer=None a generation is one step; "
                "`turns=keras_es.optimizers.Chunks(members)` bounds its memory. "
                f"Received: turns={self.turns!r}"
            )
        if self.noise is not None and not isinstance(self.noise, self.noises):
            raise ValueError(
                f"`noise` of {type(self).__name__} must be one of "
                f"{[cls.__name__ for cls in self.noises]} of keras_es.noise. "
                f"Received: noise={self.noise!r}"
            )
        self.check_chunks()

    def check_chunks(self):
        """Refuse chunks that do not divide the population."""
        n = self.population_size
        if self.turns is not None and n % self.turns.members:
            raise ValueError(
                "`turns` must be chunks of a divisor of the population. Received: "
                f"turns={self.turns!r}, population_size={n}"
            )

    def check_hybrid(self):
        """Refuse arguments of pure evolution where weights have an optimizer."""
        sampled = self.examples if isinstance(self.examples, Sampled) else None
        chunks = self.turns if isinstance(self.turns, Chunks) else None
        given = {"noise": self.noise, "examples": sampled, "turns": chunks}
        self.refuse_in_hybrid(given)

    def refuse_in_hybrid(self, arguments):
        """Raise for an argument of pure evolution if weights have an optimizer."""
        for key, value in arguments.items():
            if value is not None:
                use = "Leave it out"
                if self.evolves_weights:
                    use = f"It is for {type(self).__name__}(None, {key}=...)"
                raise ValueError(
                    f"`{key}={value!r}` is of pure evolution, and here the weights are "
                    f"trained by gradient. {use}. Received: {key}={value!r}"
                )

    @property
    def members_per_chunk(self):
        """How many members are evaluated at once, None for as many as fit."""
        return None if self.turns is None else self.turns.members

    @property
    def sampled_examples(self):
        """How many examples members see, None for all."""
        return self.examples.count if isinstance(self.examples, Sampled) else None

    @property
    def noise_option(self):
        """The value of `noise=`, `Full()` where it is left out."""
        return Full() if self.noise is None else self.noise

    @property
    def pairs_per_draw(self):
        """How many pairs share a draw of noise."""
        return self.noise_option.pairs_per_draw

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
        return self.noise_option.make(
            self.space.variables, self.seed, self.pairs, self.mirrored, self.separable
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
            self.noise_option.apart,
        )
        results, _, state, (variables, gradients) = population.evaluate(
            function, self.generation.value, self.scales(), self.first_pair, **kwargs
        )
        self.__dict__["output_variables"] = variables  # known with the model alone
        apart = self.noise_option.apart or self.output_noise() is not None
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


def as_gradients(search_gradient):
    """Return search gradients as Keras optimizers want them within replicas.

    Keras sums gradients over replicas; a search gradient is their mean already.
    """
    return [g / replica_count() for g in search_gradient]


def center_of(variables):
    """Return the values of variables as float32 tensors."""
    return [keras.ops.cast(v.value, "float32") for v in variables]
