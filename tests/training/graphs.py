"""What a graph holds."""

import math

import tensorflow as tf


def largest_tensor(graph, of=None):
    """Return the number of entries of the largest output of an operation of a graph.

    Args:
        graph: A `tf.Graph`; functions that it calls are looked into.
        of: Data types that count, or None for all.
    """
    sizes = [
        math.prod(out.shape)
        for operation in operations(graph)
        for out in operation.outputs
        if out.shape.is_fully_defined() and (of is None or out.dtype in of)
    ]
    return max(sizes)


def operations(graph):
    """Yield the operations of a graph and of the functions that it calls."""
    yield from graph.get_operations()
    for name in list(graph._functions):
        function = graph._functions[name]
        inner = getattr(function, "graph", None)
        if isinstance(inner, tf.Graph):
            yield from operations(inner)
