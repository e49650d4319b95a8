"""Rules of layers with a kernel: dense layers and convolutions."""

from typing import Any

import keras
import numpy as np

from keras_es.conversion.clone import Cut
from keras_es.conversion.compact.channels import (
    CARRIES,
    FOLDS,
    ZEROS,
    CannotFollow,
    Channels,
    Reader,
    Solution,
    agreed,
)
from keras_es.conversion.compact.rules import (
    Rule,
    Step,
    effective,
    floats,
    is_elementwise,
    on_constants,
    require_last_axis,
    require_plain,
    rule,
)

PADDED = "before it: they are not 0, and padding puts zeros beside them"
TOGETHER = "of its own: its activation is not known to act entry by entry"


def is_unpadded(layer: Any) -> bool:
    """Tell whether a convolution sees no zeros beside its inputs."""
    return layer.padding == "valid" or max(layer.kernel_size) == 1


class Linear(Rule):
    """Outputs are sums over inputs, and over a window for convolutions.

    Subclasses say how the kernel looks as [window..., inputs, outputs], and what names
    the number of outputs in the config.
    """

    size = "units"

    def kernel(self, layer: Any) -> np.ndarray:
        """Return the kernel as [window..., inputs, outputs]."""
        return effective(layer.kernel)

    def kernel_back(self, kernel: np.ndarray) -> np.ndarray:
        """Return what `kernel` made in the layer's own order of axes."""
        return kernel

    def mode(self, layer: Any) -> str:
        """Return what can be done about constant inputs that go."""
        return FOLDS

    def require(self, step: Step) -> None:
        """Refuse what this rule does not know.

        Raises:
            CannotFollow: With the reason.
        """
        require_plain(step.layer)
        require_last_axis(step.layer)

    def uses_bias(self, layer: Any) -> bool:
        """Tell whether the layer has a bias."""
        return layer.use_bias

    def bias_config(self, layer: Any) -> dict[str, Any]:
        """Return the change of the config that gives the layer a bias."""
        return {"use_bias": True}

    def follow(self, step: Step) -> list[Channels]:
        """Let each output be a channel of its own."""
        layer, (channels,) = step.layer, step.inputs
        self.require(step)
        kernel = self.kernel(layer)
        window = tuple(range(kernel.ndim - 2))

        def gain(rows):
            return kernel[..., rows, :].sum(axis=window, dtype="float64")

        edges = (kernel != 0.0).any(axis=window)
        return self.read(step, Reader(channels, edges, gain, self.mode(layer)))

    def read(self, step: Step, reader: Reader) -> list[Channels]:
        """Return the channels that a reader, a bias and an activation make."""
        layer, tracker = step.layer, step.tracker
        constants = reader.constant_outputs()
        if self.uses_bias(layer):
            constants = constants + floats(layer.bias)
        if is_elementwise(layer.activation):
            outputs = tracker.make(
                on_constants(layer.activation, constants, step.dtype)
            )
        else:
            outputs = tracker.make_pinned(len(constants))
            step.hold(outputs, ~np.isnan(constants), TOGETHER)
        step.memo["reader"] = reader
        if reader.mode != FOLDS:
            step.hold(reader.inputs, reader.padded, PADDED)
        return [tracker.read(reader, outputs)]

    def cut(self, step: Step, solution: Solution) -> dict[Any, Cut]:
        """Keep rows and columns, and let the bias take over what was constant."""
        layer, reader = step.layer, step.memo["reader"]
        rows, columns = solution.kept(reader.inputs), solution.kept(reader.outputs)
        if len(rows) == len(reader.inputs) and len(columns) == len(reader.outputs):
            return {}
        config = {self.size: len(columns)}
        weights = self.weights(step, solution, rows, columns)
        offset = solution.offset(reader)
        if self.uses_bias(layer) or offset.any():
            old = floats(layer.bias)[columns] if self.uses_bias(layer) else 0.0
            weights["bias"] = old + offset
            config |= {} if self.uses_bias(layer) else self.bias_config(layer)
        return {layer: Cut(config, weights)}

    def weights(self, step: Step, solution: Solution, rows: Any, columns: Any) -> dict:
        """Return the weights but for the bias, for inputs and outputs that stay."""
        kernel = self.kernel(step.layer)
        carrier, others, factors = solution.shares(step.memo["reader"])
        if len(others):
            kernel = kernel.astype("float64")
            moved = np.einsum("...io,i->...o", kernel[..., others, :], factors)
            kernel[..., carrier, :] += moved
        return {"kernel": self.kernel_back(kernel[..., rows, :][..., columns])}


@rule(keras.layers.Dense)
class DenseRule(Linear):
    """Inputs are the last axis, whatever is before it."""


@rule(keras.layers.EinsumDense)
class EinsumDenseRule(Linear):
    """As a dense layer, if the equation is one: "abc,cd->abd"."""

    def require(self, step: Step) -> None:
        """Refuse other equations."""
        super().require(step)
        layer = step.layer
        inputs, kernel, output = _letters(layer.equation)
        dense = len(kernel) == 2 and kernel[0] not in output
        dense = dense and (inputs[-1], output[-1]) == (kernel[0], kernel[1])
        if not dense or inputs[:-1] != output[:-1] or kernel[1] in inputs:
            raise CannotFollow("its equation is not that of a dense layer")
        if layer.bias_axes not in (None, "", kernel[1]):
            raise CannotFollow("its bias is not of the outputs alone")

    def uses_bias(self, layer: Any) -> bool:
        """Tell whether the layer has a bias."""
        return layer.bias is not None

    def bias_config(self, layer: Any) -> dict[str, Any]:
        """Return the change of the config that gives the layer a bias."""
        return {"bias_axes": _letters(layer.equation)[1][1]}

    def cut(self, step: Step, solution: Solution) -> dict[Any, Cut]:
        """As `Linear`; the size is the last entry of `output_shape`."""
        cuts = super().cut(step, solution)
        for cut in cuts.values():
            shape = step.layer.get_config()["output_shape"]
            shape = (shape,) if isinstance(shape, int) else tuple(shape)
            assert cut.config is not None
            cut.config["output_shape"] = (*shape[:-1], cut.config.pop(self.size))
        return cuts


def _letters(equation):
    """Return the axes of inputs, kernel and outputs."""
    operands, output = equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    return inputs, kernel, output


@rule(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
class ConvRule(Linear):
    """A constant input stays one if no padding puts zeros beside it."""

    size = "filters"

    def mode(self, layer: Any) -> str:
        """Fold without padding; else merge constant channels."""
        return FOLDS if is_unpadded(layer) else CARRIES

    def require(self, step: Step) -> None:
        """Refuse grouped convolutions."""
        super().require(step)
        if step.layer.groups != 1:
            raise CannotFollow("its channels are in groups")


@rule(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose)
@rule(keras.layers.Conv3DTranspose)
class ConvTransposeRule(Linear):
    """Outputs see parts of the window, so that no constant input gives constants."""

    size = "filters"

    def kernel(self, layer: Any) -> np.ndarray:
        """Return the kernel, whose outputs come before its inputs, as others are."""
        return np.swapaxes(effective(layer.kernel), -1, -2)

    def kernel_back(self, kernel: np.ndarray) -> np.ndarray:
        """Swap outputs and inputs."""
        return np.swapaxes(kernel, -1, -2)

    def mode(self, layer: Any) -> str:
        """Merge constant channels."""
        return CARRIES


@rule(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
class SeparableConvRule(Linear):
    """A depthwise kernel and then one of size 1."""

    size = "filters"

    def mode(self, layer: Any) -> str:
        """Fold without padding; else only zeros go."""
        return FOLDS if is_unpadded(layer) else ZEROS

    def follow(self, step: Step) -> list[Channels]:
        """Follow both kernels at once."""
        layer, (channels,) = step.layer, step.inputs
        self.require(step)
        depthwise = effective(layer.depthwise_kernel)  # [window..., inputs, times]
        window = tuple(range(depthwise.ndim - 2))
        count, times = depthwise.shape[-2:]
        pointwise = effective(layer.pointwise_kernel).reshape(count, times, -1)
        reached = (depthwise != 0.0).any(axis=window)[..., None] & (pointwise != 0.0)
        sums = depthwise.sum(axis=window, dtype="float64")

        def gain(rows):
            return np.einsum("it,ito->io", sums[rows], pointwise[rows])

        edges = reached.any(axis=1)
        return self.read(step, Reader(channels, edges, gain, self.mode(layer)))

    def weights(self, step: Step, solution: Solution, rows: Any, columns: Any) -> dict:
        """Return both kernels, for inputs and outputs that stay."""
        layer = step.layer
        depthwise = effective(layer.depthwise_kernel)
        pointwise = effective(layer.pointwise_kernel)
        inner = spread(rows, depthwise.shape[-1])
        return {
            "depthwise_kernel": depthwise[..., rows, :],
            "pointwise_kernel": pointwise[..., inner, :][..., columns],
        }


def spread(rows: np.ndarray, times: int) -> np.ndarray:
    """Return where the `times` results of each row are, one after the other.

    Example:

    >>> spread(np.array([0, 2]), 2)
    array([0, 1, 4, 5])
    """
    return (rows[:, None] * times + np.arange(times)).reshape(-1)


@rule(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
class DepthwiseConvRule(Rule):
    """Each channel by itself: it and what is made of it go together."""

    def follow(self, step: Step) -> list[Channels]:
        """Tie the outputs of a channel to it."""
        layer, (channels,) = step.layer, step.inputs
        require_plain(layer)
        require_last_axis(layer)
        if not is_elementwise(layer.activation):
            raise CannotFollow("its activation does not act entry by entry")
        kernel = effective(layer.kernel)  # [window..., channels, times]
        window = tuple(range(kernel.ndim - 2))
        read = (kernel != 0.0).any(axis=window).reshape(-1)
        sums = kernel.sum(axis=window, dtype="float64").reshape(-1)
        times = kernel.shape[-1]
        constants = np.repeat(channels.constants, times)
        stays = (constants == 0.0) | is_unpadded(layer)
        values = np.where(read, np.where(stays, constants * sums, np.nan), 0.0)
        if layer.use_bias:
            values = values + floats(layer.bias)
        values = on_constants(layer.activation, values, step.dtype)
        held = ~np.isnan(constants) & np.isnan(values)
        step.hold(channels, held.reshape(-1, times).any(axis=1), PADDED)
        tied = Channels(np.repeat(channels.groups, times), values)
        return [tied.with_constants(values)]

    def cut(self, step: Step, solution: Solution) -> dict[Any, Cut]:
        """Keep the filters of channels that stay."""
        layer, (channels,) = step.layer, step.inputs
        rows = solution.kept(channels)
        if len(rows) == len(channels):
            return {}
        kernel = effective(layer.kernel)[..., rows, :]
        weights = {"kernel": kernel}
        if layer.use_bias:
            weights["bias"] = floats(layer.bias)[spread(rows, kernel.shape[-1])]
        return {layer: Cut({}, weights)}


@rule(keras.layers.Embedding)
class EmbeddingRule(Rule):
    """A column that is the same for all words is a constant."""

    takes_unknown = True

    def follow(self, step: Step) -> list[Channels]:
        """Let each column be a channel of its own."""
        require_plain(step.layer)
        for channels in step.inputs:
            step.tracker.pin(channels)
        table = floats(step.layer.embeddings)
        return [step.tracker.make(agreed(table))]

    def cut(self, step: Step, solution: Solution) -> dict[Any, Cut]:
        """Keep columns."""
        (channels,) = step.outputs
        columns = solution.kept(channels)
        if len(columns) == len(channels):
            return {}
        weights = {"embeddings": effective(step.layer.embeddings)[:, columns]}
        return {step.layer: Cut({"output_dim": len(columns)}, weights)}
