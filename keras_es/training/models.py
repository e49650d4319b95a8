"""The models that `sparsify` and `es_model` return."""

import keras

from keras_es import _compat
from keras_es.training.model import ESMixin

NEEDS = "`import keras_es` before this model is loaded"
"""Stands in the config of a model, for processes that have not imported the package."""


class _Made(ESMixin):
    """What the package's own classes have besides: their files say what they need.

    Where it is not imported, Keras cannot find the class and prints the config, which
    begins with the module and this.
    """

    def get_config(self):
        """Return the config, with what has to be imported."""
        return {"needs": NEEDS, **super().get_config()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the model from its config."""
        config = {k: v for k, v in config.items() if k != "needs"}
        return super().from_config(config, custom_objects=custom_objects)


@keras.saving.register_keras_serializable(package="keras_es")
class ESModel(_Made, keras.Model):
    """A functional model whose masks can be trained; what `sparsify` returns.

    Args:
        *args: As `keras.Model`: inputs and outputs.
        **kwargs: As `keras.Model`.
    """

    __module__ = "keras_es"


@keras.saving.register_keras_serializable(package="keras_es")
class ESSequential(_Made, keras.Sequential):
    """A sequential model whose masks can be trained; what `sparsify` returns.

    Args:
        *args: As `keras.Sequential`: layers.
        **kwargs: As `keras.Sequential`.
    """

    __module__ = "keras_es"

    def build(self, input_shape=None):
        """Build without an Input for any number of examples, unless a state has one.

        Keras takes that of the first batch, which members may share.
        """
        known = _compat.has_input(self)
        known |= any(getattr(layer, "stateful", False) for layer in self.layers)
        if isinstance(input_shape, (tuple, list)) and input_shape and not known:
            input_shape = (None, *input_shape[1:])
        super().build(input_shape)
