"""Evaluation of a population of perturbed weights by losses alone.

Any model works: the members of a draw are traced once, by `tf.vectorized_map` over
their multipliers, with weights overridden in a `keras.StatelessScope`. What does not
depend on the member is computed once for all; what acts on each example alone sees
the members as more examples; dense layers and convolutions share their products
(`keras_es.noise.layer_calls`), tables of embeddings and frozen weights below adapters
are one for all (`lookups`, `adapters`).
"""

import contextlib

import keras
import tensorflow as tf

from keras_es._compat.vectorizing import can_be_vectorized
from keras_es.layers import tree
from keras_es.layers.masked_weight import effective_weights
from keras_es.noise import layer_calls, layerwise, shared_products
from keras_es.noise.adapters import adapted_calls
from keras_es.noise.lookups import lookups, perturbed_lookups
from keras_es.noise.outputs import perturbed_outputs
from keras_es.ops.perturbation import largest_divisor
from keras_es.populations import chunks
from keras_es.populations.mapping import join, map_in_turn, map_members


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
        layerwise: Whether each pair has noise on the weights of one layer alone.

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
        layerwise=False,
    ):
        self.model, self.noise, self.space = model, noise, space
        self.output_noise, self.layerwise = output_noise, layerwise
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
        self.draws_per_chunk = chunks.draws_at_once(
            self, members_per_chunk, batch_size or 256
        )
        self.layers = layer_calls.shared_kernels(model, noise.variables)
        self.lookups = lookups(model, noise.variables)

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
        layers, variables = self.layers, self.noise.variables
        if self.output_noise is not None:
            own = layer_calls.own_layers(self.model, variables)
            layers = {**layers, **own}
        shared, differing, calls = shared_products.find_shared(
            layers, variables, function
        )
        outputs = perturbed_outputs(self.output_noise, calls)
        groups = layerwise.groups(
            self.noise.without(outputs.variables), self.draws, self.layerwise
        )
        first_draw = first_pair // self.noise.pairs_per_draw
        found, state = [], (state, outputs.zeros())
        for group in groups:
            if len(groups) > 1:
                shared, differing, _ = shared_products.find_shared(
                    layers, group.variables + outputs.variables, function, variables
                )
            members = _Members(self, group, outputs, shared, differing)
            results, state = members.evaluate(
                function, generation, scales, first_draw, updated, fixed, after, state
            )
            found.append(results)
        results, updates = tf.nest.map_structure(
            lambda *parts: tf.concat(parts, axis=0) if len(parts) > 1 else parts[0],
            *found,
        )
        state, sums = state
        pairs = self.draws * self.noise.pairs_per_draw
        said = outputs.variables, outputs.gradients(sums, pairs)
        return results, [_mean_update(values) for values in updates], state, said


class _Members:
    """The members of some draws, which have noise on the same weights."""

    def __init__(self, population, group, outputs, shared, differing):
        self.population, self.group = population, group
        self.outputs, self.shared = outputs, shared
        self.noise = group.noise
        moving = {id(v) for v in group.variables}
        self.moving = [id(v) in moving for v in self.noise.variables]
        self.layers = {k: v for k, v in population.layers.items() if k in moving}
        self.lookups = {k: v for k, v in population.lookups.items() if k in moving}
        # `run_eagerly` is for looking at each member.
        eager = tf.executing_eagerly()
        self.vectorize = (
            population.vectorize and not eager and can_be_vectorized(differing)
        )
        # Without vectorizing, draws at once would be copies of the graph.
        together = self.vectorize and _may_have_two_more_axes(differing)
        at_once = population.draws_per_chunk if together else 1
        self.draws = largest_divisor(group.draws, at_once)

    def evaluate(
        self, function, generation, scales, first_draw, updated, fixed, after, state
    ):
        """Return ((results, updates), state), as `WeightPopulation.evaluate`."""
        first_draw = first_draw + self.group.first_draw
        by_example = self.population.output_noise is not None

        def member(factors, signs, multipliers):
            with self._scope(factors, signs, multipliers, fixed) as scope:
                result = function()
            return result, [_current(scope, v) for v in updated]

        def chunk(i, state):
            state, sums = state
            indices = first_draw + i * self.draws + tf.range(self.draws)
            factors, multipliers = self._draw(generation, scales, indices)
            signs = self.outputs.draw(generation, indices)
            drawn = factors, signs, multipliers
            results, updates = _chunk(member, drawn, self.draws, self.vectorize)
            if by_example:
                results, contributions = results
                by_key = self._by_key(multipliers)
                sums = self.outputs.add(sums, signs, by_key, contributions)
            if after is not None:
                results, state = after(results, state)
            return (results, updates), (state, sums)

        chunks = self.group.draws // self.draws
        if chunks == 1:
            return chunk(tf.constant(0), state)
        stacked, state = map_in_turn(chunk, chunks, state)
        return tf.nest.map_structure(join, stacked), state

    @contextlib.contextmanager
    def _scope(self, factors, signs, multipliers, fixed):
        """Let the model's weights be those of a member."""
        mapping = self._member_values(factors, multipliers) + list(fixed)
        multipliers = self._by_key(multipliers)
        drawn = (
            self._by_key(self.noise.perturbations),
            self._by_key(factors),
            multipliers,
        )
        scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
        with (
            scope,
            layer_calls.perturbed_calls(self.layers, *drawn, self.shared),
            perturbed_lookups(self.lookups, *drawn),
            self.outputs.calls(signs, multipliers, self.shared),
            adapted_calls(self.population.model),
            effective_weights(),
        ):
            yield scope

    def _by_key(self, values):
        return dict(zip(map(id, self.noise.variables), values))

    def _draw(self, generation, scales, indices):
        if tf.executing_eagerly():  # A function would be compiled for each chunk.
            return self.noise.draw(generation, indices, scales)

        @tf.function(jit_compile=True, autograph=False)
        def draw(generation, indices):
            return self.noise.draw(generation, indices, scales)

        return draw(generation, indices)

    def _member_values(self, factors, multipliers):
        """Return (variable, tensor) of what layers do not add up themselves."""
        mapping, space = [], self.population.space
        masks_move = space is not None and bool(space.masked)
        values = self.noise.value(factors, multipliers)
        for variable, change, moves in zip(self.noise.variables, values, self.moving):
            by_layer = id(variable) in self.layers or id(variable) in self.lookups
            if by_layer:
                continue
            # Weights that rest as well: Keras finds in the scope what is regularized.
            value = tf.convert_to_tensor(variable.value)
            if moves or masks_move:
                value += tf.cast(change, value.dtype)
            mapping.append((variable, value))
        return mapping if space is None else space.overrides(mapping)


def _chunk(member, drawn, draws, vectorize):
    """Return the results of the members of some draws, with a first axis of them."""

    def members(drawn):
        *same, multipliers = drawn
        return map_members(lambda m: member(*same, m), multipliers, vectorize)

    if draws == 1:
        return members(tf.nest.map_structure(lambda t: t[0], drawn))
    return tf.nest.map_structure(join, tf.vectorized_map(members, drawn))


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
    return any(isinstance(layer, keras.layers.RNN) for _, layer in tree.walk(model))


def _current(scope, variable):
    value = scope.get_current_value(variable)
    return tf.convert_to_tensor(variable.value if value is None else value)


def _mean_update(values):
    return tf.reduce_mean(values, axis=0) if values.dtype.is_floating else values[0]
