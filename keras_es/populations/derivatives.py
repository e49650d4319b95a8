"""The derivative of a function along one direction: by tangents, or by differences."""

import contextlib

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.ops import directional
from keras_es.populations.tangent_loops import loops_with_tangents
from keras_es.populations.tangent_products import products_with_tangents


def along_tangent(function, values, directions, model=None, alone=False):
    """Return the exact derivative, carried along through one forward pass.

    Nothing is kept for a backward pass: what a layer computed is free once the next
    one has used it.

    Args:
        function: Of a list of tensors like `values`; returns (scalar, [n] or None).
        values: List of tensors.
        directions: List of tensors of their shapes.
        model: The model that it calls, if any, whose loops over time carry tangents
            too.
        alone: Whether nothing else computes the same values, which a compiler would
            merge. Layers and their tangents are then computed in turn.

    Returns:
        (derivative of the scalar, those of [n] or None).

    Raises:
        ValueError: If no tangent reaches the scalar, or an operation has no rule.
    """
    one = tf.ones(())
    zero = tf.zeros(())
    pairs = [*zip(values, directions), (zero, one)]
    primals, tangents = (list(part) for part in zip(*pairs))
    try:
        with (
            _named_layers(),
            tf.autodiff.ForwardAccumulator(primals, tangents) as accumulator,
        ):
            with (
                _compat.custom_gradients_with_tangents(accumulator, zero),
                loops_with_tangents(model, accumulator, zero),
                products_with_tangents(model, accumulator, zero, alone),
            ):
                scalar, parts = function(values)
            found = accumulator.jvp(scalar)
            by_part = None if parts is None else accumulator.jvp(parts)
    except Exception as error:
        function(values)  # What fails without tangents, too, says so itself.
        raise _no_rule(error) from error
    if found is None:
        raise ValueError(
            "No tangent of the weights reaches the loss: an operation on the way, "
            "such as rounding, a comparison or Python code, has no derivative. "
            "keras_es.optimizers.FiniteDifference takes losses that jump. "
            f"Received: model={getattr(model, 'name', None)!r}"
        )
    if parts is not None and by_part is None:
        by_part = tf.zeros_like(parts)
    return found, by_part


def _no_rule(error):
    """Return what to raise for an error of TensorFlow's forward mode."""
    where = _layer_of(error)
    # TensorFlow may quote whole programs.
    said = "\n".join(str(error).splitlines()[:3])
    return ValueError(
        f"ForwardGradient cannot carry a tangent through {where}: TensorFlow has no "
        "rule for an operation of it, such as `tf.map_fn` and other loops that write "
        "to arrays. keras_es.optimizers.FiniteDifference needs none. "
        f"Received: {where}, with {type(error).__name__}: {said}"
    )


@contextlib.contextmanager
def _named_layers():
    """Keep the frames of Keras's own layers in tracebacks: they tell which layer."""
    filters = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        yield
    finally:
        if filters:
            keras.config.enable_traceback_filtering()


def _layer_of(error):
    """Return what an error came out of: the innermost layer, or the loss."""
    found, trace = "the loss", error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, keras.layers.Layer) and not isinstance(owner, keras.Model):
            found = f"layer {owner.name!r} ({type(owner).__name__})"
        trace = trace.tb_next
    return found


def along_difference(function, values, directions, step):
    """Return the central difference (f(x + h v) - f(x - h v)) / 2h.

    Args:
        function: See `along_tangent`.
        values: List of tensors.
        directions: List of tensors of their shapes.
        step: h > 0.
    """

    def at(factor):
        return function(
            [x + tf.cast(factor, x.dtype) * v for x, v in zip(values, directions)]
        )

    (above, above_parts), (below, below_parts) = at(step), at(-step)
    found = directional.central_difference(above, below, step)
    if above_parts is None:
        return found, None
    return found, directional.central_difference(above_parts, below_parts, step)
