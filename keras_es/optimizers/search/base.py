"""`Search`: what an evolution strategy moves, and the members that it tries."""

import keras
from keras import ops

from keras_es.optimizers.search.space import full_dtype


class Search:
    """Part of an `EvolutionStrategy`: masks by their scores, or weights and masks.

    The strategy says how a distribution moves; its search knows of what, draws the
    members, adds up their noise, and puts new centers back. `MaskSearch` and
    `WeightSearch` answer the same calls, so a strategy need not ask which one it has.

    Args:
        strategy: The `EvolutionStrategy`, with its arguments but not yet built.

    Attributes:
        variables: The searched variables, once `build` was called.
        factors: For each of them, its noise in units of the strategy's sigma.
    """

    default_population_size = 8
    default_sigma = 0.3
    default_batch_mode = "split"

    scheduled_turns = None
    """`TurnTaking` if a generation takes several steps."""

    def __init__(self, strategy):
        self.strategy = strategy
        self.variables, self.factors = [], []

    # What a strategy asks.

    def centers(self):
        """Return the values of the searched variables, float32 or float64."""
        return [ops.cast(v.value, full_dtype(v)) for v in self.variables]

    def noise(self, pair):
        """Return the standard normal noise of one pair, for each searched variable.

        Args:
            pair: Index among the pairs of this replica, integer scalar.
        """
        raise NotImplementedError

    def noise_sums(self, utilities, square_utilities=None, said=None):
        """Return sum_k u_k z_k for each searched variable, z_k the members' noise.

        Args:
            utilities: [ranked_members] u.
            square_utilities: [ranked_members] v; if given, the result is a pair: the
                sums and sum_k v_k (z_k**2 - 1), two lists.
            said: What `EvolutionStrategy.estimate` was given.
        """
        first, square = self._of_pairs(utilities, square_utilities)
        sums = self._sums(first, square, said)
        if square is None:
            return sums
        count = len(self.variables)
        return sums[:count], sums[count:]

    def _of_pairs(self, utilities, square_utilities):
        """Return the weights of this replica's pairs, whose noises are +-z."""
        strategy, first, square = self.strategy, utilities, square_utilities
        if strategy.mirrored:
            first = utilities[0::2] - utilities[1::2]
            if square is not None:
                square = square[0::2] + square[1::2]
        own = strategy.ranking.own_pairs
        return own(first), None if square is None else own(square)

    def _sums(self, first, square, said):
        raise NotImplementedError

    def dimension(self, variable):
        """Return the number of coordinates of the search that a variable is of."""
        raise NotImplementedError

    def mean_rate(self, dimension):
        """Return the default learning rate of a mean of so many coordinates."""
        raise NotImplementedError

    def refuse_optimizers(self, names):
        """Refuse optimizers that there is nothing for.

        Args:
            names: Names of those arguments of the strategy that are optimizers.
        """

    @property
    def optimizers(self):
        """Which optimizer moves what, if the strategy leaves it to Keras optimizers.

        A dict from the name of an argument of the strategy to a function of no
        arguments that returns searched variables.
        """
        raise NotImplementedError

    def centred(self, fitness, valid):
        """Return [n] losses without what noise has no part in; +inf for failures."""
        raise NotImplementedError

    def put_outputs(self, estimates, fitness, utilities, valid, said, scale=None):
        """Put what noise on outputs said in the places of its weights.

        Args:
            estimates: What noise on weights said, for each searched variable.
            fitness: [n] losses.
            utilities: [n] of them, in whose units the result is.
            valid: [n] booleans.
            said: What `EvolutionStrategy.estimate` was given.
            scale: None, or a function (variable's index, gradient) -> estimate.

        Returns:
            The list `estimates` with the weights' own.
        """
        return estimates

    def add(self, name, values=None, copies=()):
        """Create a float32 variable of the strategy for each searched one.

        Args:
            name: Name of the variables, to which an index is added.
            values: First value of each, None for 0.
            copies: Axes before those of the searched variable.
        """
        values = [0.0] * len(self.variables) if values is None else values
        return [
            self.add_one(f"{name}_{i}", (*copies, *variable.shape), value)
            for i, (variable, value) in enumerate(zip(self.variables, values))
        ]

    def add_one(self, name, shape=(), value=0.0):
        """Create one float32 variable of the strategy, the same on all replicas."""
        return self.strategy.add_variable(
            tuple(shape),
            initializer=keras.initializers.Constant(value),
            dtype="float32",
            name=name,
            aggregation="only_first_replica",
        )

    # What the strategy's base asks.

    def follow_masks(self):
        """Look where masks are now, outside of steps, if the search hangs on it."""

    def check(self):
        """Refuse arguments of the strategy that belong to another search."""

    def build(self, variables):
        """Take the variables on.

        Args:
            variables: All trainable variables.
        """
        raise NotImplementedError

    def prepare(self):
        """Create what state the members need, before that of the strategy."""

    def begin(self):
        """Create what state the course of steps needs, after that of the strategy."""

    def steps_per_generation(self, model):
        """Return how many steps of `fit` a generation takes."""
        return 1

    def population(self, model, batch):
        """Return what evaluates the members of a step.

        Args:
            model: Compiled `ESModel`.
            batch: (x, y, sample_weight).
        """
        raise NotImplementedError

    def put_back(self, centers, ok):
        """Set new centers, deploy the masks of the new scores, and count.

        Args:
            centers: List of tensors, one for each searched variable; None: they stay.
            ok: Boolean scalar; if False nothing changes.
        """
        raise NotImplementedError

    def masks_decoded(self, scores, units, ok):
        """Follow the new scores and the deployed unit masks (see `MaskOptimizer`)."""

    def load(self, store):
        """Load the strategy's variables.

        Args:
            store: Dict from the index of a variable to its saved value.

        Returns:
            Whether it was done here.
        """
        return False
