"""Members that take turns: a few of the population in a step, the rest in the next."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_es.distribution.collectives import (
    assign_all,
    in_multi_worker,
    mean_over_replicas,
    replica_count,
    replica_index,
)
from keras_es.optimizers.options import Turns


def default_turns(strategy, masked_weights):
    """Return members of a step and steps of a pair, by default by what they cost.

    Args:
        strategy: The `EvolutionStrategy`.
        masked_weights: The masked weights that it will search.
    """
    option = strategy.turns or Turns()
    members, held = option.members, option.steps
    cheap = sampling_is_cheap(masked_weights)
    if members is None:
        at_once = cheap or strategy.batch_mode == "full"
        members = strategy.population_size if at_once else 2
    if held is None:
        # What the backward pass says is better heard often.
        held = 8 if strategy.needs_guidance else 16
        held = 1 if cheap or members > 2 else held
    return members, held


def sampling_is_cheap(masked_weights):
    """Tell whether units are few: at most one for each 16 weights.

    Where each weight is a unit, to draw and decode a member costs several times the
    member's forward and backward pass at the usual batch sizes.
    """
    units = sum(m.units for m in masked_weights)
    return 16 * units <= sum(m.size for m in masked_weights)


class TurnTaking:
    """What a population that is spread over steps remembers between them.

    A generation of n members, M of them in a step and each pair held for H steps,
    takes (n / M) * H steps. Scores stay as they are until its end, so the members of
    a pair are a pure function of (seed, generation, pair); their masks are kept, two
    bits for each unit, only to save drawing them again while they are held.

    Args:
        strategy: The `EvolutionStrategy`.
        members_per_step: M, even, divides n.
        steps_per_pair: H.
    """

    def __init__(self, strategy, members_per_step, steps_per_pair):
        self.strategy = strategy
        self.pairs_in_step = members_per_step // 2
        self.steps_per_pair = steps_per_pair
        self.steps = strategy.population_size // members_per_step * steps_per_pair

    def build(self):
        """Create the variables."""
        n = self.strategy.population_size
        self.step = self._variable("step", (), "int64")
        # Of all replicas: a checkpoint keeps one copy, and all of them need theirs.
        shape = (replica_count(), n)
        self.losses = self._variable("losses", shape)
        self.evaluations = self._variable("evaluations", shape)
        masked = self.strategy.masked_weights
        self.guidance, self.held = [], []
        if self.strategy.needs_guidance:
            self.guidance = [
                self._variable(f"guidance_sum_{i}", tuple(m.mask_scores.shape))
                for i, m in enumerate(masked)
            ]
        if self.steps_per_pair > 1:
            # The workers of a strategy cannot send each other shorter integers.
            joined = in_multi_worker(tf.distribute.get_strategy())
            code = "int32" if joined else "uint8"
            self.held = [
                self._variable(
                    f"held_masks_{i}",
                    (self.pairs_in_step, *m.mask_scores.shape),
                    code,
                    aggregation="none",
                )
                for i, m in enumerate(masked)
            ]
            self.held_position = self._variable(
                "held_position", (), "int64", "none", keras.initializers.Constant(-1)
            )

    def begin_again_elsewhere(self, store, variables):
        """Drop half a generation that another number of replicas has begun.

        Args:
            store: Dict from the index of a variable to its saved value; changed.
            variables: All variables of the optimizer.
        """
        keys = {id(v): str(i) for i, v in enumerate(variables)}
        saved = store.get(keys[id(self.losses)])
        if saved is None or tuple(saved.shape) == tuple(self.losses.shape):
            return
        for variable in (self.step, self.losses, self.evaluations, *self.guidance):
            store[keys[id(variable)]] = np.zeros(variable.shape, variable.dtype)
        if self.held:
            store[keys[id(self.held_position)]] = np.asarray(-1)

    def _variable(
        self,
        name,
        shape,
        dtype="float32",
        aggregation="only_first_replica",
        initializer="zeros",
    ):
        return self.strategy.add_variable(
            shape,
            dtype=dtype,
            name=name,
            aggregation=aggregation,
            initializer=initializer,
        )

    @property
    def first_pair(self):
        """Index of the first pair of this step, int32 scalar."""
        turn = self.step.value // self.steps_per_pair
        return tf.cast(turn * self.pairs_in_step, tf.int32)

    @property
    def are_over(self):
        """Whether the last step ended a generation, boolean scalar."""
        return tf.equal(self.step.value, 0)

    # Masks that are held for several steps.

    @property
    def draw_is_due(self):
        """Whether the masks of this step have to be drawn, boolean scalar.

        Not told by the step alone: replicas hold masks of their own, and after a
        restart all but one find those of another replica.
        """
        return tf.not_equal(self.held_position.value, self._position())

    def _position(self):
        pair = tf.cast(self.strategy.global_pair(self.first_pair), tf.int64)
        return self.strategy.generation.value * 2**22 + pair

    def draw(self):
        """Return the two masks of each pair of this step, as bits of an integer."""
        drawn = []
        for j in range(self.pairs_in_step):
            plus, minus = self.strategy.member_masks(self.first_pair + j)
            drawn.append(
                [ops.cast(a, "uint8") + 2 * ops.cast(b, "uint8")
                 for a, b in zip(plus, minus)]
            )  # fmt: skip
        return [ops.stack(codes) for codes in zip(*drawn)]

    def hold(self, drawn):
        """Keep what `draw` returned."""
        for variable, value in zip(self.held, drawn):
            variable.assign(tf.cast(value, variable.dtype))
        self.held_position.assign(self._position())

    def masks(self, pair):
        """Return the masks of the two members of one of the pairs of this step."""
        if not self.held:
            return self.strategy.member_masks(self.first_pair + pair)
        codes = [tf.gather(variable.value, pair) for variable in self.held]
        return [[tf.bitwise.bitwise_and(c, bit) > 0 for c in codes] for bit in (1, 2)]

    # Results of the generation so far.

    def collect(self, fitness, valid, guidance):
        """Add what the members of this step said, and go on to the next step.

        Args:
            fitness: [replicas * M] losses.
            valid: [replicas * M] booleans.
            guidance: Mean dL/dm of the units for each weight by this replica's
                members, or None.
        """
        start = tf.equal(self.step.value, 0)
        known = tf.where(valid, fitness, 0.0)
        members = tf.stack([known, tf.cast(valid, tf.float32)], axis=1)
        members = self._of_generation(members)
        sums = [
            (self.losses, members[..., 0]),
            (self.evaluations, members[..., 1]),
            *zip(self.guidance, mean_over_replicas(guidance or [])),
        ]
        updates = [
            (variable, value + tf.where(start, tf.zeros_like(value), variable.value))
            for variable, value in sums
        ]
        assign_all([*updates, (self.step, (self.step.value + 1) % self.steps)])

    def _of_generation(self, members):
        """Place [replicas * M, 2] of this step among the n members of a generation."""
        size = 2 * self.pairs_in_step
        n = self.strategy.population_size
        columns = tf.one_hot(2 * self.first_pair + tf.range(size), n)
        members = tf.reshape(members, (-1, size, 2))
        return tf.einsum("rmk,mn->rnk", members, columns)

    def fitness(self):
        """Return mean losses and validity of the members that are ranked together."""
        losses, count = self.losses.value, self.evaluations.value
        if self.strategy.ranked_together:
            losses, count = tf.reshape(losses, [-1]), tf.reshape(count, [-1])
        else:
            losses, count = losses[replica_index()], count[replica_index()]
        return losses / tf.maximum(count, 1.0), count > 0.0

    def mean_guidance(self):
        """Return mean dL/dm of the units for each weight, or None."""
        if not self.strategy.needs_guidance:
            return None
        # Each step gave a mean over its valid members.
        count = tf.reduce_sum(self.evaluations.value) / replica_count()
        steps = tf.maximum(count / (2 * self.pairs_in_step), 1.0)
        return [g.value / steps for g in self.guidance]
