"""Masked twins of layers that hold one kernel."""

import keras

from keras_es.layers.masked import MaskedLayer
from keras_es.layers.sparse_layer import register
from keras_es.patterns import Unstructured


@register
class MaskedDense(MaskedLayer, keras.layers.Dense):
    """`keras.layers.Dense` with a masked kernel of shape (inputs, units).

    y = activation(x (W * M) + b). Takes all arguments of the plain layer and
    `sparsity`, `pattern`, `mask_seed` (see `MaskedLayer`).

    Example:

    >>> from keras_es.patterns import Block
    >>> layer = MaskedDense(128, sparsity=0.9, pattern=Block(16, 1))
    >>> layer.build((None, 64))
    >>> layer.masked_weights[0].nnz
    816
    """


@register
class MaskedEinsumDense(MaskedLayer, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` with a masked kernel.

    The kernel's axes that the equation sums over are the inputs; they must come
    first for patterns other than `Unstructured`.
    """

    @classmethod
    def input_axes(cls, layer, shape, pattern):
        """Count the kernel's leading axes that do not appear in the output."""
        operands, output = layer.equation.replace(" ", "").split("->")
        axes = operands.split(",")[1].replace("...", "")
        summed = [letter not in output for letter in axes]
        lead = sum(summed)
        if all(summed[:lead]):
            return lead
        if pattern == Unstructured():
            # Single weights need no matrix form; any split of the axes will do.
            return len(axes) - 1
        raise ValueError(
            "the pattern needs a kernel whose summed axes come first. Write the "
            "equation so, or use Unstructured(). "
            f"Received: equation={layer.equation!r}"
        )


@register
class MaskedConv1D(MaskedLayer, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with a masked kernel (size, channels in, filters)."""


@register
class MaskedConv2D(MaskedLayer, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a masked kernel (h, w, channels in, filters)."""


@register
class MaskedDepthwiseConv2D(MaskedLayer, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a masked kernel (h, w, channels, mult).

    Seen as a matrix, the window (h*w) is the inputs, and each depthwise filter
    (channels*mult) one output.
    """

    @classmethod
    def input_axes(cls, layer, shape, pattern):
        """Return 2: height and width."""
        return 2
