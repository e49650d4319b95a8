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
from keras_es._vectorizing import can_be_vectorized, depending_on
from keras_es.layers.masked_weight import effective_weights
from keras_es.output_noise import perturbed_outputs
from keras_es.weight_noise import largest_divisor

CHUNK_WEIGHTS = 2**18
"""Weights of a chunk's draws by default: what a core's cache holds."""

CHUNK_ACTIVATIONS = 2**25
"""Largest output of a layer by default, of all members of a chunk together."""


class WeightPopulation:
    """Antithetic pairs of members W + m * sigma * E of a model's weights.

    Args:
        model: Built Keras model.
        noise: `WeightNoise` of the variables that are perturbed.
        population_size: Even integer n; pairs must divide by the draws' pairs.
        members_per_chunk: Members evaluated at once, or None: as many as keep a
            chunk's noise to 262,144 numbers, so that it is used from the cache, and
            the largest output of a layer to 2**25.
        space: `SearchSpace` of the variables, or None if masks do not move.
        batch_size: Examples that each member sees, to choose the chunks by.
        output_noise: None, or `OutputNoise` for the layers that it is better for.

    Raises:
        ValueError: If the sizes do not divide each other.
    """

    def __init__(
        self,
        model,
        noise,
        population_size,
        members_per_chunk=None,
        space=None,
        batch_size=None,
        output_noise=None,
    ):
        self.model, self.noise, self.space = model, noise, space
        self.output_noise = output_noise
        self.population_size = population_size
        per_draw = noise.members_per_draw
        if population_size % per_draw:
            raise ValueError(
                f"`population_size` must be a multiple of {per_draw}, the members of "
                "a draw (for mirrored noise, two for each of `pairs_per_draw`). "
                f"Received: population_size={population_size}"
            )
        masks_move = space is not None and bool(space.masked)
        self.vectorize = not (has_loops(model) or masks_move)
        self.draws = population_size // per_draw
        self.draws_per_chunk = self._draws_per_chunk(members_per_chunk, batch_size)
        self.layers = perturbed_layers.shared_kernels(model, noise.variables)

    def _draws_per_chunk(self, members_per_chunk, batch_size):
        per_draw = self.noise.members_per_draw
        if members_per_chunk is None:
            size = sum(math.prod(v.shape) for v in self.noise.variables)
            limit = CHUNK_WEIGHTS // max(size, 1)
            outputs = largest_output(self.model) * (batch_size or 256)
            limit = min(limit, CHUNK_ACTIVATIONS // (outputs * per_draw))
            return largest_divisor(self.draws, limit)
        if members_per_chunk < 1 or self.population_size % members_per_chunk:
            raise ValueError(
                "`members_per_chunk` must divide the population. Received: "
                f"members_per_chunk={members_per_chunk}, "
                f"population_size={self.population_size}"
            )
        return max(1, largest_divisor(self.draws, members_per_chunk // per_draw))

    def evaluate(
        self,
        function,
        generation,
        scales,
        first_pair=0,
        updated=(),
        fixed=(),
        after=None,
        state=(),
    ):
        """Evaluate a function of the model under each member.

        Args:
            function: Called without arguments while the model's weights are a
                member's; returns a structure of tensors. All members of a generation
                share their dropout noise. With `output_noise` it returns (structure,
                contributions), the part of the fitness that hangs on each example.
            generation: Integer scalar.
            scales: List of sigmas, one for each variable of the noise.
            first_pair: Index of the first pair, for replicas.
            updated: Variables that the function assigns, such as moving statistics.
            fixed: List of (variable, tensor) of what all members read besides.
            after: None, or a function (results, state) -> (results, state) that is
                called once for the members of each chunk, with a first axis of them.
            state: Structure of tensors that `after` begins with.

        Returns:
            (results, updates, state, found): the function's results with a first axis
            of `population_size` members, the two of a pair side by side; for each of
            `updated` the mean of what members assigned (integers: the first's);
            the last state of `after`; and (variables, gradients), what noise on
            outputs says of the weights that have none themselves.
        """
        first_draw = first_pair // self.noise.pairs_per_draw
        layers = self.layers
        if self.output_noise is not None:
            own = perturbed_layers.own_layers(self.model, self.noise.variables)
            layers = {**layers, **own}
        shared, differing, calls = perturbed_layers.find_shared(
            layers, self.noise.variables, function
        )
        outputs = perturbed_outputs(self.output_noise, calls)
        noise = self.noise.without(outputs.variables)
        vectorize = self.vectorize and can_be_vectorized(differing)
        # Without vectorizing, draws at once would be copies of the graph.
        together = vectorize and _may_have_two_more_axes(differing)
        draws = self.draws_per_chunk if together else 1
        chunks = self.draws // draws

        def by_key(values):
            return dict(zip(map(id, noise.variables), values))

        def member(factors, signs, multipliers):
            mapping = self._member_values(noise, factors, multipliers) + list(fixed)
            scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
            by_weights = perturbed_layers.perturbed_calls(
                {k: v for k, v in self.layers.items() if k not in outputs.keys},
                by_key(noise.perturbations),
                by_key(factors),
                by_key(multipliers),
                shared,
            )
            by_outputs = outputs.calls(signs, by_key(multipliers), shared)
            with scope, by_weights, by_outputs, effective_weights():
                result = function()
            return result, [_current(scope, v) for v in updated]

        def chunk(i, state):
            state, sums = state
            indices = first_draw + i * draws + tf.range(draws)
            factors, multipliers = self._draw(noise, generation, scales, indices)
            signs = outputs.draw(generation, indices)
            drawn = factors, signs, multipliers
            results, updates = _chunk(member, drawn, draws, vectorize)
            if self.output_noise is not None:
                results, contributions = results
                sums = outputs.add(sums, signs, by_key(multipliers), contributions)
            if after is not None:
                results, state = after(results, state)
            return (results, updates), (state, sums)

        state = (state, outputs.zeros())
        if chunks == 1:
            stacked, state = chunk(tf.constant(0), state)
        else:
            stacked, state = map_in_turn(chunk, chunks, state)
            stacked = tf.nest.map_structure(join, stacked)
        (results, updates), (state, sums) = stacked, state
        pairs = self.draws * self.noise.pairs_per_draw
        found = outputs.variables, outputs.gradients(sums, pairs)
        return results, [_mean_update(values) for values in updates], state, found

    def _draw(self, noise, generation, scales, indices):
        @tf.function(jit_compile=True, autograph=False)
        def draw(generation, indices):
            return noise.draw(generation, indices, scales)

        return draw(generation, indices)

    def _member_values(self, noise, factors, multipliers):
        """Return (variable, tensor) of what layers do not add up themselves."""
        mapping = []
        values = noise.value(factors, multipliers)
        for variable, change in zip(self.noise.variables, values):
            if id(variable) not in self.layers:
                value = tf.convert_to_tensor(variable.value)
                mapping.append((variable, value + tf.cast(change, value.dtype)))
        return mapping if self.space is None else self.space.overrides(mapping)


def _chunk(member, drawn, draws, vectorize):
    """Return the results of the members of some draws, with a first axis of them."""

    def members(drawn):
        *same, multipliers = drawn
        return map_members(lambda m: member(*same, m), multipliers, vectorize)

    if draws == 1:
        return members(tf.nest.map_structure(lambda t: t[0], drawn))
    return tf.nest.map_structure(join, tf.vectorized_map(members, drawn))


def map_members(function, elements, vectorize):
    """Map over the first axis.

    Args:
        function: Of one element, which evaluates a member.
        elements: List of tensors with a first axis of members.
        vectorize: Whether all at once, or one after the other.
    """
    if vectorize:
        return tf.vectorized_map(function, elements)
    members = elements[0].shape[0]
    if members > 2:  # A loop, for one copy of the graph each would be large.
        return map_in_turn(lambda i, _: (function(_row(elements, i)), ()), members)[0]
    results = [function(_row(elements, i)) for i in range(members)]
    return tf.nest.map_structure(lambda *values: tf.stack(values), *results)


def _row(elements, i):
    return [e[i] for e in elements]


def members_can_be_vectorized(function, elements):
    """Tell whether `map_members` can evaluate all at once, by what is computed.

    The function is called with the first member; its results are not used.
    """
    if not tf.inside_function():
        return True  # Not compiled by XLA, which alone refuses loops.
    first = _row(elements, 0)
    function(first)
    return can_be_vectorized(depending_on(*first))


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


def has_loops(model):
    """Tell whether a model has loops over time, which XLA cannot vectorize."""
    return any(
        isinstance(layer, keras.layers.RNN) for _, layer in conversion.walk(model)
    )


def largest_output(model):
    """Return the size of the largest output of a layer for one example, if known."""
    sizes = [1]
    for _, layer in conversion.walk(model):
        try:
            outputs = keras.tree.flatten(layer.output)
        except (AttributeError, ValueError):
            continue  # Called within a composite, or more than once.
        sizes += [math.prod(d or 1 for d in o.shape[1:]) for o in outputs]
    return max(sizes)


def _current(scope, variable):
    value = scope.get_current_value(variable)
    return tf.convert_to_tensor(variable.value if value is None else value)


def _mean_update(values):
    return tf.reduce_mean(values, axis=0) if values.dtype.is_floating else values[0]


def join(tensor):
    """Make one axis of the first two."""
    if tensor.shape[2:].is_fully_defined():
        return tf.reshape(tensor, (-1, *tensor.shape[2:]))
    return tf.reshape(tensor, tf.concat([[-1], tf.shape(tensor)[2:]], axis=0))


def map_in_turn(function, count, state=()):
    """Return the stacked results of function(0) ... function(count - 1), one by one.

    Args:
        function: (i, state) -> (results, state).
        count: Number of calls.
        state: Structure of tensors that the first call gets.

    Returns:
        (results, state): results with a first axis of calls, and the last state.
    """

    def put(results, i, values):
        return tf.nest.map_structure(
            lambda r, v: tf.tensor_scatter_nd_update(r, [[i]], v[None]), results, values
        )

    def body(i, results, state):
        values, state = function(i, state)
        return i + 1, put(results, i, values), state

    spec, first = _result_spec(function, state), 0
    if all(s.shape.is_fully_defined() for s in tf.nest.flatten(spec)):
        results = tf.nest.map_structure(
            lambda s: tf.zeros((count, *s.shape), s.dtype), spec
        )
    else:  # The last batch is smaller: the first call tells its size.
        values, state = function(tf.constant(0), state)
        results = tf.nest.map_structure(lambda v: _rows_like(v, count), values)
        results, first = put(results, 0, values), 1
    loop = (tf.constant(first), results, state)
    return tf.while_loop(lambda i, *_: i < count, body, loop, parallel_iterations=1)[1:]


def _rows_like(value, count):
    zeros = tf.zeros(tf.concat([[count], tf.shape(value)], axis=0), value.dtype)
    return tf.ensure_shape(zeros, (count, *value.shape))


def _result_spec(function, state):
    """Trace a function on the side for the shapes of its results; nothing runs."""
    traced = tf.function(lambda i: function(i, state)[0], autograph=False)
    spec = tf.TensorSpec((), tf.int32)
    return traced.get_concrete_function(spec).structured_outputs
