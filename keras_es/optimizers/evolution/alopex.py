"""Alopex over all weights."""

import keras
import tensorflow as tf
from keras import ops

from keras_es._arguments import Argument, Refused, decay, optional, schedule
from keras_es.distribution.collectives import assign_all
from keras_es.ops import alopex, noise
from keras_es.optimizers import arguments
from keras_es.optimizers.arguments import value_at
from keras_es.optimizers.base import register
from keras_es.optimizers.search.weights import EvolvesWeights, center_of
from keras_es.populations.given import ValuePopulation


@register
class Alopex(EvolvesWeights):
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
        examples: See `EvolutionStrategy`; replicas average dE.

    Example:

    >>> Alopex(step_size=0.001).population_size
    2

    References:
        Unnikrishnan, Venugopal 1994, Alopex: a correlation-based learning algorithm
        for feedforward and recurrent neural networks.
    """

    needs_none = True
    population_size = 2

    inner_optimizer = Argument(arguments.no_optimizer, None)
    step_size = Argument(schedule, 0.002)
    momentum = Argument(decay, 0.9)
    fitness = Argument(
        optional(arguments.function), None, serialize=arguments.serialize_function
    )
    noise = Refused("each weight moves by +-step_size")
    turns = Refused("its two members are evaluated at once")

    @staticmethod
    def small_search(population_size, sigma):
        """Return arguments for a search in few dimensions: a step that shrinks."""
        schedule = keras.optimizers.schedules.ExponentialDecay(0.2 * sigma, 50, 0.7)
        return {"step_size": schedule}

    def build_search(self):
        """Create the last change of each weight in steps, T, and the last delta."""
        self._signs = self.add_searched("sign")
        self._temperature, self._delta = (
            self.add_variable(
                (), dtype="float32", name=name, aggregation="only_first_replica"
            )
            for name in ("temperature", "last_step_size")
        )

    def member_values(self, indices):
        """Return the values of members: 0 is now, 1 is before the last change."""
        values = []
        for variable, sign, factor in zip(
            self.searched, self._signs, self.space.factors
        ):
            back = ops.reshape(ops.cast(indices, "float32"), (-1, *(1,) * sign.ndim))
            change = self._delta.value * factor * sign.value
            center = ops.cast(variable.value, "float32")
            values.append(center[None] - back * change[None])
        return values

    def members(self):
        """Return the values of both members."""
        return self.member_values(tf.range(2))

    def evaluate_members(self, model, function, batch_size=None, **kwargs):
        """Return the results of both members (see `EvolvesWeights`)."""
        population = ValuePopulation(model, self.space, 2, None, batch_size)
        return population.evaluate(function, self.member_values, **kwargs)

    def search_gradient(self, fitness, valid, guidance):
        """Return [dE]; a member that failed counts as four times T."""
        known = 4.0 * self._temperature.value
        change = ops.where(valid[0], -known, known)
        difference = fitness[0] - fitness[1]
        return [ops.where(ops.all(valid), difference, change)]

    def update_masks(self, search_gradient, ok):
        """Return the next values of what is searched."""
        (change,) = search_gradient
        new = alopex.temperature_update(self._temperature.value, change, self.momentum)
        delta = value_at(self.step_size, self.generation.value)
        delta = ops.cast(delta, "float32")
        state = [(self._temperature, new), (self._delta, delta)]
        values, index = [], range(len(self.searched))
        for i, center, sign in zip(index, center_of(self.searched), self._signs):
            key = noise.stream_key(self.seed, f"alopex {i}")
            position = noise.counter_seed(key, self.generation.value, 0)
            uniform = noise.uniform(tuple(center.shape), position)
            signs = alopex.next_signs(sign.value, change, new, uniform)
            state.append((sign, signs))
            values.append(center + delta * self.space.factors[i] * signs)
        assign_all(state, ok)
        return values
