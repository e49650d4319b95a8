"""Evaluation of a population of perturbed weights by losses alone.

Any model works: the members of a draw are traced once, by `tf.vectorized_map` over
their multipliers, with weights overridden in a `keras.StatelessScope`. What does not
depend on the member is computed once for all; what acts on each example alone sees
the members as more examples; dense layers and convolutions share their products
(`keras_es.perturbed_layers`).
"""

import math

import keras
import tensorflow as tf

from keras_es import conversion, perturbed_layers
from keras_es.weight_noise import largest_divisor

CHUNK_WEIGHTS = 2**17
"""Weights of a chunk's draws by default: what a core's cache holds."""


class WeightPopulation:
    """Antithetic pairs of members W + m * sigma * E of a model's weights.

    Args:
        model: Built Keras model.
        noise: `WeightNoise` of the variables that are perturbed.
        population_size: Even integer n; pairs must divide by the draws' pairs.
        members_per_chunk: Members evaluated at once, or None: as many as keep a
            chunk's noise to 131,072 numbers, so that it is used from the cache.

    Raises:
        ValueError: If the sizes do not divide each other.
    """

    def __init__(self, model, noise, population_size, members_per_chunk=None):
        self.model, self.noise = model, noise
        self.population_size = population_size
        members_per_draw = 2 * noise.pairs_per_draw
        if population_size % members_per_draw:
            raise ValueError(
                f"`population_size` must be a multiple of {members_per_draw}, the "
                "members of a draw (two for each of `pairs_per_draw`). "
                f"Received: population_size={population_size}"
            )
        self.draws = population_size // members_per_draw
        self.draws_per_chunk = self._draws_per_chunk(members_per_chunk)
        self.layers = perturbed_layers.shared_kernels(model, noise.variables)
        self.vectorize = not _has_loops(model)

    def _draws_per_chunk(self, members_per_chunk):
        if members_per_chunk is None:
            size = sum(math.prod(v.shape) for v in self.noise.variables)
            return largest_divisor(self.draws, CHUNK_WEIGHTS // max(size, 1))
        per_draw = 2 * self.noise.pairs_per_draw
        if members_per_chunk < 1 or self.population_size % members_per_chunk:
            raise ValueError(
                "`members_per_chunk` must divide the population. Received: "
                f"members_per_chunk={members_per_chunk}, "
                f"population_size={self.population_size}"
            )
        return max(1, largest_divisor(self.draws, members_per_chunk // per_draw))

    def evaluate(self, function, generation, scales, first_pair=0, updated=()):
        """Evaluate a function of the model under each member.

        Args:
            function: Called without arguments while the model's weights are a
                member's; returns a structure of tensors. All members of a generation
                share their dropout noise.
            generation: Integer scalar.
            scales: List of sigmas, one for each variable of the noise.
            first_pair: Index of the first pair, for replicas.
            updated: Variables that the function assigns, such as moving statistics.

        Returns:
            (results, updates): the function's results with a first axis of
            `population_size` members, the two of a pair side by side; and for each
            of `updated` the mean of what members assigned (integers: the first's).
        """
        first_draw = first_pair // self.noise.pairs_per_draw
        chunks = self.draws // self.draws_per_chunk

        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        shared = perturbed_layers.find_shared(
            self.layers, self.noise.variables, function
        )
        self.vectorize_draws = self.vectorize and _may_have_two_more_axes(
            graph.get_operations()[before:]
        )

        def member(factors, multipliers):
            return self._member(function, factors, multipliers, shared, updated)

        def chunk(i):
            start = first_draw + i * self.draws_per_chunk
            return self._chunk(member, generation, scales, start)

        if chunks == 1:
            stacked = chunk(tf.constant(0))
        else:
            stacked = tf.nest.map_structure(_join, _map_in_turn(chunk, chunks))
        results, updates = stacked
        return results, [_mean_update(values) for values in updates]

    def _chunk(self, member, generation, scales, start):
        @tf.function(jit_compile=True, autograph=False)
        def draw(generation, start):
            indices = start + tf.range(self.draws_per_chunk)
            return self.noise.draw(generation, indices, scales)

        def members(drawn):
            factors, multipliers = drawn
            return _map(lambda m: member(factors, m), multipliers, self.vectorize)

        drawn = draw(generation, start)
        if self.draws_per_chunk == 1:
            return members(tf.nest.map_structure(lambda t: t[0], drawn))
        results = _map(members, drawn, self.vectorize_draws)
        return tf.nest.map_structure(_join, results)

    def _member(self, function, factors, multipliers, shared, updated):
        keys = [id(v) for v in self.noise.variables]
        split = [key in self.layers for key in keys]
        mapping = []
        values = self.noise.value(factors, multipliers)
        for variable, change, apart in zip(self.noise.variables, values, split):
            if not apart:
                value = tf.convert_to_tensor(variable.value)
                mapping.append((variable, value + tf.cast(change, value.dtype)))
        scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
        perturbed = perturbed_layers.perturbed_calls(
            self.layers,
            dict(zip(keys, self.noise.perturbations)),
            dict(zip(keys, factors)),
            dict(zip(keys, multipliers)),
            shared,
        )
        with scope, perturbed:
            result = function()
        return result, [_current(scope, v) for v in updated]


def _map(function, elements, at_once):
    """Map over the first axis, all at once or one after the other."""
    if at_once:
        return tf.vectorized_map(function, elements)
    rows = zip(*(tf.unstack(e) for e in tf.nest.flatten(elements)))
    rows = [tf.nest.pack_sequence_as(elements, row) for row in rows]
    results = [function(row) for row in rows]
    return tf.nest.map_structure(lambda *values: tf.stack(values), *results)


def _may_have_two_more_axes(operations):
    """Tell whether operations take an axis of draws besides that of members.

    TensorFlow's softmax for recent processors (oneDNN) takes five axes at most, and
    that of attention has four.
    """
    return all(
        op.inputs[0].shape.rank in (None, 1, 2, 3)
        for op in operations
        if op.type in ("Softmax", "LogSoftmax")
    )


def _has_loops(model):
    """Tell whether a model has loops over time, which XLA cannot vectorize."""
    return any(
        isinstance(layer, keras.layers.RNN) for _, layer in conversion.walk(model)
    )


def _current(scope, variable):
    value = scope.get_current_value(variable)
    return tf.convert_to_tensor(variable.value if value is None else value)


def _mean_update(values):
    return tf.reduce_mean(values, axis=0) if values.dtype.is_floating else values[0]


def _join(tensor):
    """Make one axis of the first two."""
    return tf.reshape(tensor, (-1, *tensor.shape[2:]))


def _map_in_turn(function, count):
    """Return the stacked results of function(0) ... function(count - 1), one by one."""
    structure = tf.nest.map_structure(
        lambda s: tf.zeros((count, *s.shape), s.dtype), _result_spec(function)
    )

    def body(i, results):
        values = function(i)
        return i + 1, tf.nest.map_structure(
            lambda r, v: tf.tensor_scatter_nd_update(r, [[i]], v[None]),
            results,
            values,
        )

    loop = (tf.constant(0), structure)
    return tf.while_loop(lambda i, _: i < count, body, loop, parallel_iterations=1)[1]


def _result_spec(function):
    """Trace a function on the side for the shapes of its results; nothing runs."""
    spec = tf.TensorSpec((), tf.int32)
    traced = tf.function(function, autograph=False).get_concrete_function(spec)
    return traced.structured_outputs
