"""Tangents by rules of our own, given to TensorFlow's forward mode."""

import contextlib

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

__all__ = ["with_tangent"]


def _derivative_of_update(op, derivative):
    """Return the derivatives by the array, the part that replaces some of it, none."""
    _, part, start = op.inputs
    by_part = tf.slice(derivative, start, tf.shape(part))
    by_array = xla.dynamic_update_slice(derivative, tf.zeros_like(part), start)
    return by_array, by_part, None


# Forward mode differentiates gradients, and that of `tf.slice`, where XLA compiles it
# first, is an operation that TensorFlow has no gradient of. (Traced before without XLA
# it has another, which is then used: models trained or not by what ran before them.)
with contextlib.suppress(KeyError):  # a later TensorFlow has it
    tf.RegisterGradient("XlaDynamicUpdateSlice")(_derivative_of_update)


def with_tangent(accumulator, value, tangent, zero):
    """Return a tensor that has a tangent for all that is computed of it.

    Args:
        accumulator: The active `tf.autodiff.ForwardAccumulator`.
        value: Tensor that has none yet.
        tangent: Tensor of its shape.
        zero: Scalar 0, whose tangent by the accumulator is 1.
    """
    watch = getattr(accumulator, "_watch", None)
    if watch is None:  # moved: a sum that is `value`, and no longer it to the compiler
        return value + zero * tangent
    watch(value, tangent)
    return value
