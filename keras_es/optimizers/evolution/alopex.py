"""Alopex over all weights."""

import keras
from keras import ops

from keras_es._arguments import Argument, Refused, decay, optional, schedule
from keras_es.noise.options import Active
from keras_es.ops import alopex, noise
from keras_es.optimizers import arguments
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.registry import register
from keras_es.optimizers.search.weights import ValueSearch


@register("alopex")
class Alopex(EvolutionStrategy):
    """Every weight moves by +-delta at each step; what lowered the loss goes on.

        P(-delta) = 1/(1 + exp(-dw dE/T)),    T = running mean of |dw dE|,

    dw the last change of the weight and dE what all changes together did to the loss.
    dE is the difference of two members on the same examples, the weights now and
    before their last change, so that it does not hold the noise of the batches.

    Args:
        inner_optimizer: None: Alopex evolves the weights.
        step_size: delta or a schedule; scores of masks move by ten times that.
        momentum: Of the running mean T, in [0, 1).
        fitness: None or a function (see `EvolutionStrategy`).
        seed: Integer seed of the noise.
        name: Name of the optimizer.
        batch_mode: See `EvolutionStrategy`; replicas average dE.
        noise: None, or `keras_es.noise.Active()`: masks rest, active weights move.

    Example:

    >>> Alopex(step_size=0.001).population_size
    2

    References:
        Unnikrishnan, Venugopal 1994, Alopex: a correlation-based learning algorithm
        for feedforward and recurrent neural networks.
    """

    mask_search, weight_search = None, ValueSearch

    noises = (Active,)

    step_size = Argument(schedule, 0.002)
    momentum = Argument(decay, 0.9)
    batch_mode = Argument(optional(arguments.batch_mode), None, keyword=True)
    population_size = Refused("its members are two, now and before the last change", 2)
    fitness_shaping = Refused("it compares two losses as they are")
    sigma = Refused("each weight moves by +-step_size", 0.0)
    density = Refused("its masks are as sparse as wanted from the first step")
    semi_updates = Refused("replicas average what a change did", True)
    turns = Refused("its two members are evaluated at once")

    @staticmethod
    def small_search(population_size, sigma):
        """Return arguments for a search in few dimensions: a step that shrinks."""
        schedule = keras.optimizers.schedules.ExponentialDecay(0.2 * sigma, 50, 0.7)
        return {"step_size": schedule}

    def build_search(self):
        """Create the last change of each weight in steps, T, and the last delta."""
        self._signs = self.search.add("sign")
        self._temperature, self._delta = (
            self.add_variable(
                (), dtype="float32", name=name, aggregation="only_first_replica"
            )
            for name in ("temperature", "last_step_size")
        )

    def member_values(self):
        """Return a function from indices to members: even ones are now, odd before."""

        def values_of(indices):
            back, values = ops.cast(indices % 2, "float32"), []
            for center, sign, factor in zip(
                self.search.centers(), self._signs, self.search.factors
            ):
                change = self._delta.value * factor * sign.value
                each = ops.reshape(back, (-1, *(1,) * sign.ndim))
                change = ops.cast(each * change[None], center.dtype)
                values.append(center[None] - change)
            return values

        return values_of

    def estimate(self, fitness, valid, said):
        """Return dE, and 1, or twice 0 where both failed or saw no examples.

        One member that failed counts as four times T.
        """
        known = 4.0 * self._temperature.value
        change = ops.where(valid[0], -known, known)
        change = ops.where(ops.all(valid), fitness[0] - fitness[1], change)
        heard = ops.cast(ops.any(valid), change.dtype)
        return [heard * change, heard]

    def update(self, estimate, ok):
        """Draw the next change of every weight."""
        change, heard = estimate  # means over replicas
        estimate = change / ops.where(heard > 0, heard, 1.0)
        new = alopex.temperature_update(
            self._temperature.value, estimate, self.momentum
        )
        delta = ops.cast(self.current(self.step_size), "float32")
        centers, signs = [], []
        for i, (center, sign, factor) in enumerate(
            zip(self.search.centers(), self._signs, self.search.factors)
        ):
            key = noise.stream_key(self.seed, f"alopex {i}")
            position = noise.counter_seed(key, self.generation.value, 0)
            uniform = noise.uniform(tuple(center.shape), position)
            signs.append(alopex.next_signs(sign.value, estimate, new, uniform))
            change = ops.cast(delta * factor * signs[-1], center.dtype)
            centers.append(center + change)
        state = [(self._temperature, new), (self._delta, delta)]
        return centers, state + list(zip(self._signs, signs))
