"""From a masked model to the plain one."""

import keras

from keras_es.conversion.clone import clone
from keras_es.conversion.models import without_train_step
from keras_es.layers import tree


def strip_masks(model: keras.Model) -> keras.Model:
    """Return the plain Keras model: zeros baked in, no masks, no keras_es.

    Every output equals that of `model`. The result is a `keras.Sequential` or
    functional `keras.Model` (a subclassed model keeps its class) and can be saved,
    exported, quantized or fine-tuned like any other. Block-sparse layers become dense
    ones of their full size; to keep them as they are, export the model itself.

    Args:
        model: A model with masked layers, built.

    Returns:
        The plain model, not compiled.

    Raises:
        ValueError: If it is no model or not built, or a layer's class is derived from a
            masked one, so that no plain class does the same.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    >>> sparse = keras_es.sparsify(model, sparsity=0.9)
    >>> type(strip_masks(sparse).layers[0]).__name__
    'Dense'
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a keras.Model with masked layers. "
            f"Received: model={model!r}"
        )
    copy = clone(model)
    for path, layer in list(tree.walk(copy)):
        if tree.has_masks(layer):
            tree.swap_out(layer, path)
    return without_train_step(copy)
