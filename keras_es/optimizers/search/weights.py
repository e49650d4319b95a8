"""`WeightSearch`: pure evolution, a search of all weights and of mask scores."""

import tensorflow as tf
from keras import ops

from keras_es.distribution.collectives import assign_all, replica_index
from keras_es.noise import layerwise
from keras_es.noise.options import Full
from keras_es.noise.outputs import OutputNoise
from keras_es.ops import search as estimates_of
from keras_es.optimizers.deployment import deploy_scores
from keras_es.optimizers.inner import NoInner
from keras_es.optimizers.options import Sampled, Turns
from keras_es.optimizers.search.active import ActiveSpace
from keras_es.optimizers.search.base import Search
from keras_es.optimizers.search.space import SearchSpace, constrained
from keras_es.populations.by_losses import EvolvedPopulation
from keras_es.populations.given import ValuePopulation
from keras_es.populations.model_state import refuse_other_weights
from keras_es.populations.perturbed import WeightPopulation


class WeightSearch(Search):
    """Members are all weights + noise, evaluated by losses alone, all in one step.

    It searches all trainable variables, and the scores of masks that can move, as one
    space. All members see the whole batch, or the same examples of it.
    """

    inner = NoInner
    default_batch_mode = "full"

    def __init__(self, strategy):
        super().__init__(strategy)
        self.default_population_size = strategy.default_population_size
        self.default_sigma = strategy.default_weight_sigma

    def check(self):
        """Refuse arguments that have no meaning where weights are evolved."""
        s = self.strategy
        if s.batch_mode == "split":
            raise ValueError(
                "With inner_optimizer=None all members see the whole batch, which they "
                'share the work of: give batch_mode="full" or Sampled(count), or leave '
                f"it out. Received: batch_mode={s.batch_mode!r}"
            )
        if s.masked_out != "rest":
            raise ValueError(
                "With inner_optimizer=None there is no gradient that masked-out "
                'weights could learn by: leave `masked_out` at "rest". '
                f"Received: masked_out={s.masked_out!r}"
            )
        if isinstance(s.turns, Turns):
            raise ValueError(
                "With inner_optimizer=None a generation is one step; "
                "`turns=keras_es.optimizers.Chunks(members)` bounds its memory. "
                f"Received: turns={s.turns!r}"
            )
        if s.turns is not None and s.population_size % s.turns.members:
            raise ValueError(
                "`turns` must be chunks of a divisor of the population. Received: "
                f"turns={s.turns!r}, population_size={s.population_size}"
            )
        if s.density is not None:
            raise ValueError(
                "With inner_optimizer=None masks are as sparse as wanted from the "
                "first generation, and weights and scores are moved by losses alone. "
                f"Received: density={s.density!r}"
            )
        self.check_noise()

    def check_noise(self):
        """Refuse noise that the strategy cannot do with."""
        noise, kinds = self.strategy.noise, self.strategy.noises
        if noise is not None and not isinstance(noise, kinds):
            raise ValueError(
                f"`noise` of {type(self.strategy).__name__} must be one of "
                f"{[cls.__name__ for cls in kinds]} of keras_es.noise. "
                f"Received: noise={noise!r}"
            )
        s = self.strategy
        per_draw = s.members_per_pair * (1 if noise is None else noise.pairs_per_draw)
        if s.population_size % per_draw:
            raise ValueError(
                f"`population_size` must be a multiple of {per_draw}, the members that "
                f"share a draw. Received: population_size={s.population_size}, "
                f"noise={noise!r}"
            )

    def build(self, variables):
        """Take on all trainable variables, and the scores of masks that can move."""
        s = self.strategy
        self.option = Full() if s.noise is None else s.noise
        if self.option.resting:
            self.space = ActiveSpace(variables, s.masked_weights, self._add)
        else:
            self.space = SearchSpace(variables, s.masked_weights)
        self.variables, self.factors = self.space.variables, self.space.factors
        self.weight_noise = self.option.make(
            self.variables, s.seed, s.pairs, s.mirrored, s.separable
        )

    def _add(self, shape, dtype, name):
        return self.strategy.add_variable(
            shape, initializer="zeros", dtype=dtype, name=name,
            aggregation="only_first_replica",
        )  # fmt: skip

    def follow_masks(self):
        """Look where masks are now, outside of steps."""
        self.space.follow_masks()

    def dimension(self, variable):
        """Return the number of all coordinates, which are one search."""
        return self.space.size

    def mean_rate(self, dimension):
        """Return 1, as in the paper."""
        return 1.0

    @property
    def optimizers(self):
        """The optimizer of the scores, and that of the weights."""
        scores = {"score_optimizer": lambda: [m.mask_scores for m in self.space.masked]}
        return {**scores, "mean_optimizer": lambda: self.space.means}

    def population(self, model, batch):
        """Return what evaluates all members, by losses alone.

        Raises:
            ValueError: If layers were frozen, or are no longer, since `build`.
        """
        refuse_other_weights(model, self.space.weights)
        self.space.read_weights()
        return EvolvedPopulation(model, *batch)

    # Members.

    @property
    def chunk(self):
        """How many members are evaluated at once, None for as many as fit."""
        turns = self.strategy.turns
        return None if turns is None else turns.members

    @property
    def sampled(self):
        """How many examples members see, None for all."""
        mode = self.strategy.batch_mode
        return mode.count if isinstance(mode, Sampled) else None

    @property
    def first_pair(self):
        """Index of this replica's first pair among those of all replicas."""
        return replica_index() * self.strategy.pairs

    @property
    def draws(self):
        """Number of draws of noise in a generation."""
        return self.strategy.population_size // self.weight_noise.members_per_draw

    def noise(self, pair):
        """Return the standard normal noise of one pair, for each variable."""
        g, signs = self.option.pairs_per_draw, len(self.weight_noise.signs)
        generation = self.strategy.generation.value
        ones = [1.0] * len(self.variables)
        first = (self.first_pair + pair) // g
        members = self.weight_noise.members(generation, 1, ones, first)
        return [values[signs * (pair % g)] for values in members]

    def output_noise(self):
        """Return the `OutputNoise` of members, or None."""
        sigma = self.option.output_sigma
        if sigma is None:
            return None
        sigma = ops.cast(self.strategy.current(sigma), "float32")
        return OutputNoise(self.strategy.seed, sigma)

    def members(self):
        """Return the values of all members, [n, *shape] for each variable."""
        s = self.strategy
        noises = self.weight_noise.members(s.generation.value, self.draws, s.scales())
        return [
            v[None] + tf.cast(e, v.dtype) for v, e in zip(self.space.values(), noises)
        ]

    def member(self, index):
        """Return what a model reads as one of `members`: a list of (variable, value).

        Args:
            index: Integer scalar.
        """
        s, per_draw = self.strategy, self.weight_noise.members_per_draw
        noises = self.weight_noise.members(
            s.generation.value, 1, s.scales(), index // per_draw
        )
        noises = [e[index % per_draw] for e in noises]
        values = [v + tf.cast(e, v.dtype) for v, e in zip(self.space.values(), noises)]
        return self.space.overrides(list(zip(self.variables, values)))

    def evaluate_members(self, model, function, batch_size=None, **kwargs):
        """Return the results of a function of the model under each member.

        Args:
            model: Keras model.
            function: See `WeightPopulation.evaluate`.
            batch_size: Examples that each member sees, if known.
            **kwargs: `fixed`, `after` and `state` of `WeightPopulation.evaluate`.

        Returns:
            (results, state, said): the first two of `WeightPopulation.evaluate`; for
            each searched variable the gradient that noise on outputs found, None for
            those with noise themselves, or None if all have it.
        """
        s, outputs = self.strategy, self.output_noise()
        population = WeightPopulation(
            model, self.weight_noise, s.population_size, self.chunk, self.space,
            batch_size, outputs, self.option.apart,
        )  # fmt: skip
        results, _, state, (variables, gradients) = population.evaluate(
            function, s.generation.value, s.scales(), self.first_pair, **kwargs
        )
        if outputs is None and not self.option.apart:
            return results, state, None
        found = {id(v): g for v, g in zip(variables, gradients)}
        return results, state, [found.get(id(v)) for v in self.variables]

    # What members said.

    def centred(self, fitness, valid):
        """Return the losses: one huge loss less would make all others equal."""
        return ops.where(valid, fitness, float("inf"))

    def groups(self, said):
        """Return which weights had noise in which pairs (see `layerwise`)."""
        if said is None:  # Of `ask` and `tell` all have: there are no layers.
            return layerwise.whole(self.weight_noise, self.draws)
        still = [v for v, g in zip(self.variables, said) if g is not None]
        noise = self.weight_noise.without(still)
        return layerwise.groups(noise, self.draws, self.option.apart)

    def _sums(self, first, square, said):
        return self.strategy.ranking.over_all(
            lambda: self.weight_noise.grouped_moments(
                self.groups(said), self.strategy.generation.value, first, square,
                self.first_pair,
            )
        )  # fmt: skip

    def put_outputs(self, estimates, fitness, utilities, valid, said, scale=None):
        """Put what noise on outputs said in the places of its weights."""
        if said is None:
            return estimates
        slope = estimates_of.utility_slope(fitness, utilities, valid)
        found = []
        for i, (estimate, gradient) in enumerate(zip(estimates, said)):
            if gradient is not None:
                estimate = slope * gradient
                estimate = estimate if scale is None else scale(i, estimate)
            found.append(estimate)
        return found

    def put_back(self, centers, ok):
        """Set new weights and scores, and deploy the masks of these."""
        values = {} if centers is None else dict(zip(map(id, self.variables), centers))
        assignments = self.space.assignments(values) if values else []
        if self.strategy.inner.optimizer is None or self.option.resting:
            # An optimizer of the mean does so itself, where it knows the weights.
            assignments = [(v, constrained(v, value)) for v, value in assignments]
        assign_all(assignments, ok)
        scores = None
        if values and self.space.masked:
            # At sparsity 0 a mask cannot move: its scores are not searched.
            scores = [
                values.get(id(m.mask_scores), m.mask_scores.value)
                for m in self.strategy.masked_weights
            ]
        deploy_scores(self.strategy, scores, ok)


class ValueSearch(WeightSearch):
    """Members are given as values: `member_values` of the strategy says which.

    Members share no center that noise could be added to, as in a genetic algorithm or
    in differential evolution.
    """

    def members(self):
        """Return the values of all members, [n, *shape] for each variable."""
        values = self.strategy.member_values()(tf.range(self.strategy.population_size))
        if all(getattr(v, "constraint", None) is None for v in self.variables):
            return values
        return tf.map_fn(self.space.bounded, values)

    def member(self, index):
        """Return what a model reads as one of `members` (see `WeightSearch`)."""
        values = self.strategy.member_values()(tf.reshape(index, (1,)))
        values = self.space.bounded([x[0] for x in values])
        found = [(v, tf.cast(x, v.dtype)) for v, x in zip(self.variables, values)]
        return self.space.overrides(found)

    def evaluate_members(self, model, function, batch_size=None, **kwargs):
        """Return the results of a function of the model under each member."""
        s = self.strategy
        population = ValuePopulation(
            model, self.space, s.population_size, self.chunk, batch_size
        )
        values_of = s.member_values()  # what all share is computed once
        first = replica_index() * s.population_size
        return population.evaluate(function, lambda i: values_of(first + i), **kwargs)
