"""What evolution strategies share: population, noise and fitness shaping."""

from typing import Any

import keras
from keras import ops

from keras_es import schedules
from keras_es._arguments import (
    Argument,
    boolean,
    integer,
    optional,
    schedule,
)
from keras_es.distribution.collectives import assign_all, replica_count
from keras_es.noise.options import Active, Full, LowRank, Orthogonal
from keras_es.ops import fitness as shaping
from keras_es.optimizers import arguments
from keras_es.optimizers.arguments import value_at
from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.options import Falling
from keras_es.optimizers.search.ask_tell import AskTell
from keras_es.optimizers.search.masks import MaskSearch
from keras_es.optimizers.search.ranking import Ranking
from keras_es.optimizers.search.weights import WeightSearch

FALLING = 0.4
"""Share of a run in which masks that begin dense get sparse."""

PULL = 0.1
"""Share of the way to the magnitudes that scores go in each step, begun dense."""


class EvolutionStrategy(MaskOptimizer):
    """Base of evolution strategies over mask scores, or over all variables.

    A member is scores + noise, decoded: Gaussian noise and exact top-k unless
    `member_masks` says otherwise. Members come in antithetic pairs +eps, -eps. With
    `inner_optimizer=None` weights get noise too, and losses alone move them.

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`), or None to
            evolve weights and scores by losses alone.
        population_size: Even integer n >= 2, members of one generation; None for 8, or
            with inner_optimizer=None for `default_population_size`.
        batch_mode: What members see of a batch. None for "split", or with
            inner_optimizer=None for "full". "split": with M members in a step, each
            pair gets B/M examples of the batch of B, both members the same ones, so a
            step costs the forward and backward passes of one ordinary step; which half
            of the batch is used is drawn for each step. "full": each member sees all B
            examples, at n times the cost. With inner_optimizer=None "full" or a
            `keras_es.optimizers.Sampled`.
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
        masked_out: "rest" or "learn" (see `MaskOptimizer`).
    """

    default_population_size = 256
    default_weight_sigma = 0.05

    mask_search: Any = MaskSearch
    """What it searches beside an optimizer of the weights; None: it evolves weights."""

    weight_search: Any = WeightSearch
    """What it searches with `inner_optimizer=None`; None: it moves masks only."""

    mirrored = True
    """Whether members come in pairs +noise, -noise."""

    separable = False
    """Whether each coordinate has a sigma of its own."""

    noises: tuple = (Full, LowRank, Orthogonal, Active)
    """The kinds of noise that it can do with in pure evolution."""

    inner_optimizer = Argument(optional(arguments.optimizer_of_weights))
    population_size = Argument(optional(integer(2)), None)
    batch_mode = Argument(optional(arguments.batch_mode), None)
    fitness = Argument(
        optional(arguments.function), None, serialize=arguments.serialize_function
    )
    fitness_shaping = Argument(
        arguments.fitness_shaping,
        "centered_rank",
        serialize=arguments.serialize_shaping,
    )
    sigma = Argument(optional(schedule), None)
    noise = Argument(optional(arguments.noise), None, keyword=True)
    turns = Argument(optional(arguments.turns), None, keyword=True)
    density = Argument(optional(arguments.density), None, keyword=True)
    semi_updates = Argument(boolean, True, keyword=True)

    def __init_subclass__(cls, **kwargs):
        cls.trains_by_gradients = cls.mask_search is not None
        cls.evolves_weights = cls.weight_search is not None
        if cls.mask_search is None:
            cls.inner_optimizer = Argument(arguments.no_optimizer, None)
        elif cls.weight_search is None:
            cls.inner_optimizer = Argument(arguments.optimizer_of_weights)
        super().__init_subclass__(**kwargs)

    def check_arguments(self):
        """Choose the search, settle what is left open, refuse what does not fit."""
        # The only place that looks at it: everybody else asks the search.
        pure = self.inner_optimizer is None
        search = (self.weight_search if pure else self.mask_search)(self)
        # Not through Keras's tracking of attributes, which is for state.
        self.__dict__.update(search=search, ranking=Ranking(self))
        self.__dict__["inner"] = search.inner(self)
        if self.batch_mode is None:
            self.batch_mode = search.default_batch_mode
        if self.population_size is None:
            self.population_size = search.default_population_size
        if self.population_size % 2 and self.mirrored:
            raise ValueError(
                "`population_size` must be even: members are antithetic pairs. "
                f"Received: population_size={self.population_size}"
            )
        if self.sigma is None:
            self.sigma = search.default_sigma
        search.check()
        if self.density is not None:
            self.sparsity_schedule = self.density.schedule
            self.magnitude_pull = self.density.pull

    def require_initial_sigma(self):
        """Raise for a schedule or 0 where sigma is where adaption begins."""
        if not isinstance(self.sigma, float) or self.sigma == 0:
            raise ValueError(
                f"`sigma` of {type(self).__name__} is the initial std, which then "
                "adapts itself: it must be a number above 0. "
                f"Received: sigma={self.sigma!r}"
            )

    @classmethod
    def settle(cls, run):
        """Let a search that may begin dense do so, and follow magnitudes at first."""
        if not run.dense:
            return {}
        falling = schedules.PolynomialSparsity(max(1, int(FALLING * run.steps)))
        pull = None
        # Of a single weight, the backward pass says more than its magnitude.
        if run.few or not cls.needs_guidance:
            share = 1.0 - (1.0 - PULL) ** run.generation
            decays = keras.optimizers.schedules
            pull = decays.PolynomialDecay(share, run.searched, 0.0)
        return {"density": Falling(falling, pull)}

    # What a strategy overrides.

    def build_search(self):
        """Create the state of the search, by `self.search.add`."""

    def scales(self):
        """Return the scale of the noise of each searched variable."""
        sigma = self.current(self.sigma)
        return [sigma * factor for factor in self.search.factors]

    def member_values(self):
        """Return a function from indices [k] to the values of these members.

        Of strategies whose `weight_search` is `ValueSearch`: a list of tensors
        [k, *shape], one for each searched variable. Indices count the members of all
        replicas.
        """
        raise NotImplementedError

    # What it has for that.

    def current(self, value):
        """Return a hyperparameter now: a number, or a schedule of the generation."""
        return value_at(value, self.generation.value)

    @property
    def by_rank(self) -> Any:
        """Whether of the losses only their order counts."""
        return self.fitness_shaping in shaping.BY_RANK

    def initial_stds(self):
        """Return the first std of each searched variable."""
        return [self.sigma * factor for factor in self.search.factors]

    def utilities(self, fitness, valid):
        """Shape the fitness; members that failed are worst, all zero if all failed.

        Raises:
            ValueError: If the shaping function returns another shape.
        """
        centred = self.search.centred(fitness, valid)
        return shaping.shaped(self.fitness_shaping, centred, ops.any(valid))

    @staticmethod
    def small_search(population_size, sigma):
        """Return arguments for a search in few dimensions (see `minimize`)."""
        common = {"population_size": population_size, "sigma": sigma}
        return {**common, "noise": Orthogonal()}

    # Ask and tell.

    def ask(self):
        """Return the population: a tensor [n, *shape] for each searched variable.

        The same until `tell`: members are a function of (seed, generation).

        Raises:
            ValueError: If `build` was not called, or weights have an optimizer.
        """
        return self.loop().ask()

    def tell(self, fitness):
        """Move what is searched by the losses of the population of `ask`.

        Args:
            fitness: [n] losses, lower is better; NaN and infinity rank worst. They
                are compared in float64.

        Raises:
            ValueError: If it has another shape, or as for `ask`.
        """
        self.loop().tell(fitness)

    def loop(self):
        """Return its `AskTell`, traced once."""
        if "ask_tell" not in self.__dict__:
            self.__dict__["ask_tell"] = AskTell(self)
        return self.ask_tell

    # What the train step asks.

    def build(self, variables):
        """Create the state of the search, and of the optimizer of the weights."""
        if self.built:
            return
        super().build(variables)
        self.search.begin()

    def build_state(self, variables):
        """Create what state the method has, in the order of saved files."""
        self.search.build(variables)
        self.search.prepare()
        super().build_state(variables)

    def population(self, model, *batch):
        """Return what evaluates the members of a step."""
        return self.search.population(model, batch)

    @property
    def taking_turns(self):
        """`TurnTaking` if a generation takes several steps, or None."""
        return self.search.scheduled_turns

    @property
    def pairs(self):
        """Number of pairs in the population; members that are not mirrored are one."""
        return self.population_size // self.members_per_pair

    @property
    def members_per_pair(self):
        """2, or 1 if members are independent."""
        return 2 if self.mirrored else 1

    @property
    def pairs_in_step(self):
        """Number of pairs that are evaluated in one step."""
        turns = self.taking_turns
        return self.pairs if turns is None else turns.pairs_in_step

    @property
    def ranked_together(self):
        """Whether the members of several replicas are one population."""
        return not self.semi_updates and replica_count() > 1

    def steps_per_generation(self, model):
        """Return how many steps of `fit` of a model a generation takes: (n/M) * H.

        Schedules of `sigma` and of the score optimizer count generations.
        """
        return self.search.steps_per_generation(model)

    def member_masks(self, pair):
        """Return the masks of the two members of a pair (see `MaskOptimizer`)."""
        return self.search.member_masks(pair)

    def step_masks(self, pair):
        """Return the masks of the two members of one of the pairs of this step."""
        turns = self.taking_turns
        return self.member_masks(pair) if turns is None else turns.masks(pair)

    def search_rests(self):
        """Return whether sigma is 0 by its schedule."""
        if isinstance(self.sigma, float):
            return False
        return ops.equal(self.current(self.sigma), 0.0)

    def end_generation(self, estimate, ok):
        """Move what is searched, and count."""
        centers, state = self.update(estimate, ok)
        self.search.put_back(centers, ok)
        assign_all(state, ok)

    def masks_decoded(self, scores, units, ok):
        """Let the search follow."""
        self.search.masks_decoded(scores, units, ok)

    def follow_masks(self):
        """Look where masks are now that others have set them (see `MaskOptimizer`)."""
        if self.built:
            self.search.follow_masks()

    def load_own_variables(self, store):
        """Load what was saved, by any number of replicas."""
        if not self.search.load(store):
            super().load_own_variables(store)
