"""Swapping layers for their masked twins and back, at any depth of a model."""

import keras

from keras_es import _compat, patterns
from keras_es.layers import BLOCK_SPARSE, CELLS, TWINS, BlockSparseLayer, MaskedLayer


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


def masked_weights(model):
    """Return the `MaskedWeight` of every masked weight of a model or layer.

    Args:
        model: A Keras model or layer.

    Returns:
        List of `MaskedWeight` and `BlockSparseWeight`, in the order of the layers.
    """
    layers = [layer for _, layer in walk(model)]
    return [
        m
        for layer in [model, *layers]
        if has_masks(layer)
        for m in layer.masked_weights
    ]


def has_masks(layer):
    """Tell whether a layer's weights are masked or block-sparse."""
    return isinstance(layer, (MaskedLayer, BlockSparseLayer))


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
    return None if altered else TWINS.get(type(layer))


def swap_in(layer, sparsity, pattern, mask_seed):
    """Turn a built plain layer into its masked twin, in place."""
    layer.__class__ = twin_of(layer)
    layer._configure_masks(sparsity, pattern, mask_seed)
    if layer.built:
        layer._build_masks()


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


def is_twin(layer):
    """Tell whether a layer is a masked twin that `sparsify` can swap in."""
    return type(layer) in TWINS.values()


def masks_cell(layer):
    """Tell whether a layer is masked, or would be, in its recurrent cell."""
    masked = has_masks(layer) or twin_of(layer) is not None
    return hasattr(layer, "cell") and masked


def mask_map(model):
    """Return where masked layers sit and how they are masked, for a config.

    Layers are known by their position in `walk`: names given by Keras inside a
    composite differ between two builds of the same model, positions do not.
    """
    return [
        {
            "index": index,
            "layer": type(layer).plain_class().__name__,
            "masks": layer.mask_config(),
        }
        for index, (_, layer) in enumerate(walk(model))
        if is_twin(layer)
    ]


def apply_mask_map(model, entries):
    """Swap in what `mask_map` recorded; layers that are masked already stay.

    Raises:
        ValueError: If the model's layers are not those of the record.
    """
    layers = [layer for _, layer in walk(model)]
    for entry in entries:
        index = entry["index"]
        layer = layers[index] if index < len(layers) else None
        if is_twin(layer):
            if layer.built:
                # Keras binds `build` when a layer is made: one that was swapped
                # before it was built has no masks yet.
                layer._build_masks()
            continue
        if twin_of(layer) is None or type(layer).__name__ != entry["layer"]:
            raise ValueError(
                f"The saved model has a masked {entry['layer']} as layer {index}, "
                "but its config builds another model. Check `get_config` of the "
                f"model's class. Received: layer={layer!r}"
            )
        swap_in(
            layer,
            entry["masks"]["sparsity"],
            {n: patterns.get(p) for n, p in entry["masks"]["pattern"].items()},
            entry["masks"]["mask_seed"],
        )


def copy_weights(source, target):
    """Copy all variables between two models of the same architecture.

    Raises:
        ValueError: If the two differ.
    """
    sources = [source, *(layer for _, layer in walk(source))]
    targets = [target, *(layer for _, layer in walk(target))]
    pairs = []
    for a, b in zip(sources, targets, strict=True):
        pairs += zip(_compat.own_variables(b), _compat.own_variables(a), strict=True)
    for new, old in pairs:
        new.assign(old.value)


def clone(model):
    """Return a copy of a model with its own layers and the same weights.

    Functional and sequential models are copied layer by layer; a subclassed model
    through its config.

    Raises:
        ValueError: If the model is not built.
    """
    if not model.built:
        raise ValueError(
            "The model has no weights yet. Build it first: give it an Input, call it "
            f"on data or call `build`. Received: model={model.name!r}, not built"
        )
    scope = {type(layer).__name__: type(layer) for _, layer in walk(model)}
    with keras.saving.custom_object_scope(scope):
        if _is_layer_graph(model):
            copy = _compat.clone_layer_graph(model)
            # Keras clones composites from their configs, which know of no masks.
            apply_mask_map(copy, mask_map(model))
        else:
            copy = type(model).from_config(model.get_config())
            if not copy.built:
                copy.build_from_config(model.get_build_config())
                copy.built = True  # as Keras does after it
            _compat.copy_called(model, copy)
    copy_weights(model, copy)
    _copy_names(model, copy)
    return copy


def _copy_names(source, target):
    """Give layers in composites the names they have in the source, not new ones."""
    for (_, old), (_, new) in zip(walk(source), walk(target), strict=True):
        if not isinstance(new, keras.layers.InputLayer):
            new.name = old.name


def _is_layer_graph(model):
    return isinstance(model, keras.Sequential) or _compat.is_functional(model)
