"""Layers with an adapter of low rank (LoRA), whose frozen weight has a private name."""

import keras

__all__ = ["frozen_weight"]


def frozen_weight(layer):
    """Return the weight below an adapter, or None where there is no float one.

    `layer.kernel` and `layer.embeddings` are the sums of weight and adapter.
    """
    enabled = getattr(layer, "lora_enabled", False)
    if not enabled or getattr(layer, "quantization_mode", None):
        return None
    weight = getattr(layer, "_kernel", getattr(layer, "_embeddings", None))
    return weight if isinstance(weight, keras.Variable) else None
