"""Swapping layers for their masked twins and back, at any depth of a model."""

import re
from typing import Any

import keras

from keras_es import _compat, patterns
from keras_es.layers import BLOCK_SPARSE, CELLS, TWINS
from keras_es.layers.sparse_layer import SparseLayer
from keras_es.layers.sparse_weight import SparseWeight


def walk(layer, path="", seen=None):
    """Yield (path, layer) of all layers below `layer`, each once, parents first.

    Paths are names joined by "/", relative to the model.
    """
    seen = set() if seen is None else seen
    for child in _compat.direct_sublayers(layer):
        if id(child) in seen:
            continue
        seen.add(id(child))
        child_path = f"{path}/{child.name}" if path else child.name
        yield child_path, child
        yield from walk(child, child_path, seen)


def matches(rule: Any, *names: str) -> bool:
    """Tell whether a path or regular expression names one of `names` wholly."""
    for name in names:
        if not isinstance(rule, str):
            return False
        if rule == name:
            return True
        try:
            if re.fullmatch(rule, name):
                return True
        except re.error:
            continue
    return False


def masked_weights(model: keras.layers.Layer) -> list[SparseWeight]:
    """Return the `MaskedWeight` of every masked weight of a model or layer.

    Args:
        model: A Keras model or layer.

    Returns:
        List of `MaskedWeight` and `BlockSparseWeight`, in the order of the layers.

    Raises:
        ValueError: If it is neither.
    """
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(
            f"`model` must be a Keras model or layer. Received: model={model!r}"
        )
    layers = [layer for _, layer in walk(model)]
    return [
        m
        for layer in [model, *layers]
        if has_masks(layer)
        for m in layer.masked_weights
    ]


def has_masks(layer):
    """Tell whether a layer's weights are masked or block-sparse."""
    return isinstance(layer, SparseLayer)


def refuse_to_quantize(model, filters):
    """Refuse to quantize a model with masked layers, before any layer is changed.

    Raises:
        ValueError: If a masked layer is among those that `filters` leave.
    """
    masked = [
        path
        for path, layer in walk(model)
        if has_masks(layer) and _compat.should_quantize_layer(layer, filters)
    ]
    if masked:
        raise ValueError(
            "Masked layers cannot be quantized, for quantized kernels would "
            "replace the latent ones. Call `keras_es.strip_masks(model)` and "
            "quantize the plain model, or leave them out by `filters`. "
            f"Received: a model with masked layers {masked}"
        )


_compat.check_before_quantizing(refuse_to_quantize)


def seed_states(model):
    """Return the states of the random generators (Dropout's, say) of all layers."""
    layers = [model, *(layer for _, layer in walk(model))]
    return [state for layer in layers for state in _compat.seed_states(layer)]


def twin_of(layer):
    """Return the masked class for a layer, None if it has none.

    Only for the exact class: a subclass may do something else with its kernel, as do
    LoRA and quantization.
    """
    altered = getattr(layer, "lora_enabled", False) or getattr(
        layer, "quantization_mode", None
    )
    return None if altered else TWINS.get(_plain_class(type(layer)))


def _plain_class(cls):
    """Return the class of Keras that KerasHub gives a name of its own, else `cls`."""
    if keras.saving.get_registered_name(cls) == "keras_hub>ReversibleEmbedding":
        return getattr(keras.layers, "ReversibleEmbedding", cls)
    return cls


def swap_in(layer, sparsity, pattern, mask_seed):
    """Turn a built plain layer into its masked twin, in place."""
    layer.__class__ = twin_of(layer)
    _compat.rebind_methods(layer)
    layer._configure_masks(sparsity, pattern, mask_seed)
    if layer.built:
        layer._build_masks()


def mask_alike(layer, copy):
    """Swap in, below a copy made by config, the masked layers of its source."""
    for old, new in zip(_maskable(layer), _maskable(copy)):
        if is_twin(old) and new is not old and twin_of(new) is type(old):
            swap_in(new, **mask_arguments(old))


def swap_out(layer, path):
    """Turn a masked layer into the plain one with zeros baked in, in place.

    Raises:
        ValueError: If the layer's class is the user's own.
    """
    if type(layer) in BLOCK_SPARSE:
        layer.become_plain()
        return
    if not is_twin(layer) and type(layer) not in CELLS:
        raise ValueError(
            f"Layer {path!r} is of a class derived from a masked layer: there is no "
            "plain class that does the same. Put a layer of keras_es.layers into a "
            "composite layer instead of deriving from it. "
            f"Received: layer of class {type(layer).__name__}"
        )
    layer._discard_masks()
    layer.__class__ = type(layer).plain_class()
    _compat.rebind_methods(layer)


def is_twin(layer):
    """Tell whether a layer is a masked twin that `sparsify` can swap in."""
    return type(layer) in TWINS.values()


def plain_class_of(layer):
    """Return the class of a layer, of a twin that of the layer without masks."""
    return type(layer).plain_class() if is_twin(layer) else type(layer)


def masks_cell(layer):
    """Tell whether a layer is masked, or would be, in its recurrent cell."""
    masked = has_masks(layer) or twin_of(layer) is not None
    return hasattr(layer, "cell") and masked


def mask_arguments(layer):
    """Return the arguments of `swap_in` that make the masks of a masked layer."""
    return _arguments(layer.mask_config())


def _arguments(config):
    return {
        "sparsity": config["sparsity"],
        "pattern": {name: patterns.get(p) for name, p in config["pattern"].items()},
        "mask_seed": config["mask_seed"],
    }


def _maskable(model):
    """Return the layers that are masked, or of a class that can be, in their order."""
    return [
        layer
        for _, layer in walk(model)
        if is_twin(layer) or _plain_class(type(layer)) in TWINS
    ]


def mask_map(model):
    """Return where masked layers sit and how they are masked, for a config.

    Layers are known by their position among those that can be masked: names given by
    Keras inside a composite differ between two builds of the same model, positions do
    not. Other layers do not count, for some make parts only when they are called
    first, as the preprocessors of KerasHub do.
    """
    return [
        {
            "position": position,
            "layer": type(layer).plain_class().__name__,
            "masks": layer.mask_config(),
        }
        for position, layer in enumerate(_maskable(model))
        if is_twin(layer)
    ]


def apply_mask_map(model, entries):
    """Swap in what `mask_map` recorded; layers that are masked already stay.

    Raises:
        ValueError: If the model's layers are not those of the record.
    """
    layers, known = [layer for _, layer in walk(model)], _maskable(model)
    for entry in entries:
        # Files of before count all layers.
        index = entry.get("index", entry.get("position"))
        among = layers if "index" in entry else known
        layer = among[index] if index < len(among) else None
        if is_twin(layer):
            continue
        if twin_of(layer) is None or type(layer).__name__ != entry["layer"]:
            raise ValueError(
                f"The saved model has a masked {entry['layer']} as number {index} of "
                "its layers that can be masked, but its config builds another model. "
                f"Check `get_config` of the model's class. Received: layer={layer!r}"
            )
        swap_in(layer, **_arguments(entry["masks"]))
