"""Layers with an adapter of low rank (LoRA), called without the sum of their weights.

Keras reads such a layer's kernel as W + s A B. Where each member has an A and a B of
its own that would be a kernel for each member. Here it is

    x (W + s A B) = x W + s ((x A) B),

so that the frozen W is one for all members, and the members of a chunk hold no more
than their adapters.
"""

import keras
import tensorflow as tf
from keras import ops

from keras_es import _compat
from keras_es.layers import tree
from keras_es.noise.layer_calls import bias_of, replaced_calls

_layers = keras.layers


def adapted_calls(model):
    """Return a scope in which the layers of a model with an adapter call so.

    Layers of which Keras may read the sum in another way are left as they are:
    quantized ones, which never make it, and subclasses with a call of their own.

    Args:
        model: Keras model.
    """
    return replaced_calls(
        {
            id(layer): (layer, call)
            for _, layer in tree.walk(model)
            if (call := _adapted_call(layer)) is not None
        }
    )


def _adapted_call(layer):
    weight = _compat.frozen_weight(layer)
    if weight is None:
        return None
    call = type(layer).call
    if call is _layers.Dense.call:
        return _product(layer, weight, ops.matmul)
    if call is _layers.EinsumDense.call and _columns_are_last(layer.equation):

        def multiply(x, kernel):
            return ops.einsum(layer.equation, x, kernel)

        return _product(layer, weight, multiply)
    return _lookup(layer, weight) if call is _layers.Embedding.call else None


def _columns_are_last(equation):
    """Tell whether the last axis of a kernel is the last one of the output alone."""
    inputs, output = equation.replace(" ", "").split("->")
    x, kernel = inputs.split(",")
    return output[-1] == kernel[-1] and kernel[-1] not in x


def _product(layer, weight, multiply):
    scale = layer.lora_alpha / layer.lora_rank

    def call(inputs, *args, **kwargs):
        x = ops.convert_to_tensor(inputs)
        dtype = layer.compute_dtype
        kernel, a, b = (
            ops.cast(v.value, dtype)
            for v in (weight, layer.lora_kernel_a, layer.lora_kernel_b)
        )
        y = multiply(x, kernel) + scale * ops.matmul(multiply(x, a), b)
        bias = bias_of(layer) if hasattr(layer, "use_bias") else layer.bias
        y = y if bias is None else y + bias
        return y if layer.activation is None else layer.activation(y)

    return call


def _lookup(layer, weight):
    scale = layer.lora_alpha / layer.lora_rank

    def call(inputs, *args, **kwargs):
        ids = ops.cast(inputs, "int32")
        # Of tensors: a variable's own gather cannot be vectorized over members.
        rows, a = (
            ops.take(tf.convert_to_tensor(v.value), ids, axis=0)
            for v in (weight, layer.lora_embeddings_a)
        )
        change = ops.matmul(a, layer.lora_embeddings_b.value)
        return ops.cast(
            rows + scale * ops.cast(change, rows.dtype), layer.compute_dtype
        )

    return call
