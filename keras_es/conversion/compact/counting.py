"""Multiplications of one example, layer by layer."""

import math
from typing import Any

import keras

from keras_es import _compat
from keras_es.conversion.clone import is_graph
from keras_es.conversion.compact.rules import layers_named
from keras_es.layers import tree
from keras_es.layers.masked import latent_of

KERNELS = ("kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel")
"""What layers call the weights that are multiplied with."""


def multiplications(model: Any) -> int:
    """Return how many multiplications with weights an example takes.

    Of dense layers, convolutions, attention (with its scores and sums) and recurrent
    layers; the others' are left out. Axes of unknown length count as one.
    """
    if not is_graph(model) or _compat.graph_ends(model) is None:
        return 0
    return sum(_of_call(call) for call in _compat.graph_calls(model))


def multiplications_per_weight(model: Any) -> dict[str, float]:
    """Return how often an example uses each weight of a layer, by path of the layer.

    Of a convolution that is the number of places its kernel is put to, of a dense layer
    of a vector 1, of a recurrent layer the number of time steps; a layer that is called
    twice uses its weights in both calls. Biases and layers that `sparsify` does not
    reach directly, such as the projections within attention, are left out.

    Args:
        model: Built functional or Sequential model, masked or not.

    Returns:
        Dict for `costs` of `GuidedES`, of layers with kernels.

    Raises:
        ValueError: If the model is no graph of layers.

    Example:

    >>> layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="conv")]
    >>> layers += [keras.layers.Flatten(), keras.layers.Dense(2, name="out")]
    >>> multiplications_per_weight(keras.Sequential(layers))
    {'conv': 36.0, 'out': 1.0}
    """
    if not is_graph(model) or _compat.graph_ends(model) is None:
        raise ValueError(
            "`model` must be a built functional or Sequential model, for what is "
            f"multiplied is counted along its graph. Received: model={model!r}"
        )
    uses: dict[int, float] = {}
    _add_uses(model, uses)
    found = {path: uses.get(id(layer), 0.0) for path, layer in tree.walk(model)}
    return {path: times for path, times in found.items() if times}


def _add_uses(model, uses):
    for call in _compat.graph_calls(model):
        layer = call.operation
        if is_graph(layer) and _compat.graph_ends(layer) is not None:
            _add_uses(layer, uses)
        elif weights := _kernel_size(layer):
            uses[id(layer)] = uses.get(id(layer), 0.0) + _of_call(call) / weights


def _kernel_size(layer):
    """Return how many weights the kernels of a layer have that is counted here."""
    holder = getattr(layer, "cell", layer)
    kernels = [latent_of(holder, name) for name in KERNELS]
    return sum(_size(kernel.shape) for kernel in kernels if kernel is not None)


def _size(shape):
    return math.prod(1 if size is None else size for size in shape)


def _of_call(call):
    layer = call.operation
    inputs = [tuple(tensor.shape)[1:] for tensor in call.inputs]
    outputs = tuple(call.outputs[0].shape)[1:]
    if isinstance(layer, keras.Model):
        return multiplications(layer)
    return _of_layer(layer, inputs, outputs)


def _of_layer(layer, inputs, outputs):
    """Return those of a layer, for shapes without the axis of examples."""
    cls = tree.plain_class_of(layer)
    if cls is keras.layers.Dense:
        return _size(outputs) * layer.kernel.shape[0]
    if cls is keras.layers.EinsumDense:
        axes, output = layer.equation.replace(" ", "").split("->")
        kernel = zip(axes.split(",")[1], layer.kernel.shape)
        return _size(outputs) * _size(n for axis, n in kernel if axis not in output)
    if cls in layers_named("Conv1D", "Conv2D", "Conv3D"):
        return _size(outputs) * _size(layer.kernel.shape[:-1])
    if cls in layers_named("DepthwiseConv1D", "DepthwiseConv2D"):
        return _size(outputs) * _size(layer.kernel.shape[:-2])
    if cls in layers_named("SeparableConv1D", "SeparableConv2D"):
        kernels = layer.depthwise_kernel.shape, layer.pointwise_kernel.shape
        return _size(outputs[:-1]) * sum(_size(shape) for shape in kernels)
    if cls in layers_named("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"):
        return _size(inputs[0]) * _size(layer.kernel.shape[:-1])
    if cls is keras.layers.MultiHeadAttention:
        return _of_attention(layer, inputs)
    if cls in layers_named("GroupQueryAttention"):
        return _of_grouped_attention(layer, inputs)
    if cls in layers_named("GRU", "LSTM", "RNN", "SimpleRNN"):
        return _size(inputs[0][:1]) * _of_cell(layer.cell)
    if cls is keras.layers.Bidirectional:
        both = (layer.forward_layer, layer.backward_layer)
        return sum(_of_layer(one, inputs, outputs) for one in both)
    if cls is keras.layers.TimeDistributed:
        steps, each = _size(inputs[0][:1]), [inputs[0][1:]]
        if isinstance(layer.layer, keras.Model):
            return steps * multiplications(layer.layer)
        return steps * _of_layer(layer.layer, each, outputs[1:])
    return 0


def _of_cell(cell):
    """Return those of a time step; of a cell of a user's own 0."""
    if isinstance(cell, keras.layers.StackedRNNCells):
        return sum(_of_cell(one) for one in cell.cells)
    kernels = [getattr(cell, name, None) for name in ("kernel", "recurrent_kernel")]
    return sum(_size(kernel.shape) for kernel in kernels if kernel is not None)


def _of_attention(layer, inputs):
    queries = _size(inputs[0][:-1])
    others = _size(inputs[min(1, len(inputs) - 1)][:-1])
    parts = {
        layer.query_dense: queries,
        layer.key_dense: others,
        layer.value_dense: others,
        layer.output_dense: queries,
    }
    projections = _of_projections(parts)
    each = layer.num_heads * (layer.key_dim + layer.value_dim)
    return projections + queries * others * each


def _of_projections(parts):
    """Return those of dense layers, {layer: at how many positions}."""
    return sum(_size(part.kernel.shape) * n for part, n in parts.items())


def _of_grouped_attention(layer, inputs):
    queries = _size(inputs[0][:-1])
    others = _size(inputs[min(1, len(inputs) - 1)][:-1])
    parts = {
        part: others if part.name in ("key", "value") else queries
        for _, part in tree.walk(layer)
        if isinstance(part, keras.layers.EinsumDense)
    }
    each = layer.num_query_heads * 2 * layer.head_dim
    return _of_projections(parts) + queries * others * each
