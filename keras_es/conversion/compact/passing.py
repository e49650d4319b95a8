"""Rules of layers without weights that leave each channel what it is."""

from typing import Any

import keras
import numpy as np

from keras_es import _compat
from keras_es.conversion.clone import Cut
from keras_es.conversion.compact.channels import (
    CannotFollow,
    Channels,
    Solution,
    agreed,
)
from keras_es.conversion.compact.linear import PADDED
from keras_es.conversion.compact.rules import (
    Rule,
    Step,
    floats,
    is_elementwise,
    layers_named,
    on_constants,
    require_last_axis,
    rule,
)


class Passing(Rule):
    """A constant stays the same constant."""

    has_size = False

    def follow(self, step: Step) -> list[Channels]:
        """Return the channels of the one input."""
        require_last_axis(step.layer)
        channels = step.inputs[0]
        for mask in step.inputs[1:]:  # of GlobalAveragePooling1D
            step.tracker.pin(mask)
        return [channels.with_constants(self.constants(step, channels.constants))]

    def constants(self, step: Step, constants: np.ndarray) -> np.ndarray:
        """Return what becomes of constants."""
        return constants


@rule(
    *layers_named(
        "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout",
        "GaussianNoise", "Identity", "SpatialDropout1D", "SpatialDropout2D",
        "SpatialDropout3D", "RepeatVector",
        *(f"{kind}{n}D" for n in (1, 2, 3) for kind in (
            "AveragePooling", "MaxPooling", "GlobalAveragePooling",
            "GlobalMaxPooling", "UpSampling", "Cropping",
            "AdaptiveAveragePooling", "AdaptiveMaxPooling",
        )),
    )
)  # fmt: skip
class SameRule(Passing):
    """Pooling, dropout, resizing: nothing mixes channels or changes constants."""


@rule(*layers_named("ReLU", "LeakyReLU", "ELU", "Rescaling"))
@rule(*_compat.ELEMENTWISE_OPERATIONS)
class ElementwiseRule(Passing):
    """A constant is what the layer makes of it."""

    def follow(self, step: Step) -> list[Channels]:
        """Refuse what is not one number for all channels."""
        numbers = [getattr(step.layer, name, 0.0) for name in ("scale", "offset")]
        if any(np.ndim(number) for number in numbers):
            raise CannotFollow("it scales each channel by a number of its own")
        return super().follow(step)

    def constants(self, step: Step, constants: np.ndarray) -> np.ndarray:
        """Call the layer."""
        return on_constants(step.layer, constants, step.dtype)


@rule(keras.layers.Activation)
class ActivationRule(Passing):
    """An activation that acts entry by entry."""

    def constants(self, step: Step, constants: np.ndarray) -> np.ndarray:
        """Call the activation."""
        if not is_elementwise(step.layer.activation):
            raise CannotFollow("its activation is not known to act entry by entry")
        return on_constants(step.layer.activation, constants, step.dtype)


@rule(*layers_named("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D"))
class ZeroPaddingRule(Passing):
    """Only a constant 0 stays one."""

    def constants(self, step: Step, constants: np.ndarray) -> np.ndarray:
        """Return zeros where there were, else NaN."""
        padded = ~np.isnan(constants) & (constants != 0.0)
        step.hold(step.inputs[0], padded, PADDED)
        return np.where(constants == 0.0, 0.0, np.nan)


class PerChannel(Rule):
    """Layers with a weight for each channel."""

    def weights(self, layer: Any) -> dict[str, np.ndarray]:
        """Return its weights by attribute; channels are the last axis."""
        raise NotImplementedError

    def cut(self, step: Step, solution: Solution) -> dict[Any, Cut]:
        """Keep the entries of channels that stay."""
        channels = step.inputs[0]
        kept = solution.kept(channels)
        if len(kept) == len(channels):
            return {}
        weights = {
            name: value if value.shape[-1] != len(channels) else value[..., kept]
            for name, value in self.weights(step.layer).items()
        }
        return {step.layer: Cut({}, weights)}


@rule(keras.layers.BatchNormalization)
class BatchNormalizationRule(PerChannel):
    """A factor and an offset for each channel, as they are at inference."""

    def weights(self, layer: Any) -> dict[str, np.ndarray]:
        """Return offset, factor and statistics."""
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        found = {name: getattr(layer, name, None) for name in names}
        return {name: floats(v) for name, v in found.items() if v is not None}

    def follow(self, step: Step) -> list[Channels]:
        """Scale and shift constants."""
        layer, channels = step.layer, step.inputs[0]
        if layer.axis not in (-1, len(step.shape()) - 1):
            raise CannotFollow("it normalizes another axis than the last one")
        for mask in step.inputs[1:]:
            step.tracker.pin(mask)
        found = self.weights(layer)
        scale = found.get("gamma", 1.0) / np.sqrt(
            found["moving_variance"] + layer.epsilon
        )
        shifted = (channels.constants - found["moving_mean"]) * scale
        # A factor of 0 makes a constant of whatever comes in.
        shifted = np.where(scale == 0.0, 0.0, shifted)
        return [channels.with_constants(shifted + found.get("beta", 0.0))]


@rule(keras.layers.PReLU)
class PReLURule(PerChannel):
    """A slope for each channel, or for each position of each."""

    def weights(self, layer: Any) -> dict[str, np.ndarray]:
        """Return the slopes."""
        return {"alpha": floats(layer.alpha)}

    def follow(self, step: Step) -> list[Channels]:
        """A constant stays one if all positions have one slope, or it is not < 0."""
        (channels,), alpha = step.inputs, floats(step.layer.alpha)
        alpha = np.broadcast_to(alpha, (*alpha.shape[:-1], len(channels)))
        values = channels.constants
        scaled = values * agreed(alpha.reshape(-1, len(channels)))
        return [channels.with_constants(np.where(values >= 0.0, values, scaled))]
