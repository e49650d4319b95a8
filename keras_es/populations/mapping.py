"""Calling a function for each member: all at once, or one after the other."""

import tensorflow as tf

from keras_es._compat.vectorizing import can_be_vectorized, depending_on


def map_members(function, elements, vectorize):
    """Map over the first axis.

    Args:
        function: Of one element, which evaluates a member.
        elements: Structure of tensors with a first axis of members.
        vectorize: Whether all at once, or one after the other.
    """
    if vectorize:
        return tf.vectorized_map(function, elements)
    members = tf.nest.flatten(elements)[0].shape[0]
    if members > 2:  # A loop, for one copy of the graph each would be large.
        return map_in_turn(lambda i, _: (function(_row(elements, i)), ()), members)[0]
    results = [function(_row(elements, i)) for i in range(members)]
    return tf.nest.map_structure(lambda *values: tf.stack(values), *results)


def _row(elements, i):
    return tf.nest.map_structure(lambda e: e[i], elements)


def members_can_be_vectorized(function, elements):
    """Tell whether `map_members` can evaluate all at once, by what is computed.

    The function is called with the first member; its results are not used.
    """
    if not tf.inside_function():
        return False  # `run_eagerly` is for looking at each member.
    first = _row(elements, 0)
    # So that what is computed of an element itself has an operation that differs, too.
    function(tf.nest.map_structure(tf.identity, first))
    return can_be_vectorized(depending_on(*tf.nest.flatten(first)))


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

    A loop of the graph, and of Python where there is none (`run_eagerly`).

    Returns:
        (results, state): results with a first axis of calls, and the last state.
    """
    if tf.executing_eagerly():
        return _in_turn_eagerly(function, count, state)

    def put(results, i, values):
        return tf.nest.map_structure(
            lambda r, v: tf.tensor_scatter_nd_update(r, [[i]], v[None]), results, values
        )

    called = _traced_once(function, state)
    spec, first = called.structured_outputs[0], 0

    def body(i, results, state):
        values, state = called(i, state)
        return i + 1, put(results, i, values), state

    if all(s.shape.is_fully_defined() for s in tf.nest.flatten(spec)):
        results = tf.nest.map_structure(
            lambda s: tf.zeros((count, *s.shape), s.dtype), spec
        )
    else:  # The last batch is smaller: the first call tells its size.
        values, state = called(tf.constant(0), state)
        results = tf.nest.map_structure(lambda v: _rows_like(v, count), values)
        results, first = put(results, 0, values), 1
    loop = (tf.constant(first), results, state)
    return tf.while_loop(lambda i, *_: i < count, body, loop, parallel_iterations=1)[1:]


def _in_turn_eagerly(function, count, state):
    results = []
    for i in range(count):
        values, state = function(tf.constant(i), state)
        results.append(values)
    return tf.nest.map_structure(lambda *v: tf.stack(v), *results), state


def _rows_like(value, count):
    zeros = tf.zeros(tf.concat([[count], tf.shape(value)], axis=0), value.dtype)
    return tf.ensure_shape(zeros, (count, *value.shape))


def _traced_once(function, state):
    """Return function(i, state) as a graph, which knows the shapes of its results.

    TensorFlow optimizes a function by itself, so that a float may round otherwise than
    in the graph around it.
    """
    specs = tf.nest.map_structure(tf.TensorSpec.from_tensor, state)
    traced = tf.function(function, autograph=False)
    return traced.get_concrete_function(tf.TensorSpec((), tf.int32), specs)
