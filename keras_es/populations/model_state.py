"""What of a model members leave behind, and what of it they only read."""

import warnings

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.layers import tree
from keras_es.layers.masked_weight import effective_weights


def touched_variables(model, x):
    """Return the non-trainable variables that a training call updates.

    Found by a trace on the side, which runs nothing (under `run_eagerly` by a call): a
    model may hold large frozen weights, and a loop should not carry them.

    Args:
        model: Keras model.
        x: A batch of inputs.

    Raises:
        ValueError: If the call assigns to weights that are trained.
    """

    def call():
        _compat.forward(model, x, training=True)

    return _assigned(model, model.non_trainable_variables, call)


def counted_variables(model, x, y, sample_weight):
    """Return the variables of metrics that are updated before `compute_metrics` is.

    Those of the losses of several outputs are, and what a layer or a `compute_loss` of
    a user's updates.

    Args:
        model: Compiled Keras model.
        x: A batch of inputs.
        y: Targets, or None.
        sample_weight: Weights, or None.
    """

    def loss():
        y_pred = _compat.forward(model, x, training=True)
        _compat.compute_loss(model, x, y, y_pred, sample_weight)

    return _assigned(model, _compat.metrics_variables_before_metrics(model), loss)


def _assigned(model, candidates, function):
    """Return those of some variables that a call assigns, by a trace on the side.

    Under `run_eagerly` it is called.
    """
    candidates = list(candidates)
    if not candidates:
        return []
    updated: list = []

    def probe():
        # Keras reads what is regularized from the scope alone.
        mapping = [
            (v, tf.convert_to_tensor(v.value)) for v in model.trainable_variables
        ]
        scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
        with scope, effective_weights():
            function()
        updated.extend(v for v in candidates if scope.get_current_value(v) is not None)
        refuse_assigned([v for v, x in mapping if scope.get_current_value(v) is not x])

    if tf.executing_eagerly():
        probe()
    else:
        tf.function(probe, autograph=False).get_concrete_function()
    return updated


def refuse_assigned(weights):
    """Raise if calls of a model assign to weights that are trained.

    Raises:
        ValueError: If there are such weights.
    """
    if weights:
        raise ValueError(
            "A layer assigns to weights that are trained when it is called, as "
            "SpectralNormalization does. Members have such weights of their own, so it "
            "would be lost: take another layer, or a `kernel_constraint`. "
            f"Received: assignments to {[v.path for v in weights]}"
        )


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


def refuse_nothing_to_evolve(model):
    """Raise if there is nothing that pure evolution could move.

    Raises:
        ValueError: If the model has no trainable weights.
    """
    if not model.trainable_variables:
        raise ValueError(
            "There is nothing to evolve: the model has no trainable weights. Set "
            "`trainable = True` on layers that are to be evolved and call `compile` "
            f"again. Received: model={model.name!r} with {_frozen(model)}"
        )


def refuse_other_weights(model, searched):
    """Raise if a search is of other weights than those of a model that train now.

    Raises:
        ValueError: If layers were frozen after `compile`, or are no longer.
    """
    before = {id(v): v.path for v in searched}
    now = {id(v): v.path for v in model.trainable_variables}
    changed = [p for i, p in {**before, **now}.items() if (i in before) != (i in now)]
    if changed and before:
        raise ValueError(
            "`trainable` was changed after the model was compiled. Call `compile` "
            f"again, with a new optimizer. Received: a change for {changed}"
        )


def warn_of_nothing_to_train(model):
    """Warn, as Keras does, that a model without trainable weights stays as it is."""
    if not model.trainable_variables:
        warnings.warn(
            "The model does not have any trainable weights: "
            f"{type(model.optimizer).__name__} moves nothing, for masks rest as well "
            "where layers are frozen. Set `trainable = True` on layers that are to be "
            f"trained and call `compile` again. Received: model={model.name!r} with "
            f"{_frozen(model)}",
            stacklevel=2,
        )


def _frozen(model):
    return f"{len(model.non_trainable_weights)} weights that are not trainable"


def frozen_masks(model, moving):
    """Return the masked weights of a model that are not among the moving ones."""
    known = {id(m.kernel) for m in moving}
    return [m for m in tree.masked_weights(model) if id(m.kernel) not in known]


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
    pairs = []
    for masked in frozen_masks(model, moving):
        value = tf.convert_to_tensor(masked.kernel.value)
        effective, overrides = masked.member_values(value, None)
        pairs += [(masked.kernel, effective), *overrides]
    return pairs


def is_seed(value):
    """Whether a value is the state (seed, counter) of a random generator."""
    return not value.dtype.is_floating and value.shape == (2,)
