"""Products x W that carry tangents by a rule of their own.

TensorFlow's forward mode takes zeros for a tangent that is not there, and multiplies
them: at the first layer, whose input does not move, and wherever the kernel does not.
"""

import contextlib

import tensorflow as tf

from keras_es import _compat
from keras_es.noise import layer_calls


@contextlib.contextmanager
def products_with_tangents(model, accumulator, zero, in_turn=False):
    """Let the tangent of x W be dx W + x dW, without what is not there.

    Args:
        model: Keras model, or None.
        accumulator: The active `tf.autodiff.ForwardAccumulator`.
        zero: Scalar 0, whose tangent by the accumulator is 1.
        in_turn: Whether layers wait for the tangents of the layers before.
    """
    here = tf.compat.v1.get_default_graph()

    def product(multiply, x, kernel):
        if tf.compat.v1.get_default_graph() is not here:
            # Within a function or a loop TensorFlow differentiates the whole of it.
            return multiply(x, kernel)
        dx, dw = accumulator.jvp(x), accumulator.jvp(kernel)
        x, kernel = tf.stop_gradient(x), tf.stop_gradient(kernel)
        y = multiply(x, kernel)
        if in_turn and dx is not None:
            y = _after(dx, y)
            dw = None if dw is None else _after(dx, dw)
        terms = [] if dx is None else [multiply(dx, kernel)]
        terms += [] if dw is None else [multiply(x, dw)]
        if not terms:
            return y
        one = tf.cast(zero, y.dtype)
        return _compat.with_tangent(accumulator, y, sum(terms[1:], terms[0]), one)

    layers = [] if model is None else layer_calls.plain_layers(model)
    with layer_calls.products_through(layers, product):
        yield


def _after(first, value):
    """Return a value that cannot be computed before another is.

    XLA orders operations by what could run side by side, and so would run through the
    whole model before its tangents, and draw all directions before that: all would be
    kept. Nothing is above infinity, but that XLA does not know.
    """
    entry = tf.reshape(first, [-1])[:1]
    zero = tf.cast(tf.reduce_any(entry > float("inf")), value.dtype)
    return value + zero
