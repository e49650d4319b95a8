"""What evolution strategies share: population, noise and fitness shaping."""

import tensorflow as tf
from keras import ops

from keras_es import schedules
from keras_es.layers import tree
from keras_es.noise import layerwise
from keras_es.ops import fitness as shaping
from keras_es.ops import noise
from keras_es.optimizers.arguments import (
    check_integer,
    check_members,
    check_schedule,
    check_share,
    get_function,
    refuse_in_pure,
    serialize_function,
    serialize_schedule,
    value_at,
)
from keras_es.optimizers.gradient.scheduled import serialized
from keras_es.optimizers.search.orthogonal_pairs import OrthogonalPairs
from keras_es.optimizers.search.ranking import RankedPairs
from keras_es.optimizers.search.turns import Turns, default_turns

BATCH_MODES = ("split", "full")


class EvolutionStrategy(OrthogonalPairs, RankedPairs):
    """Base of evolution strategies over mask scores, or over all variables.

    A member is scores + noise, decoded: Gaussian noise and exact top-k unless
    `member_masks` says otherwise. Members come in antithetic pairs +eps, -eps. With
    `inner_optimizer=None` weights get noise too, and losses alone move them.

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`), or None to
            evolve weights and scores by losses alone (`EvolvesWeights`).
        population_size: Even integer n >= 2, members of one generation; None for 8, or
            with inner_optimizer=None for `default_population_size`.
        batch_mode: None for "split", or with inner_optimizer=None for "full", which is
            then the only one. "split": with M members in a step, each pair gets B/M
            examples of the batch of B, both members the same ones, so a step costs
            the forward and backward passes of one ordinary step; which half of the
            batch is used is drawn for each step. "full": each member sees all B
            examples, at n times the cost.
        fitness: None for the model's loss, or a function (y, y_pred) -> per-example
            values (lower is better) that need not be differentiable. Weights are
            always trained on the model's loss.
        fitness_shaping: Name or function, see `keras_es.ops.fitness`.
        sigma: Scale of the noise, in units of the initial scores (standard normal),
            or a `keras.optimizers.schedules.LearningRateSchedule` of the generation.
            Where that has come to 0 the search rests: members are the deployed mask,
            and each gets examples of its own under "split".
            With inner_optimizer=None in units of the weights; scores then get ten
            times that. None for 0.3, or then `default_weight_sigma`.
        members_per_step: Even integer M that divides n: the members of a generation
            take turns, M of them in a step. Scores and deployed masks move at the end
            of the generation. None: n, or under "split" 2 where sampling would cost
            more than the step does, which is with more than one unit for 16 weights.
        steps_per_pair: Integer H, for how many steps a pair's masks are held; a
            generation takes n/M * H steps. None: 1; where sampling
            is not cheap 16, or 8 if the method uses dL/dm.
        semi_updates: With several replicas of a `tf.distribute` strategy, each
            evaluates `population_size` members of its own. True: each ranks its own,
            on its own examples, and the search gradients are averaged. False: the
            losses of all are gathered and ranked together, as one population.
        sparsity_schedule: A `keras_es.schedules.SparsitySchedule` of the step: more
            units are active at first, all as a rule, and fewer from generation to
            generation, in members and deployed masks alike. None: the wanted number
            from the first step.
        magnitude_pull: None, or a number in [0, 1] or a schedule of the generation: at
            the end of a generation, and as long as the search does not rest, this
            share p of the way from each score s to the size z of its unit is gone,

                s <- (1 - p) s + p z,    z = (u - mean u) / std u,    u = sum |w|

            over the units of a weight, so losses correct what magnitudes say. Not
            for layers that store active blocks only.
        seed: Integer seed of the noise.
        name: Name of the optimizer.
        **kwargs: See `EvolvesWeights` and, for `orthogonal`, `OrthogonalPairs`.
    """

    default_population_size = 256
    default_weight_sigma = 0.05

    def __init__(
        self,
        inner_optimizer,
        population_size=None,
        batch_mode=None,
        fitness=None,
        fitness_shaping="centered_rank",
        sigma=None,
        *,
        members_per_step=None,
        steps_per_pair=None,
        semi_updates=True,
        sparsity_schedule=None,
        magnitude_pull=None,
        seed=0,
        name=None,
        **kwargs,
    ):
        super().__init__(inner_optimizer, seed=seed, name=name, **kwargs)
        if population_size is None:
            population_size = self.default_population_size if self.pure else 8
        check_integer("population_size", population_size, minimum=2)
        if population_size % 2 and self.mirrored:
            raise ValueError(
                "`population_size` must be even: members are antithetic pairs. "
                f"Received: population_size={population_size}"
            )
        if batch_mode is None:
            batch_mode = "full" if self.pure else "split"
        if batch_mode not in BATCH_MODES:
            raise ValueError(
                f"`batch_mode` must be one of {BATCH_MODES}. "
                f"Received: batch_mode={batch_mode!r}"
            )
        self.population_size = population_size
        self.batch_mode = batch_mode
        if self.pure:
            refuse_in_pure(
                batch_mode, members_per_step, steps_per_pair,
                sparsity_schedule=sparsity_schedule, magnitude_pull=magnitude_pull,
            )  # fmt: skip
        self.members_per_step = check_members(members_per_step, population_size)
        if steps_per_pair is not None:
            check_integer("steps_per_pair", steps_per_pair, minimum=1)
        self.steps_per_pair = steps_per_pair
        self.semi_updates = bool(semi_updates)
        if sparsity_schedule is not None:
            self.sparsity_schedule = schedules.get(
                "sparsity_schedule", sparsity_schedule, schedules.SparsitySchedule
            )
        if magnitude_pull is not None:
            self.magnitude_pull = check_share("magnitude_pull", magnitude_pull)
        self.fitness = get_function(fitness)
        self.fitness_shaping = shaping.get(fitness_shaping)
        if sigma is None:
            sigma = self.default_weight_sigma if self.pure else 0.3
        self.sigma = check_schedule("sigma", sigma)

    @property
    def by_rank(self):
        """Whether of the losses only their order counts."""
        return self.fitness_shaping in shaping.BY_RANK

    def build(self, variables):
        """Create the state of the search, and of the turns that members take."""
        if self.built:
            return
        super().build(variables)
        if self.pure:
            return
        members, held = default_turns(self, self.masked_weights)
        if members < self.population_size or held > 1:
            # Not through Keras's tracking of attributes, which is for state.
            self.__dict__["turns"] = Turns(self, members, held)
            self.turns.build()

    def steps_per_generation(self, model):
        """Return how many steps of `fit` a generation takes: (n/M) * H.

        Schedules of `sigma` and of the score optimizer count generations.

        Args:
            model: A model with masked layers.
        """
        if self.pure:
            return 1
        members, held = default_turns(self, tree.masked_weights(model))
        return self.population_size // members * held

    @property
    def pairs_in_step(self):
        """Number of pairs that are evaluated in one step."""
        return self.pairs if self.turns is None else self.turns.pairs_in_step

    def step_masks(self, pair):
        """Return the masks of the two members of one of the pairs of this step."""
        if self.turns is None:
            return self.member_masks(pair)
        return self.turns.masks(pair)

    def current(self, value):
        """Return a hyperparameter now: a number, or a schedule of the generation."""
        return value_at(value, self.generation.value)

    def noise(self, pair):
        """Return the standard normal noise of one pair, one tensor for each weight."""
        return self.draw(noise.normal, pair)

    def draw(self, distribution, pair):
        """Draw from a function of `ops.noise` for one pair, for each weight."""
        return [
            distribution(
                tuple(m.mask_scores.shape),
                noise.counter_seed(key, self.generation.value, self.global_pair(pair)),
            )
            for m, key in zip(self.masked_weights, self.stream_keys())
        ]

    def stream_keys(self):
        """Return the key of each weight's noise stream."""
        return [
            noise.stream_key(self.seed, f"{i}") for i in range(len(self.masked_weights))
        ]

    def search_rests(self):
        """Return whether sigma is 0 by its schedule."""
        if isinstance(self.sigma, float):
            return False
        return ops.equal(self.current(self.sigma), 0.0)

    def scales(self):
        """Return the scale of the noise of each searched variable."""
        sigma = self.current(self.sigma)
        return [sigma * factor for factor in self.scale_factors]

    @property
    def scale_factors(self):
        """The noise of each searched variable in units of sigma."""
        return self.space.factors if self.pure else [1.0] * len(self.masked_weights)

    def member_masks(self, pair):
        """Decode scores + scale * noise and scores - scale * noise."""
        if not self.masked_weights:  # all of them may be frozen
            return [[], []]
        drawn, scales, counts = self.noise(pair), self.scales(), self.unit_counts()

        def member(sign):
            return [
                m.decode(m.mask_scores.value + sign * s * e, count)
                for m, s, e, count in zip(self.masked_weights, scales, drawn, counts)
            ]

        # A loop, for XLA takes long to compile a selection, and so does it once.
        types = [tf.bool for _ in self.masked_weights]
        masks = tf.map_fn(member, tf.constant([1.0, -1.0]), fn_output_signature=types)
        return list(zip(*(tf.unstack(mask) for mask in masks)))

    def utilities(self, fitness, valid):
        """Shape the fitness; members that failed are worst, all zero if all failed."""
        if self.pure:  # One huge loss less would make all others equal.
            centred = ops.where(valid, fitness, float("inf"))
        else:
            centred = shaping.baseline(fitness, valid, self.batch_mode == "split")
        utilities = self.fitness_shaping(centred)
        return ops.where(ops.any(valid), utilities, ops.zeros_like(utilities))

    def noise_sums(self, utilities, square_utilities=None, groups=None):
        """Return sum_k u_k z_k for each searched variable, z_k the members' noise.

        Args:
            utilities: [ranked_members] u.
            square_utilities: [ranked_members] v; if given, sum_k v_k (z_k**2 - 1)
                follows for each variable.
            groups: In pure evolution, list of `layerwise.LayerGroup`, which weights
                had noise in which pairs; None for all in all.
        """
        # The noises of a pair are +-z.
        first = square = None
        if self.mirrored:
            first = self.own_pairs(utilities[0::2] - utilities[1::2])
        else:
            first = self.own_pairs(utilities)
        if square_utilities is not None and self.mirrored:
            square = self.own_pairs(square_utilities[0::2] + square_utilities[1::2])
        elif square_utilities is not None:
            square = self.own_pairs(square_utilities)
        if self.pure:
            draws = self.pairs // self.pairs_per_draw
            if groups is None:
                groups = layerwise.whole(self.weight_noise, draws)
            return self._over_ranked(
                lambda: self.weight_noise.grouped_moments(
                    groups, self.generation.value, first, square, self.first_pair
                )
            )

        def term(pair):
            noises = self.noise(pair)
            terms = [first[pair] * z for z in noises]
            if square is not None:
                terms += [square[pair] * (ops.square(z) - 1.0) for z in noises]
            return terms

        return self.sum_over_pairs(term, 1 if square is None else 2)

    def load_own_variables(self, store):
        """Load what was saved; losses of another number of replicas are left out.

        The members that they belong to then count as not evaluated.
        """
        if len(store.keys()) != len(self.variables):
            return super().load_own_variables(store)
        skipped = []
        if self.turns is not None:
            skipped = [id(self.turns.losses), id(self.turns.evaluations)]
        for i, variable in enumerate(self.variables):
            value = store[str(i)]
            if (
                tuple(value.shape) == tuple(variable.shape)
                or id(variable) not in skipped
            ):
                variable.assign(value)

    def get_config(self):
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "population_size": self.population_size,
            "batch_mode": self.batch_mode,
            "fitness": serialize_function(self.fitness),
            "fitness_shaping": shaping.serialize(self.fitness_shaping),
            "sigma": serialize_schedule(self.sigma),
            "members_per_step": self.members_per_step,
            "steps_per_pair": self.steps_per_pair,
            "semi_updates": self.semi_updates,
            "sparsity_schedule": serialized(self.sparsity_schedule),
            "magnitude_pull": serialize_schedule(self.magnitude_pull),
        }
