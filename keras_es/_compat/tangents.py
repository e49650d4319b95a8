"""Tangents that a rule of our own has found, given to TensorFlow's forward mode."""

__all__ = ["with_tangent"]


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
