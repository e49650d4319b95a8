"""What evolution strategies share: population, noise and fitness shaping."""

import tensorflow as tf
from keras import ops

from keras_es._arguments import (
    Argument,
    boolean,
    choice,
    integer,
    optional,
    schedule,
)
from keras_es.layers import tree
from keras_es.noise import layerwise
from keras_es.noise.options import Orthogonal
from keras_es.ops import fitness as shaping
from keras_es.ops import noise
from keras_es.optimizers import arguments
from keras_es.optimizers.arguments import value_at
from keras_es.optimizers.options import Sampled
from keras_es.optimizers.search.ranking import RankedPairs
from keras_es.optimizers.search.turns import TurnTaking, default_turns


class EvolutionStrategy(RankedPairs):
    """Base of evolution strategies over mask scores, or over all variables.

    A member is scores + noise, decoded: Gaussian noise and exact top-k unless
    `member_masks` says otherwise. Members come in antithetic pairs +eps, -eps. With
    `inner_optimizer=None` weights get noise too, and losses alone move them.

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`), or None to
            evolve weights and scores by losses alone (`EvolvesWeights`).
        population_size: Even integer n >= 2, members of one generation; None for 8, or
            with inner_optimizer=None for `default_population_size`.
        batch_mode: Short for `examples`: "split" or "full".
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
        noise: With inner_optimizer=None, a value of `keras_es.noise`: how noise is
            drawn and on what. None for `Full()`.
        examples: What members see of a batch. None for "split", or with
            inner_optimizer=None for "full". "split": with M members in a step, each
            pair gets B/M examples of the batch of B, both members the same ones, so a
            step costs the forward and backward passes of one ordinary step; which half
            of the batch is used is drawn for each step. "full": each member sees all B
            examples, at n times the cost. With inner_optimizer=None "full" or a
            `keras_es.optimizers.Sampled`.
        turns: None or a `keras_es.optimizers.Turns`: how the members of a generation
            take turns in several steps. With inner_optimizer=None a
            `keras_es.optimizers.Chunks`: how many are evaluated at once.
        density: None, or a `keras_es.optimizers.Falling`: the search begins dense, or
            scores follow the magnitudes of units.
        semi_updates: With several replicas of a `tf.distribute` strategy, each
            evaluates `population_size` members of its own. True: each ranks its own,
            on its own examples, and the search gradients are averaged. False: the
            losses of all are gathered and ranked together, as one population.
        seed: Integer seed of the noise.
        name: Name of the optimizer.
    """

    default_population_size = 256
    default_weight_sigma = 0.05

    population_size = Argument(optional(integer(2)), None)
    batch_mode = Argument(optional(choice("split", "full")), None)
    fitness = Argument(
        optional(arguments.function), None, serialize=arguments.serialize_function
    )
    fitness_shaping = Argument(
        arguments.fitness_shaping, "centered_rank",
        serialize=arguments.serialize_shaping,
    )  # fmt: skip
    sigma = Argument(optional(schedule), None)
    density = Argument(optional(arguments.density), None, keyword=True)
    semi_updates = Argument(boolean, True, keyword=True)

    def check_arguments(self):
        """Settle what is left open, and refuse what does not go together."""
        self.batch_mode, self.examples = self._what_members_see()
        if self.population_size is None:
            self.population_size = self.default_population_size if self.pure else 8
        if self.population_size % 2 and self.mirrored:
            raise ValueError(
                "`population_size` must be even: members are antithetic pairs. "
                f"Received: population_size={self.population_size}"
            )
        if self.sigma is None:
            self.sigma = self.default_weight_sigma if self.pure else 0.3
        if self.density is not None:
            self.sparsity_schedule = self.density.schedule
            self.magnitude_pull = self.density.pull
        super().check_arguments()

    def _what_members_see(self):
        """Return `batch_mode` and `examples`, which say the same."""
        examples, mode = self.examples, self.batch_mode
        if examples is None:
            examples = mode or ("full" if self.pure else "split")
        says = "full" if isinstance(examples, Sampled) else examples
        if mode not in (None, says):
            raise ValueError(
                "`batch_mode` is short for `examples`, and the two disagree: give one "
                f"of them. Received: batch_mode={mode!r}, examples={examples!r}"
            )
        return says, examples

    def check_pure(self):
        """Refuse arguments that have no meaning where weights are evolved."""
        super().check_pure()
        if self.density is not None:
            raise ValueError(
                "With inner_optimizer=None masks are as sparse as wanted from the "
                "first generation, and weights and scores are moved by losses alone. "
                f"Received: density={self.density!r}"
            )

    def check_hybrid(self):
        """Refuse arguments of pure evolution, and turns that do not divide."""
        super().check_hybrid()
        members = None if self.turns is None else self.turns.members
        n = self.population_size
        if members is not None and (members % 2 or n % members):
            raise ValueError(
                "`turns` must have an even number of members that divides "
                f"population_size={n}. Received: turns={self.turns!r}"
            )

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
            self.__dict__["taking_turns"] = TurnTaking(self, members, held)
            self.taking_turns.build()

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
        return (
            self.pairs if self.taking_turns is None else self.taking_turns.pairs_in_step
        )

    def step_masks(self, pair):
        """Return the masks of the two members of one of the pairs of this step."""
        if self.taking_turns is None:
            return self.member_masks(pair)
        return self.taking_turns.masks(pair)

    def current(self, value):
        """Return a hyperparameter now: a number, or a schedule of the generation."""
        return value_at(value, self.generation.value)

    def pair_noise(self, pair):
        """Return the standard normal noise of one pair, one tensor for each weight."""
        return self.draw(noise.normal, pair)

    @staticmethod
    def small_search(population_size, sigma):
        """Return arguments for a search in few dimensions (see `minimize`)."""
        return {
            "population_size": population_size, "sigma": sigma, "noise": Orthogonal()
        }  # fmt: skip

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
        drawn, scales, counts = self.pair_noise(pair), self.scales(), self.unit_counts()

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
        utilities = ops.convert_to_tensor(self.fitness_shaping(centred))
        if tuple(utilities.shape) != tuple(centred.shape):
            raise ValueError(
                "`fitness_shaping` must return a utility for each member, of shape "
                f"{tuple(centred.shape)}. Received: shape={tuple(utilities.shape)}"
            )
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
            noises = self.pair_noise(pair)
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
        if self.taking_turns is not None:
            turns = self.taking_turns
            skipped = [id(turns.losses), id(turns.evaluations)]
        for i, variable in enumerate(self.variables):
            value = store[str(i)]
            if (
                tuple(value.shape) == tuple(variable.shape)
                or id(variable) not in skipped
            ):
                variable.assign(value)
