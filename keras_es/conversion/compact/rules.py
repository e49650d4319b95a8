"""Rules, one for each class of layers, and what they are given."""

import dataclasses
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
    Tracker,
)

RULES: dict[type, "Rule"] = {}
"""Class of a layer or operation -> its rule. Of exactly that class: one derived from it
may do something else."""


@dataclasses.dataclass(eq=False)
class Step:
    """One call of a layer while channels are followed, and after.

    Attributes:
        call: The call in the graph.
        inputs: The channels of its tensors, in turn; see `Rule.takes_unknown`.
        tracker: What the rule tells of them.
        masked: Whether a layer of the model says which time steps do not count.
        memo: What the rule wants to find again when it cuts.
        held: (channels, reason) of channels that are constant and nevertheless stay.
        outputs: The channels of its results, in turn.
    """

    call: _compat.Call
    inputs: list[Any]
    tracker: Tracker
    masked: bool = False
    memo: dict[str, Any] = dataclasses.field(default_factory=dict)
    held: list[tuple[Channels, np.ndarray, str]] = dataclasses.field(
        default_factory=list
    )
    outputs: list[Channels] = dataclasses.field(default_factory=list)

    @property
    def layer(self) -> Any:
        """The layer or operation."""
        return self.call.operation

    def channels(self, tensor: Any) -> Channels:
        """Return the channels of one of the call's tensors."""
        places = [t is tensor for t in self.call.inputs]
        return self.inputs[places.index(True)]

    @property
    def dtype(self) -> str:
        """In which type constants are reckoned with."""
        return precision(self.call.outputs[0].dtype)

    def shape(self, index: int = 0) -> tuple[int | None, ...]:
        """Return the shape of an input, with the axis of examples."""
        return tuple(self.call.inputs[index].shape)

    def hold(self, channels: Channels, which: Any, reason: str) -> None:
        """Note why channels that are constant may not go."""
        self.held.append((channels, np.asarray(which), reason))


class Rule:
    """How a class of layers carries channels.

    `follow` says what a call makes of the channels of its inputs; `cut` says how the
    layer looks without those that go. A layer that is called more than once is followed
    only if `has_size` is false: nothing in it is as long as the channels are many.
    Tensors without a last axis of known size are only given to rules that take them
    (`takes_unknown`), as None.
    """

    has_size = True
    takes_unknown = False

    def follow(self, step: Step) -> list[Channels]:
        """Return the channels of the outputs, in turn.

        Raises:
            CannotFollow: With the reason; all channels of the call then stay.
        """
        raise NotImplementedError

    def cut(self, step: Step, solution: Solution) -> dict[Any, Cut]:
        """Return what changes: {layer, or layer in it: its `Cut`}."""
        return {}


def rule(*classes: type | None) -> Callable[[type], type]:
    """Register a `Rule` for classes of layers; None is one that this Keras lacks."""

    def register(cls: type) -> type:
        RULES.update({layer: cls() for layer in classes if layer is not None})
        return cls

    return register


def layers_named(*names: str) -> list[type]:
    """Return those of these classes of `keras.layers` that this Keras has."""
    found = [getattr(keras.layers, name, None) for name in names]
    return [cls for cls in found if cls is not None]


def require_last_axis(layer: Any) -> None:
    """Refuse a layer whose channels are not its last axis.

    Raises:
        CannotFollow: If they are not.
    """
    if getattr(layer, "data_format", None) == "channels_first":
        raise CannotFollow("channels come first in its data")


def require_plain(layer: Any) -> None:
    """Refuse a layer whose kernel is not its only one.

    Raises:
        CannotFollow: If it has an adapter or is quantized.
    """
    if getattr(layer, "lora_enabled", False):
        raise CannotFollow("it has an adapter (LoRA)")
    if getattr(layer, "quantization_mode", None):
        raise CannotFollow("it is quantized")


_ELEMENTWISE = (
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu",
    "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu",
    "sigmoid", "silu", "soft_shrink", "softplus", "softsign", "sparse_plus",
    "sparse_sigmoid", "squareplus", "tanh", "tanh_shrink", "threshold",
)  # fmt: skip


def is_elementwise(activation: Any) -> bool:
    """Tell whether a function is an activation of Keras that acts entry by entry."""
    if type(activation) in layers_named("ReLU", "LeakyReLU", "ELU"):
        return True
    known = [getattr(keras.activations, name, None) for name in _ELEMENTWISE]
    return activation is None or any(activation is one for one in known)


def on_constants(
    function: Any, constants: np.ndarray, dtype: str = "float32"
) -> np.ndarray:
    """Return a function, or a layer, of those entries [n] that are not NaN."""
    result = np.full(len(constants), np.nan)
    known = np.flatnonzero(~np.isnan(constants))
    if function is None:
        return constants
    if len(known):
        values = keras.ops.convert_to_tensor(constants[None, known], dtype)
        result[known] = keras.ops.convert_to_numpy(function(values))[0]
    return result


def effective(variable: Any) -> np.ndarray:
    """Return a variable as a NumPy array of float64 if it is that, else of float32."""
    dtype = precision(variable.dtype)
    value = keras.ops.convert_to_numpy(keras.ops.cast(variable, dtype))
    return np.asarray(value)


def precision(dtype: Any) -> str:
    """Return in which type numbers of a type are reckoned with here."""
    return (
        "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"
    )


def floats(variable: Any) -> np.ndarray:
    """Return a variable as float64."""
    return effective(variable).astype("float64")
