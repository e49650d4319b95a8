"""Masks and values of a model by the names of its weights: set, read and checked."""

import keras
import numpy as np

from keras_es.conversion.models import check_model
from keras_es.conversion.sparsify import sparsify
from keras_es.layers import tree
from keras_es.layers.masked_weight import refresh_mask


def named_weights(model):
    """Return {name: masked weight} of a masked model, in the order of its layers."""
    return {
        f"{path}/{masked.attribute}": masked
        for path, layer in tree.walk(model)
        if tree.is_twin(layer)
        for masked in tree.masked_weights(layer)
    }


def plain_variables(model):
    """Return the variables that a model has without masks, in the same order."""
    masks = {id(v) for m in tree.masked_weights(model) for v in m.choice}
    return [v for v in model.weights if id(v) not in masks]


def plain_values(model):
    """Return the values of the variables that a model has without masks."""
    # Copies: training goes on, and may do so in the same memory.
    return [np.array(keras.ops.convert_to_numpy(v)) for v in plain_variables(model)]


def set_values(plain, values):
    """Set all weights of a plain model, and what layers compute from theirs."""
    plain.set_weights(values)
    for _, layer in tree.walk(plain):
        if hasattr(layer, "finalize_state"):  # an adapted `Normalization`
            layer.finalize_state()


def layer_names(model):
    """Return the names of all layers below a model, in their order."""
    return [layer.name for _, layer in tree.walk(model)]


def rename(model, names):
    """Give a model that was made by its config the names that its layers had.

    Keras counts names up in a process where a composite gives its parts none.
    """
    layers = [layer for _, layer in tree.walk(model)]
    if len(layers) != len(names):
        return
    for layer, name in zip(layers, names):
        if layer.name != name and not isinstance(layer, keras.layers.InputLayer):
            layer.name = name


def maskable(plain, exclude=()):
    """Return {name: shape} of the weights of a plain model that can be pruned.

    Frozen layers are left as they are: nothing is learned of their weights.

    Raises:
        ValueError: If there are none, if two have one name, or if the model has masks
            already.
    """
    check_model(plain)
    if any(tree.has_masks(layer) for _, layer in tree.walk(plain)):
        raise ValueError(
            "The model of a ticket must be plain, and the ticket gives it its masks: "
            "leave out `sparsify`, or take them away by `keras_es.strip_masks`. "
            f"Received: model={plain.name!r}, with masks"
        )
    masked = sparsify(plain, 0.0, exclude=exclude)
    found = {n: m for n, m in named_weights(masked).items() if m.kernel.trainable}
    weights = [m for m in tree.masked_weights(masked) if m.kernel.trainable]
    if len(weights) > len(found):
        raise ValueError(
            "The parts of a layer must have different names, for weights are known by "
            f"them. Received: {len(weights)} weights of {len(found)} names: "
            f"{[*found]}"
        )
    if not found:
        raise ValueError(
            "The model has no weights that can be pruned: kernels of Dense, "
            "EinsumDense, convolutions and recurrent layers that are trainable and "
            "outside of `exclude`. "
            f"Received: model={plain.name!r}, exclude={exclude!r}"
        )
    return {name: masked.shape for name, masked in found.items()}


def masked_copy(plain, masks):
    """Return a copy of a plain model with exactly these masks.

    Args:
        plain: Built model without masks.
        masks: Dict from name to boolean array, each with at least one true.
    """
    sparsity = {name: 1.0 - mask.mean(dtype="float64") for name, mask in masks.items()}
    model = sparsify(plain, allocation=sparsity)
    for name, masked in named_weights(model).items():
        scores = np.where(masks[name], 1.0, -1.0).astype("float32")
        masked.mask_scores.assign(scores.reshape(masked.mask_scores.shape))
        refresh_mask(masked)
    check(model, masks)
    return model


def check(model, masks):
    """Raise unless a model's masks are exactly these, and nothing else acts.

    Raises:
        RuntimeError: If masks moved or a masked-out weight acts, an error of the method
            that trained the model.
    """
    for name, masked in named_weights(model).items():
        wanted = masks[name]
        found = np.asarray(masked.deployed_mask()).reshape(wanted.shape)
        acting = np.asarray(masked.effective_value()).reshape(wanted.shape) != 0.0
        if not np.array_equal(found, wanted) or np.any(acting & ~wanted):
            raise RuntimeError(
                f"The mask of {name!r} must have the {int(wanted.sum())} weights of "
                f"the ticket, and it has {int(found.sum())}, of which "
                f"{int((found & wanted).sum())} are the ticket's. Something moved it "
                "in training: leave masks to `keras_es.lottery`. "
                f"Received: {int((acting & ~wanted).sum())} masked-out weights that act"
            )
