"""Noise of the members of pure evolution: on weights, on outputs, layer by layer."""

from keras_es.noise.options import (
    Active,
    Full,
    Layerwise,
    LowRank,
    Noise,
    Orthogonal,
    Outputs,
)

__all__ = ["Active", "Full", "Layerwise", "LowRank", "Noise", "Orthogonal", "Outputs"]
