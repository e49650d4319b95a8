"""What the graph of a step tells: what would be lost, and what cannot be vectorized."""

import functools

_OF_NO_FIXED_SHAPE = {
    "Where", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2",
    "ListDiff", "DynamicPartition",
}  # fmt: skip
"""Operations whose results have shapes that hang on values, other for each particle."""

_DRAWING = ("Random", "Stateful", "Rng")
_OTHERS_DRAWING = {"TruncatedNormal", "Multinomial", "ParameterizedTruncatedNormal"}
_CHANGING = ("Assign", "ResourceScatter", "ResourceApply")


def operations(function):
    """Return the types of all operations of a concrete function and those it calls."""
    graph = function.graph.as_graph_def()
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    return {node.op for nodes in bodies for node in nodes}


def check_stateless(task, types):
    """Raise a ValueError if a task draws or assigns by TensorFlow's own state.

    Args:
        task: The task.
        types: Set of the types of its operations.
    """
    name = type(task).__name__
    drawn = {t for t in types if t.startswith(_DRAWING) and t != "RandomGammaGrad"}
    drawn |= types & _OTHERS_DRAWING
    if drawn:
        raise ValueError(
            f"`{name}` must draw random numbers from the seed that it is given, by "
            "`keras_es.unrolled.normal` and `uniform` or `tf.random.stateless_*`: "
            "others differ between the two of a pair, and in a run that goes on. "
            f"Received: {', '.join(sorted(drawn))}"
        )
    changed = {t for t in types if t.startswith(_CHANGING)}
    if changed:
        raise ValueError(
            f"`{name}` must not assign to variables, of which each particle would need "
            "its own: keep what changes in the state. "
            f"Received: {', '.join(sorted(changed))} of a `tf.Variable`"
        )


def has_shapes_of_values(types):
    """Tell whether shapes hang on values, as of `tf.boolean_mask` and `tf.unique`."""
    return bool(types & _OF_NO_FIXED_SHAPE)


def explaining(method):
    """Let a method of a model say what to do where its task's Python cannot be traced.

    Around the whole of it, for some errors come when a graph is called.
    """

    @functools.wraps(method)
    def called(self, *args, **kwargs):
        try:
            return method(self, *args, **kwargs)
        except (TypeError, ValueError) as error:
            better = _explained(type(self.task).__name__, error)
            if better is None:
                raise
            raise better from error

    return called


def _explained(name, error):
    """Return what to raise for an error of TensorFlow's tracing, None for others."""
    text = str(error)
    if type(error).__name__ == "OperatorNotAllowedInGraphError":
        return ValueError(
            f"`{name}` must not ask for the value of a tensor, as `if`, `while`, `for` "
            "and `and` of Python do: all particles are traced at once. Take "
            "`tf.where`, `tf.cond`, `tf.while_loop` or `tf.logical_and`. "
            f"Received: {text.splitlines()[0]}"
        )
    if "out of scope" in text:
        return ValueError(
            f"`{name}` must not keep tensors from one call to the next, as a "
            "`tf.function` that reads weights does, or an attribute: each member has "
            "its own. Leave `tf.function` out, or give it the weights as arguments. "
            f"Received: {text.splitlines()[0]}"
        )
    return None
