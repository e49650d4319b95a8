"""Private names of Keras's saving and cloning: how a model is copied."""

import contextlib
import tempfile
import types
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.saving import saving_lib, serialization_lib
from keras.src.saving.keras_saveable import KerasSaveable

from keras_es._compat.host import inputs_of, own_variables

__all__ = [
    "build_as",
    "class_config",
    "class_of",
    "clone_layer_graph",
    "copy_by_config",
    "copy_called",
    "copy_state",
    "copying",
    "saveables",
]


def copy_called(source, target):
    """Let a copy be exported if its source can be: Keras asks whether it was called."""
    target._called = source._called


def clone_layer_graph(model, copy_layer, shapes=None):
    """Clone a functional or sequential model, with what `copy_layer` returns.

    Inside `copying`, for Keras compiles the clone as the model is.

    Args:
        model: The model.
        copy_layer: Function from a layer to its copy.
        shapes: Shapes of the inputs in turn, with the axis of examples, if they change.
    """
    tensors = None
    if shapes is not None:
        structure = inputs_of(model)
        made = [
            keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor.name)
            for shape, tensor in zip(shapes, keras.tree.flatten(structure))
        ]
        tensors = keras.tree.pack_sequence_as(structure, made)
    return keras.models.clone_model(
        model, input_tensors=tensors, clone_function=copy_layer
    )


@contextlib.contextmanager
def copying(layers):
    """Make copies of layers by their configs; yield {id of a layer: its copy}.

    The dict is the one in which Keras looks for objects that several configs share,
    and every layer's config says that it may be shared: Keras itself says so from the
    second config on, too late for one inside a model's config, which is a copy.
    Nothing is compiled: an optimizer would not fit the copy's weights once its
    layers are swapped.
    """
    compiled = [layer for layer in layers if getattr(layer, "compiled", False)]
    for model in compiled:
        model.compiled = False
    copies: dict[int, Any] = {}
    try:
        with (
            serialization_lib.ObjectSharingScope(),
            keras.saving.custom_object_scope(_classes_and_functions(layers)),
        ):
            marks: dict[int, dict] = {id(layer): {} for layer in layers}
            global_state.set_global_attribute("shared_objects/id_to_config_map", marks)
            global_state.set_global_attribute("shared_objects/id_to_obj_map", copies)
            yield copies
    finally:
        for model in compiled:
            model.compiled = True


def _classes_and_functions(layers):
    """Return what configs of layers name that may not be registered with Keras."""
    used = [value for layer in layers for value in vars(layer).values()]
    named: list[Any] = [v for v in used if isinstance(v, types.FunctionType)]
    named += [type(value) for value in used if hasattr(value, "get_config")]
    named += [type(layer) for layer in layers]
    return {n.__name__: n for n in named if not n.__module__.startswith("keras.")}


def copy_by_config(layer, changes=None):
    """Return a copy of a layer by its config, within `copying`, without its state.

    `changes` are entries of the config that are to be others.

    The layer itself is not built: the model that calls it builds it in its name scope,
    and paths of weights are what noise is drawn by. Layers in it are.
    """
    config = serialization_lib.serialize_keras_object(layer)
    config.pop("build_config", None)
    if changes:
        config["config"] = {**config["config"], **changes}
    return serialization_lib.deserialize_keras_object(config, safe_mode=False)


def build_as(source, target):
    """Build a layer as its source was built, if nothing has built it yet."""
    config = source.get_build_config() if source.built else None
    if config and not target.built:
        target.build_from_config(config)
        target.built = True  # as Keras does after it


def class_config(cls):
    """Return by what names Keras finds a class again."""
    config = serialization_lib.serialize_with_public_class(cls)
    return {name: config[name] for name in ("module", "class_name", "registered_name")}


def class_of(config):
    """Return the class that `class_config` described."""
    return serialization_lib._retrieve_class_or_fn(
        config["class_name"],
        config["registered_name"],
        config["module"],
        obj_type="class",
        full_config=config,
    )


_COMPILED = (keras.optimizers.Optimizer, keras.metrics.Metric, keras.losses.Loss)


def saveables(root):
    """Yield (path, object) of what has a state of its own, as Keras's files have it.

    What `compile` adds to a model is left out. Paths are of attributes and positions
    in containers, not of names, and each object has the first one by which it is found.
    Two models of one class and config have the same paths.
    """
    seen = set()

    def visit(path, value):
        if id(value) in seen:
            return
        if isinstance(value, KerasSaveable):
            seen.add(id(value))
            yield path, value
            for name, child in saving_lib._walk_saveable(value):
                if isinstance(value, keras.Model) and isinstance(child, _COMPILED):
                    continue
                yield from visit(f"{path}/{name}", child)
        elif isinstance(value, (list, tuple, dict)):
            seen.add(id(value))
            kept.append(value)  # An id is unique while its object is alive.
            children = value.values() if isinstance(value, dict) else value
            for index, child in enumerate(children):
                yield from visit(f"{path}/{index}", child)

    kept = []
    yield from visit("", root)


def copy_state(source, target):
    """Give an object the state of another one of its class, as through Keras's files.

    Raises:
        ValueError: If the two have other variables.
    """
    same = type(source) is type(target)  # A copied `ESModel` is a plain model first.
    if same and hasattr(source, "save_own_variables") and _has_own_state(type(source)):
        store = _Store()
        source.save_own_variables(store)
        target.load_own_variables(store)
    if hasattr(source, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)
    if not isinstance(source, keras.layers.Layer):
        return
    pairs = list(zip(own_variables(source), own_variables(target)))
    shapes = [v.shape for v in own_variables(source)]
    if shapes != [v.shape for v in own_variables(target)]:
        if _has_own_state(type(source)):
            return  # Loaded above, in a form that only the layer knows.
        raise ValueError(
            f"`get_config` of {type(source).__name__} {source.name!r} makes a layer "
            f"with other weights. Received: shapes {shapes} and "
            f"{[v.shape for v in own_variables(target)]}"
        )
    for old, new in pairs:
        new.assign(old.value)


class _Store(dict):
    """Keras's store of one layer, in memory: it holds arrays."""

    def __setitem__(self, key, value):
        super().__setitem__(key, keras.ops.convert_to_numpy(value))


def _has_own_state(cls):
    """Tell whether a class saves more, or other things, than its variables in turn."""
    plain = keras.layers.Layer
    return any(
        getattr(cls, name) is not getattr(plain, name, None)
        for name in ("save_own_variables", "load_own_variables")
    )
