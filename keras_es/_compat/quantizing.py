"""What `keras.Model.quantize` asks of layers, and asking it of all of them first."""

import functools
import inspect

import keras

try:
    from keras.src.quantizers.utils import should_quantize_layer
except ImportError:  # Keras without filters

    def should_quantize_layer(layer, filters):
        """Tell whether `Model.quantize` would look at a layer."""
        return True


__all__ = ["check_before_quantizing", "should_quantize_layer"]


def check_before_quantizing(check):
    """Let `quantize` of every model call `check(model, filters)` before all else.

    Keras asks layer after layer and nothing before. A layer that refuses would leave
    those before it quantized; one that only warns is left out. Either way the model is
    quantized by half, so it has to be asked here, whatever its class.
    """
    original = keras.Model.quantize
    signature = inspect.signature(original)

    @functools.wraps(original)
    def quantize(self, *args, **kwargs):
        given = signature.bind(self, *args, **kwargs).arguments
        check(self, given.get("filters"))
        return original(self, *args, **kwargs)

    keras.Model.quantize = quantize
