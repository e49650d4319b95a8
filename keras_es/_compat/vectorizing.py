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


def _bias_add(rule):
    """Return the rule of a bias, which TensorFlow's puts on the wrong axis.

    That of channels first is right for images alone. Keras adds every vector along
    the second axis so: the bias of `EinsumDense("abc,cd->adb", ..., bias_axes="d")`.
    """

    def own(pfor_input):
        first = pfor_input.get_attr("data_format") == b"NCHW"
        x, is_stacked, _ = pfor_input.input(0)
        bias, bias_is_stacked, _ = pfor_input.input(1)
        if not (first and bias_is_stacked):
            return rule(pfor_input)
        ones = tf.ones(tf.rank(x) - 2 - int(is_stacked), tf.int32)
        members, channels = tf.unstack(tf.shape(bias))
        shape = tf.concat([[members, 1, channels], ones], axis=0)
        x = x if is_stacked else x[None]
        return pfor.wrap(x + tf.reshape(bias, shape), True)

    return own


def _bias_add_grad(rule):
    """Return the rule of its gradient, which is of images alone, too."""

    def own(pfor_input):
        if pfor_input.get_attr("data_format") != b"NCHW":
            return rule(pfor_input)
        gradient = pfor_input.stacked_input(0)
        axes = tf.concat([[1], tf.range(3, tf.rank(gradient))], axis=0)
        return pfor.wrap(tf.reduce_sum(gradient, axes), True)

    return own


for _name, _own in (("BiasAdd", _bias_add), ("BiasAddGrad", _bias_add_grad)):
    if RULES is not None and _name in RULES:
        RULES[_name] = _own(RULES[_name])


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
