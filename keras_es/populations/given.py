"""Evaluation of members whose weights are given as they are, by losses alone."""

import keras
import tensorflow as tf

from keras_es.layers.masked_weight import effective_weights
from keras_es.noise.adapters import adapted_calls
from keras_es.populations import chunks, mapping, perturbed


class ValuePopulation:
    """Members that share no center: a list of weights for each of them.

    Args:
        model: Built Keras model.
        space: `SearchSpace` of its variables.
        population_size: n.
        members_per_chunk: Members evaluated at once, a divisor of n, or None: as many
            as keep the weights of a chunk to a million and the largest output of a
            layer to 2**25 numbers.
        batch_size: Examples that each member sees, to choose the chunks by.

    Raises:
        ValueError: If `members_per_chunk` does not divide n.
    """

    def __init__(self, model, space, population_size, members_per_chunk, batch_size):
        self.model, self.space = model, space
        self.population_size = population_size
        self.vectorize = not (perturbed.has_loops(model) or space.masked)
        if members_per_chunk is None:
            members_per_chunk = chunks.members_at_once(
                model, space, population_size, self.vectorize, batch_size or 256
            )
        chunks.check_divides(members_per_chunk, population_size)
        self.members_per_chunk = members_per_chunk

    def evaluate(self, function, values_of, fixed=(), after=None, state=()):
        """Evaluate a function of the model under each member.

        Args:
            function: See `WeightPopulation.evaluate`.
            values_of: Function of indices [chunk] to the values of these members, a
                list of tensors [chunk, *shape] for the variables of the space.
            fixed: See `WeightPopulation.evaluate`.
            after: See `WeightPopulation.evaluate`.
            state: See `WeightPopulation.evaluate`.

        Returns:
            (results, state, None): results with a first axis of n members.
        """
        size = self.members_per_chunk
        count = self.population_size // size

        def member(values):
            values = self.space.bounded(values)
            found = [
                (v, tf.cast(x, v.dtype)) for v, x in zip(self.space.variables, values)
            ]
            mapping = self.space.overrides(found) + list(fixed)
            scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
            with scope, adapted_calls(self.model), effective_weights():
                return function()

        def chunk(i, state):
            values = values_of(i * size + tf.range(size))
            vectorize = self.vectorize and (
                mapping.members_can_be_vectorized(member, values)
            )
            results = mapping.map_members(member, values, vectorize)
            return (results, state) if after is None else after(results, state)

        if count == 1:
            return *chunk(tf.constant(0), state), None
        stacked, state = mapping.map_in_turn(chunk, count, state)
        return tf.nest.map_structure(mapping.join, stacked), state, None
