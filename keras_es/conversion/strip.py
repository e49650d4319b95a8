"""From a masked model to the plain one."""

from collections.abc import Callable

import keras

from keras_es.conversion.clone import clone
from keras_es.conversion.compact.compaction import compacted
from keras_es.conversion.models import without_train_step
from keras_es.layers import tree


def strip_masks(model: keras.Model, compact: bool = False) -> keras.Model:
    """Return the plain Keras model: zeros baked in, no masks, no keras_es.

    Every output equals that of `model`. The result is a `keras.Sequential` or
    functional `keras.Model` (a subclassed model keeps its class) and can be saved,
    exported, quantized or fine-tuned like any other. Block-sparse layers become dense
    ones of their full size; to keep them as they are, export the model itself.

    With `compact` channels and units that are dead are removed for good, here and in
    all that follows: those whose value is the same for all examples, as the bias
    through the activation of a unit without weights is, and those that nobody reads.
    Constants go into the biases behind them. Outputs are equal up to rounding, at
    inference. `keras_es.compaction_report` says what that saves, and which layers are
    left alone, with the reason.

    Args:
        model: A model with masked layers, built. One without is taken as well.
        compact: Whether dead channels and units are removed.

    Returns:
        The plain model, not compiled.

    Raises:
        ValueError: If it is no model or not built, or a layer's class is derived from a
            masked one, so that no plain class does the same. With `compact` also if
            the model is subclassed, or functional with a class of its own.

    Example:

    >>> layers = [keras.layers.Dense(8, "relu"), keras.layers.Dense(10)]
    >>> model = keras.Sequential([keras.Input((64,)), *layers])
    >>> channels = keras_es.patterns.Channel()
    >>> sparse = keras_es.sparsify(model, 0.5, pattern=channels, exclude=["dense_1"])
    >>> strip_masks(sparse).layers[0].units
    8
    >>> strip_masks(sparse, compact=True).layers[0].units
    4
    """
    if not isinstance(compact, bool):
        raise ValueError(
            "`compact` must be True or False: whether dead channels are removed. "
            f"Received: compact={compact!r}"
        )
    plain = stripped(model)
    return compacted(plain)[0] if compact else plain


def stripped(model: keras.Model) -> keras.Model:
    """Return the plain model of the same size; see `strip_masks`."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a keras.Model with masked layers. "
            f"Received: model={model!r}"
        )
    return without(tree.has_masks, model)


def without(chosen: Callable[[keras.layers.Layer], bool], model: keras.Model):
    """Return a copy, not compiled, with plain layers for the chosen masked ones."""
    copy = clone(model)
    for path, layer in list(tree.walk(copy)):
        if chosen(layer):
            tree.swap_out(layer, path)
    return without_train_step(copy)
