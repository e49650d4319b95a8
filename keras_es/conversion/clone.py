"""A copy of a model: layers of its own, the same state."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from keras_es import _compat
from keras_es.layers import tree
from keras_es.training.models import ESSequential


@dataclasses.dataclass
class Cut:
    """How the copy of a layer is to differ from the layer.

    Attributes:
        config: What changes in its config; None for a layer inside of one that is cut
            itself, which makes it.
        weights: All its weights, by attribute, in the shapes of the copy.
        shapes: Of a model within the model: the shapes of its inputs, if they change.
    """

    config: dict[str, Any] | None
    weights: dict[str, Any]
    shapes: list[tuple[int | None, ...]] | None = None


def clone(model, cuts: Mapping[Any, Cut] | None = None):
    """Return a copy of a model with its own layers and the same state, not compiled.

    What Keras's files hold of a layer comes through as it does through `save` and
    `load_model`: weights, and what `save_own_variables` and `save_assets` store besides
    (statistics of an adapted `Normalization`, vocabularies, tables). Two things are
    better than there. A layer that several models share is shared by their copies,
    where Keras cannot load such a file; and a copied variable equals its source to
    the bit where Keras's file merges some (LoRA).

    Args:
        model: A built model.
        cuts: Dict from a layer, or model within the model, to its `Cut`.

    Raises:
        ValueError: If the model is not built, or its config does not make it again.
    """
    check_built(model)
    cut = {id(layer): cut for layer, cut in (cuts or {}).items()}
    layers = [model, *(layer for _, layer in tree.walk(model))]
    with _compat.copying(layers) as copies:
        copy = _copy(model, copies, cut)
        for layer in layers:
            if id(layer) in copies and id(layer) not in cut:
                _compat.build_as(layer, copies[id(layer)])
    _carry_over(model, copy, cut)
    return copy


def check_built(model):
    """Refuse a model that has no weights yet."""
    if not model.built:
        raise ValueError(
            "The model has no weights yet. Build it first: give it an Input, call it "
            f"on data or call `build`. Received: model={model.name!r}, not built"
        )


def is_graph(model):
    """Tell whether inputs and outputs alone make a model's class again."""
    return type(model) in (keras.Sequential, ESSequential) or _compat.is_plain_graph(
        model
    )


def _copy(layer, copies, cut):
    """Return the copy of a layer, one wherever it is used, without its state."""
    if id(layer) not in copies:
        if is_graph(layer):
            # Layer by layer, not by config: a config knows the calls of a layer by
            # their number, which is another one if other models call it as well.
            shapes = cut[id(layer)].shapes if id(layer) in cut else None
            copy = _compat.clone_layer_graph(
                layer, lambda one: _copy(one, copies, cut), shapes
            )
        else:
            copy = _by_config(layer, copies, cut)
        copies[id(layer)] = copy
    return copies[id(layer)]


def _by_config(layer, copies, cut):
    if not isinstance(layer, keras.layers.Layer):  # an operation such as x + y
        return type(layer).from_config(layer.get_config())
    for inner in _compat.direct_sublayers(layer):
        if is_graph(inner):
            _copy(inner, copies, cut)
    changes = _changes(layer, cut[id(layer)]) if id(layer) in cut else None
    try:
        copy = _compat.copy_by_config(layer, changes)
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r} cannot be copied, nor saved and "
            "loaded, by its `get_config` and `from_config`. Write them, or, if it is a "
            "functional model, give keras.Model(model.inputs, model.outputs). "
            f"Received: {error}"
        ) from error
    if layer.built:
        _compat.copy_called(layer, copy)
    return copy


def _changes(layer, cut):
    """Return what is other in a config, with initializers that know the new shapes."""
    if cut.config is None:
        return None
    changes = dict(cut.config)
    for name, value in cut.weights.items():
        # That of the kernel of a depthwise convolution has a name of its own.
        starts = [name.removesuffix("_kernel"), *["depthwise"] * (name == "kernel")]
        for key in (f"{start}_initializer" for start in starts):
            made = getattr(layer, key, None)
            if made is not None and not _makes(made, value.shape):
                changes[key] = "zeros"
    return changes


def _makes(initializer, shape):
    """Tell whether an initializer, a table of constants say, has values of a shape."""
    try:
        return tuple(initializer(shape).shape) == tuple(shape)
    except Exception:  # any of a user's code, or of arrays that do not fit
        return False


def _carry_over(model, copy, cut):
    """Mask what is masked in the model, and give the copy the model's state."""
    sources = dict(_compat.saveables(model))
    targets = dict(_compat.saveables(copy))
    _check_same(model, sources, targets)
    pairs = [(old, targets[p]) for p, old in sources.items() if p in targets]
    layers = [pair for pair in pairs if isinstance(pair[0], keras.layers.Layer)]
    for old, new in layers:
        # A composite's config knows of no masks.
        if tree.is_twin(old) and not tree.is_twin(new):
            tree.swap_in(new, **tree.mask_arguments(old))
        # Layers in composites get new names, and rules go by the given ones.
        if new.name != old.name and not isinstance(new, keras.layers.InputLayer):
            new.name = old.name
    for old, new in pairs:
        if id(old) in cut and not is_graph(old):
            for name, value in cut[id(old)].weights.items():
                getattr(new, name).assign(value)
        else:
            _compat.copy_state(old, new)


def _check_same(model, sources, targets):
    """Refuse a copy that has weights where the model has none, or the reverse."""

    def with_weights(found):
        return {
            path: layer
            for path, layer in found.items()
            if isinstance(layer, keras.layers.Layer) and _compat.own_variables(layer)
        }

    sources, targets = with_weights(sources), with_weights(targets)
    odd = sorted(set(sources) ^ set(targets))
    if odd:
        layer = sources.get(odd[0]) or targets[odd[0]]
        side = "the copy" if odd[0] in sources else "the model"
        raise ValueError(
            f"`get_config` of {type(model).__name__} {model.name!r}, or of a layer in "
            f"it, makes other layers than it has: {side} has no weights at "
            f"{odd[0]!r}. Received: layer {layer.name!r} of class "
            f"{type(layer).__name__}"
        )
