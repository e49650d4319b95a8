"""Tangents by rules of our own, given to TensorFlow's forward mode."""

import contextlib
import functools

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.framework import ops as registries
from tensorflow.python.ops import custom_gradient as decorators

__all__ = ["custom_gradients_with_tangents", "with_tangent"]


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


def _gradient_of_resizing(op, gradient):
    """Return the gradient by an image that is resized, which has a derivative here."""
    image = op.inputs[0]
    same = {k: op.get_attr(k) for k in ("align_corners", "half_pixel_centers")}

    @tf.custom_gradient
    def back(gradient):
        size = tf.shape(gradient)[1:3]
        found = tf.raw_ops.ResizeBilinearGrad(
            grads=gradient, original_image=image, **same
        )
        return found, lambda d: tf.raw_ops.ResizeBilinear(images=d, size=size, **same)

    return back(gradient), None


def _gradient_of_rounding(gradient_op, attributes):
    """Return the gradient by what is quantized for show, which has a derivative here.

    It goes to x where x is within [min, max], else to the bound that x is beyond.

    Args:
        gradient_op: The function of `tf.raw_ops` that computes it.
        attributes: Names of the attributes of the operation.
    """

    def gradients(op, gradient):
        same = {name: op.get_attr(name) for name in attributes}
        same |= {"inputs": op.inputs[0]}
        same |= dict(zip(("min", "max"), op.inputs[1:]))

        def back(gradient):
            return gradient_op(gradients=gradient, **same)

        def transposed(*derivatives):
            ones = tf.ones_like(same["inputs"])
            if len(derivatives) == 1:
                return back(derivatives[0])
            by_x, by_min, by_max = derivatives
            low = same["inputs"] < 0.5 * (same["min"] + same["max"])
            return tf.where(back(ones)[0] > 0.0, by_x, tf.where(low, by_min, by_max))

        @tf.custom_gradient
        def with_derivative(gradient):
            found = back(gradient)
            found = tuple(found) if isinstance(found, tuple) else found
            return found, transposed

        return with_derivative(gradient)

    return gradients


@functools.cache
def _replace_gradients():
    """Register other gradients of some operations, with derivatives, at first use.

    TensorFlow says of its own that they have none. Forward mode, which transposes them,
    then takes the tangent for 0 without a word. The gradients themselves are the same.
    """
    replaced = {"ResizeBilinear": _gradient_of_resizing}
    bounds = {"Args": ("min", "max"), "Vars": (), "VarsPerChannel": ()}
    for kind, of_kind in bounds.items():
        name = f"FakeQuantWithMinMax{kind}"
        gradient_op = getattr(tf.raw_ops, f"{name}Gradient")
        attributes = ("num_bits", "narrow_range", *of_kind)
        replaced[name] = _gradient_of_rounding(gradient_op, attributes)
    for name, function in replaced.items():
        del registries.gradient_registry._registry[name]
        tf.RegisterGradient(name)(function)


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


@contextlib.contextmanager
def custom_gradients_with_tangents(accumulator, zero):
    """Let a function with a gradient of its own have the tangent that belongs to it.

    With J^T the linear map that the function says to be its gradient, dL/dy to dL/dx,
    the tangent is dy = J dx. TensorFlow's forward mode differentiates what the function
    computes instead: a rounding that passes gradients straight through stops it.

    Args:
        accumulator: The active `tf.autodiff.ForwardAccumulator`.
        zero: Scalar 0, whose tangent by the accumulator is 1.
    """
    _replace_gradients()
    here = tf.compat.v1.get_default_graph()

    def carrying(decorator):
        def call(function, args, kwargs):
            if tf.compat.v1.get_default_graph() is not here:
                # Of a function or a loop TensorFlow transposes the gradient.
                return decorator(function, args, kwargs)
            called = functools.partial(decorator, function)
            return _called_with_tangents(called, args, kwargs, accumulator, zero)

        return call

    names = ("_graph_mode_decorator", "_eager_mode_decorator")
    before = {name: getattr(decorators, name) for name in names}
    for name, decorator in before.items():
        setattr(decorators, name, carrying(decorator))
    try:
        yield
    finally:
        for name, decorator in before.items():
            setattr(decorators, name, decorator)


def _called_with_tangents(called, args, kwargs, accumulator, zero):
    """Call what has a gradient of its own, and give the results their tangents."""
    flat = tf.nest.flatten((args, kwargs))
    places = [i for i, value in enumerate(flat) if _has_gradient(value)]
    given = [tf.convert_to_tensor(flat[i]) for i in places]
    tangents = [accumulator.jvp(value) for value in given]
    apart = [tf.stop_gradient(value) for value in given]
    for i, value in zip(places, apart):
        flat[i] = value
    with tf.GradientTape() as transposing:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(apart)
            args, kwargs = tf.nest.pack_sequence_as((args, kwargs), flat)
            result = called(args, kwargs)
        flat = tf.nest.flatten(result)
        places = [i for i, value in enumerate(flat) if _has_gradient(value)]
        outputs = [flat[i] for i in places]
        # A gradient is linear in these, and so its derivative the same at all.
        by_output = [tf.ones_like(output) for output in outputs]
        transposing.watch(by_output)
        gradients = tape.gradient(outputs, apart, output_gradients=by_output)
    pairs = zip(gradients, tangents)
    known = [(g, t) for g, t in pairs if g is not None and t is not None]
    found = [None] * len(outputs)
    if known:
        found = transposing.gradient(
            [gradient for gradient, _ in known],
            by_output,
            output_gradients=[tangent for _, tangent in known],
        )
    for i, output, tangent in zip(places, outputs, found):
        flat[i] = output = tf.stop_gradient(output)
        if tangent is not None:
            one = tf.cast(zero, output.dtype)
            flat[i] = with_tangent(accumulator, output, tangent, one)
    return tf.nest.pack_sequence_as(result, flat)


def _has_gradient(value):
    """Tell whether a value is a tensor, or a variable, of numbers with gradients."""
    if not tf.is_tensor(value) and not isinstance(value, tf.Variable):
        return False
    dtype = tf.as_dtype(value.dtype)
    return dtype.is_floating or dtype.is_complex
