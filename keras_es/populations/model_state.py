"""What of a model members leave behind, and what of it they only read."""

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.layers import tree
from keras_es.layers.masked_weight import effective_weights


def touched_variables(model, x, but=()):
    """Return the non-trainable variables that a training call updates.

    Found by a trace on the side, which runs nothing: a model may hold large
    frozen weights, and a loop should not carry them.

    Args:
        model: Keras model.
        x: A batch of inputs.
        but: Variables that are left out where no graph is built.
    """
    candidates = list(model.non_trainable_variables)
    if not candidates or tf.executing_eagerly():
        state = {id(v) for v in but}
        return [v for v in candidates if id(v) not in state]
    updated: list = []

    def probe():
        scope = keras.StatelessScope(collect_losses=True)
        with scope, effective_weights():
            _compat.forward(model, x, training=True)
        updated.extend(v for v in candidates if scope.get_current_value(v) is not None)

    tf.function(probe, autograph=False).get_concrete_function()
    return updated


def refuse_fixed_batch(model, why):
    """Raise if a model can be called with one number of examples only.

    Args:
        model: Keras model.
        why: Why members see fewer, and what to do, for the message.

    Raises:
        ValueError: If its inputs have a fixed batch size, or a layer is stateful.
    """
    inputs = keras.tree.flatten(_compat.inputs_of(model))
    sizes = {i.shape[0] for i in inputs if i is not None}
    fixed = sorted(sizes - {None})
    stateful = [
        layer.name for _, layer in tree.walk(model) if getattr(layer, "stateful", False)
    ]
    if fixed or stateful:
        what = f"stateful layers {stateful}" if stateful else f"batch_size={fixed}"
        raise ValueError(
            "The model is made for one number of examples (a fixed batch size, or a "
            f"state for each example), but {why}. Received: a model with {what}"
        )


def frozen_values(model, trained, moving):
    """Return (variable, value) of what masked weights that do not train read.

    In the scope of a member layers do not apply their masks themselves.

    Args:
        model: Keras model.
        trained: Ids of the trainable variables.
        moving: The `MaskedWeight`s that the optimizer was built with.

    Raises:
        ValueError: If a layer was frozen after `compile`.
    """
    frozen = [m for m in moving if id(m.kernel) not in trained]
    if frozen:
        raise ValueError(
            "Layers were frozen after the model was compiled. Call `compile` "
            "again after a change of `trainable`. Received: trainable=False for "
            f"{[m.name for m in frozen]}"
        )
    known = {id(m.kernel) for m in moving}
    pairs = []
    for masked in tree.masked_weights(model):
        if id(masked.kernel) not in known:
            value = tf.convert_to_tensor(masked.kernel.value)
            effective, overrides = masked.member_values(value, None)
            pairs += [(masked.kernel, effective), *overrides]
    return pairs


def is_seed(value):
    """Whether a value is the state (seed, counter) of a random generator."""
    return not value.dtype.is_floating and value.shape == (2,)
