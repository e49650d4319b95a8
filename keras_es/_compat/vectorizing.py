"""What `tf.vectorized_map` can do under XLA, which TensorFlow does not tell in public.

An operation that it has no rule for becomes a loop over the elements, which XLA
refuses within another loop, with an error about TensorListReserve. The rule of a
branch that each element chooses makes shapes that depend on values, which it refuses,
too.
"""

import tensorflow as tf

try:
    from tensorflow.python.ops.parallel_for import pfor

    RULES = pfor._pfor_converter_registry
except (ImportError, AttributeError):  # moved: everything counts as known
    pfor, RULES = None, None

_CONTROL_FLOW = (
    "While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase",
)  # fmt: skip

_SHARED = {"Conv2D": (1,), "Conv2DBackpropInput": (1,)}
"""Inputs that a rule takes only if they are the same for all elements: filters."""

_DIFFERING = {
    "DepthwiseConv2dNative": (0, 1),
    "DepthwiseConv2dNativeBackpropInput": (1, 2),
    "DepthwiseConv2dNativeBackpropFilter": (0, 2),
}
"""Inputs that a rule takes only if they are not."""

_OF_SHAPES = ("Shape", "ShapeN", "Size", "Rank")


def _bitcast(pfor_input):
    """Cast bits as they are: each number by itself, if both types are as long."""
    to = pfor_input.get_attr("type")
    return pfor.wrap(tf.bitcast(pfor_input.stacked_input(0), to), True)


if RULES is not None and "Bitcast" not in RULES:
    # Keras's argmax looks at the sign of zeros, so no accuracy could be a fitness.
    pfor.RegisterPFor("Bitcast")(_bitcast)


def can_be_vectorized(operations):
    """Tell whether there is a rule for all operations that differ between elements.

    Args:
        operations: Set of `tf.Operation`.
    """
    if RULES is None:
        return True

    def differs(tensor):
        return tensor.op in operations

    return all(
        op.type in RULES
        and op.type not in _CONTROL_FLOW
        and not any(differs(op.inputs[i]) for i in _SHARED.get(op.type, ()))
        and all(differs(op.inputs[i]) for i in _DIFFERING.get(op.type, ()))
        for op in operations
    )


def depending_on(*sources):
    """Return the set of the operations that are computed from values of a graph.

    Not from their shapes, which are the same for all elements.
    """
    waiting, found = list(sources), set()
    while waiting:
        for operation in waiting.pop().consumers():
            if operation not in found and operation.type not in _OF_SHAPES:
                found.add(operation)
                waiting.extend(operation.outputs)
    return found
