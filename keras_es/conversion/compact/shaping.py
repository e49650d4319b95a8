"""Rules of layers that put channels elsewhere, or several tensors together."""

import math
from collections.abc import Callable
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
from keras_es.conversion.compact.rules import (
    Rule,
    Step,
    layers_named,
    require_last_axis,
    rule,
)


def _positions(step: Step) -> int:
    """Return how many entries an example has.

    Raises:
        CannotFollow: If that is not known.
    """
    shape = step.shape()[1:]
    if None in shape:
        raise CannotFollow("the size of its inputs is not known")
    return math.prod(size for size in shape if size is not None)


@rule(keras.layers.Flatten)
class FlattenRule(Rule):
    """A channel becomes as many as there are positions; they go together."""

    has_size = False

    def follow(self, step: Step) -> list[Channels]:
        """Repeat the channels over positions."""
        require_last_axis(step.layer)
        (channels,) = step.inputs
        return [_repeated(channels, _positions(step) // len(channels))]


def _repeated(channels, times):
    return Channels(np.tile(channels.groups, times), np.tile(channels.constants, times))


@rule(keras.layers.Reshape)
class ReshapeRule(Rule):
    """Entry f of an example is channel f mod C before, and f mod D after.

    Channels that share a residue modulo gcd(C, D) go together; where D is a multiple
    of C, as after a pooling, none has to.
    """

    def follow(self, step: Step) -> list[Channels]:
        """Tie what is one channel before or after."""
        (channels,), tracker = step.inputs, step.tracker
        before = len(channels)
        after = step.call.outputs[0].shape[-1]
        entries = _positions(step)
        if after is None:
            raise CannotFollow("the size of its outputs is not known")
        # [positions after, channels after]
        source = (np.arange(entries) % before).reshape(-1, after)
        groups, constants = channels.groups[source], channels.constants[source]
        first = Channels(groups[0], constants[0])
        if after % before:
            for row in range(1, len(source)):
                tracker.unite(first, Channels(groups[row], constants[row]))
        return [first.with_constants(agreed(constants))]

    def cut(self, step: Step, solution: Solution) -> dict[Any, Cut]:
        """Make the last axis of the target as long as channels stay."""
        (channels,) = step.outputs
        kept = len(solution.kept(channels))
        if kept == len(channels):
            return {}
        shape = tuple(step.call.outputs[0].shape[1:-1])
        return {step.layer: Cut({"target_shape": (*shape, kept)}, {})}


@rule(keras.layers.Permute)
class PermuteRule(Rule):
    """Channels stay the last axis, or are not followed."""

    has_size = False

    def follow(self, step: Step) -> list[Channels]:
        """Return the channels of the input."""
        dims = step.layer.dims
        if dims[-1] != len(dims):
            raise CannotFollow("it makes another axis the last one")
        return list(step.inputs)


@rule(keras.layers.Concatenate)
class ConcatenateRule(Rule):
    """Channels stand side by side; along another axis they go together."""

    has_size = False

    def follow(self, step: Step) -> list[Channels]:
        """Put channels side by side, or tie them."""
        axis, rank = step.layer.axis, len(step.shape())
        if axis in (-1, rank - 1):
            groups = np.concatenate([c.groups for c in step.inputs])
            constants = np.concatenate([c.constants for c in step.inputs])
            return [Channels(groups, constants)]
        first = step.inputs[0]
        constants = np.stack([c.constants for c in step.inputs])
        for other in step.inputs[1:]:
            step.tracker.unite(first, other)
        return [first.with_constants(agreed(constants))]


def _average(*values):
    return sum(values) / len(values)


_MERGES: dict[type, Callable[..., Any]] = {
    keras.layers.Add: lambda *values: sum(values),
    keras.layers.Average: _average,
    keras.layers.Maximum: lambda *values: np.max(values, axis=0),
    keras.layers.Minimum: lambda *values: np.min(values, axis=0),
    keras.layers.Multiply: lambda *values: math.prod(values),
    keras.layers.Subtract: np.subtract,
    **{cls: getattr(np, name) for cls, name in _compat.MERGING_OPERATIONS.items()},
}
_PRODUCTS = (keras.layers.Multiply, *(
    cls for cls, name in _compat.MERGING_OPERATIONS.items() if name == "multiply"
))  # fmt: skip


@rule(*_MERGES)
class MergeRule(Rule):
    """Sums, products, maxima: channel by channel, which then go together."""

    has_size = False

    def follow(self, step: Step) -> list[Channels]:
        """Tie the channels of all inputs; those of one channel are for all."""
        operands = _operands(step)
        count = max(len(c) for c in operands if isinstance(c, Channels))
        wide: list[Channels] = []
        for operand in operands:
            if isinstance(operand, Channels) and len(operand) == count:
                wide.append(operand)
            elif isinstance(operand, Channels):
                step.tracker.pin(operand)
        for other in wide[1:]:
            step.tracker.unite(wide[0], other)
        values = [
            np.broadcast_to(getattr(operand, "constants", operand), (count,))
            for operand in operands
        ]
        constants = _MERGES[type(step.layer)](*values)
        if type(step.layer) in _PRODUCTS:
            constants = np.where((np.stack(values) == 0.0).any(0), 0.0, constants)
        return [wide[0].with_constants(constants)]


def _operands(step: Step) -> list[Any]:
    """Return channels and numbers in the order of the call's arguments."""
    arguments: Any = step.call.args
    if isinstance(arguments[0], (list, tuple)):
        arguments = arguments[0]
    operands: list[Any] = []
    for argument in arguments:
        if any(argument is tensor for tensor in step.call.inputs):
            operands.append(step.channels(argument))
        elif isinstance(argument, (int, float)):
            operands.append(float(argument))
        else:
            raise CannotFollow("it takes an array that is not of the graph")
    if len(operands) < len(step.inputs):
        raise CannotFollow("it takes tensors by name")
    return operands


_TOGETHER = "it normalizes over channels together, so that all of them count"
_STATE = "recurrent layers are left as they are"

REASONS: dict[type, str] = {
    **dict.fromkeys(
        layers_named(
            "GroupNormalization", "LayerNormalization", "RMSNormalization",
            "UnitNormalization",
        ),
        _TOGETHER,
    ),
    **dict.fromkeys(
        layers_named("Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "GRU",
                     "LSTM", "RNN", "SimpleRNN"),
        _STATE,
    ),
    **dict.fromkeys(layers_named("Softmax"), "it compares channels with each other"),
    **dict.fromkeys(layers_named("Lambda"), "what its function does is not known"),
}  # fmt: skip
"""Why layers of these classes are not followed."""
