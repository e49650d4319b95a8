"""Giving a model the class that trains masks, and its own class back."""

import keras

from keras_es import _compat
from keras_es.training.derived import ESDerived, become_es, become_plain, es_class
from keras_es.training.model import ESMixin
from keras_es.training.models import ESModel, ESSequential


def es_model(model: keras.Model) -> keras.Model:
    """Return the same model with the class whose `fit` can evolve its weights.

    No layer is masked or copied: both models share their layers and weights.

    Args:
        model: Sequential or functional Keras model, or a subclass of `ESMixin`.

    Returns:
        An `ESSequential` or `ESModel`, not compiled. A functional model of a class of
        its own (a KerasHub task, say) is given a subclass of that class in place, and
        returned itself.

    Raises:
        ValueError: If the model is of another class, or its class has a `train_step`
            of its own.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    >>> type(es_model(model)).__name__
    'ESSequential'
    """
    check_model(model)
    return with_train_step(model)


def check_model(model):
    """Refuse what is no model, or one that cannot train masks."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a keras.Model; a single layer has a masked twin in "
            f"keras_es.layers. Received: model={model!r}"
        )
    graph = isinstance(model, keras.Sequential) or _compat.is_functional(model)
    if not graph and not isinstance(model, ESMixin):
        raise ValueError(
            "A subclassed model must derive from keras_es.ESMixin to be trained with "
            f"masks: class {type(model).__name__}(keras_es.ESMixin, keras.Model). "
            f"Received: model of class {type(model).__name__}"
        )
    if not isinstance(model, ESMixin) and not is_plain(model):
        es_class(type(model))  # refuses what cannot be trained with masks


def with_train_step(model):
    """Give a plain model the class that trains masks."""
    if isinstance(model, ESMixin):
        return model
    if not is_plain(model):
        become_es(model)
        return model
    if isinstance(model, keras.Sequential):
        return _rebuild(model, ESSequential)
    return _rebuild(model, ESModel)


def without_train_step(model):
    """Give a model back the class that `with_train_step` would be given."""
    if type(model) is ESSequential:
        return _rebuild(model, keras.Sequential)
    if type(model) is ESModel:
        return _rebuild(model, keras.Model)
    if isinstance(model, ESDerived):
        become_plain(model)
    return model


def is_plain(model):
    """Tell whether a model's class is Keras's own, with nothing of a user's in it."""
    return type(model) is keras.Sequential or _compat.is_plain_functional(model)


def _rebuild(model, cls):
    """Make a model of another class from the same layers."""
    if issubclass(cls, keras.Sequential):
        rebuilt = cls(name=model.name)
        if model.built:  # else inputs come with the first batch
            rebuilt.add(model.inputs[0])  # Keras takes the layer that made it
        for layer in model.layers:
            rebuilt.add(layer)
        return rebuilt
    return cls(inputs=model.input, outputs=model.output, name=model.name)
