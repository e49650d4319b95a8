"""Models of a class of their own, such as KerasHub's tasks, that train masks."""

import keras

from keras_es import _compat
from keras_es.layers import tree
from keras_es.training.model import ESMixin
from keras_es.training.models import NEEDS

_NAME = "ESDerived"

_DERIVED: dict[type, type] = {}
"""What `es_class` has made, so that a model that is loaded is of the same class."""


class ESDerived(ESMixin):
    """Base of the classes that `es_class` makes: a user's class, with `ESMixin`.

    All of them are registered with Keras under one name; a model's config says which
    class it is derived from, so that `load_model` needs that one's package and
    `import keras_es`, and nothing that existed only in the process that saved it.
    """

    base_class: type

    def get_config(self):
        """Return the config of the model with its class."""
        base = _compat.class_config(self.base_class)
        return {"needs": NEEDS, "base": base, "model": super().get_config()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the model as its own class does, then swap masked layers in again."""
        inner = dict(config["model"])
        masks = inner.pop("mask_map", None)
        model = _compat.class_of(config["base"]).from_config(inner)
        become_es(model)
        if masks and model.built:
            tree.apply_mask_map(model, masks)
        return model


def es_class(base: type) -> type:
    """Return the class that does all that `base` does and trains masks.

    Raises:
        ValueError: If `base` has a train step of its own, which knows no masks.
    """
    if getattr(base, "train_step", None) is not keras.Model.train_step:
        raise ValueError(
            f"{base.__name__} has a `train_step` of its own, which would not train "
            f"masks. Derive it from keras_es.ESMixin: class {base.__name__}(keras_es."
            "ESMixin, ...), and let its step call `super().train_step(data)`. "
            f"Received: model of class {base.__name__}"
        )
    if base in _DERIVED:
        return _DERIVED[base]
    init = base.__init__  # type: ignore[misc]
    fields = {
        "__doc__": f"`{base.__name__}` whose masks can be trained.",
        "__module__": "keras_es",
        # Not that of the mixin, which takes anything: Keras looks at signatures.
        "__init__": init,
        "base_class": base,
    }
    derived = type(f"ES{base.__name__}", (ESDerived, base), fields)
    _DERIVED[base] = keras.saving.register_keras_serializable("keras_es", _NAME)(
        derived
    )
    return _DERIVED[base]


def become_es(model):
    """Give a model the class that trains masks, in place."""
    model.__class__ = es_class(type(model))
    _compat.rebind_methods(model)


def become_plain(model):
    """Give a model the class back from which `become_es` derived one, in place."""
    model.__class__ = type(model).base_class
    _compat.rebind_methods(model)


keras.saving.register_keras_serializable("keras_es", _NAME)(ESDerived)
