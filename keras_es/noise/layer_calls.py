"""Layers that are linear in their kernel, called with a perturbed one.

In this scope such a layer computes x W + m * (x E) instead of x (W + m * E): members
share the products (see `keras_es.ops.perturbation`). All other weights of a model
are simply replaced by their perturbed values.
"""

import contextlib
import functools

import keras
import tensorflow as tf
from keras import ops

from keras_es.layers import tree

_layers = keras.layers


def shared_kernels(model, variables):
    """Return the layers whose kernel's perturbation can be split off.

    Args:
        model: Keras model.
        variables: The perturbed variables.

    Returns:
        Dict from id of a kernel to its layer.
    """
    perturbed = {id(v) for v in variables}
    found = {}
    for _, layer in tree.walk(model):
        if _product(layer) is None:
            continue
        kernel = layer.kernel
        if id(kernel) in perturbed and layer.kernel_regularizer is None:
            found[id(kernel)] = layer
    return found


def own_layers(model, variables):
    """Return the layers of a user's own that can have noise on their outputs.

    They have a method `kernel_product(x, kernel)`, and their output is that of their
    kernel, plus `bias` and through `activation` where they have them. Its gradient by
    the kernel says how the kernel moves, so that it may round the kernel and pass
    straight through what comes back.

    Args:
        model: Keras model.
        variables: Those that are searched.

    Returns:
        Dict from id of a kernel to its layer.
    """
    searched = {id(v) for v in variables}
    return {
        id(layer.kernel): layer
        for _, layer in tree.walk(model)
        if hasattr(layer, "kernel_product") and id(layer.kernel) in searched
    }


def _product(layer):
    """Return the function (x, kernel) of a layer that is linear in its kernel.

    None for all others, and for those whose output's columns are not the kernel's last
    axis. A subclass counts if it computes as its base does.
    """
    multiply = _linear(layer)
    return multiply if multiply is not None and _plain(layer) else None


def _linear(layer):
    """Return the same, whatever the kernel is read through."""
    call = type(layer).call
    if call is _layers.Dense.call:
        return ops.matmul
    plain_convolutions = (_layers.Conv1D, _layers.Conv2D, _layers.Conv3D)
    if any(call is c.call for c in plain_convolutions):
        channels_last = layer.data_format == "channels_last" and layer.groups == 1
        if channels_last and layer.padding == "causal":
            return functools.partial(_causal_convolution, layer)
        return layer.convolution_op if channels_last else None
    return None


def _causal_convolution(layer, x, kernel):
    """Return the product of a `Conv1D` that sees no step to come.

    Its `convolution_op` knows nothing of that: `call` itself adds the zeros.
    """
    (dilation,), (size,) = layer.dilation_rate, layer.kernel_size
    return ops.conv(
        ops.pad(x, [[0, 0], [dilation * (size - 1), 0], [0, 0]]),
        kernel,
        strides=list(layer.strides),
        padding="valid",
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )


def _plain(layer):
    """Tell whether the kernel is a weight itself: no mask, adapter or quantization."""
    return layer.built and isinstance(layer.kernel, keras.Variable)


@contextlib.contextmanager
def replaced_calls(by_key):
    """Replace the `call` of layers for a while; values are (layer, call)."""
    with contextlib.ExitStack() as stack:
        for layer, call in by_key.values():
            stack.enter_context(_replaced(layer, "call", call))
        yield


@contextlib.contextmanager
def _replaced(layer, name, value):
    """Let an object have another attribute, and then what it had before."""
    own = vars(layer)
    before = own.get(name, own)
    # Not `setattr`: Keras would track what a function holds.
    object.__setattr__(layer, name, value)
    try:
        yield
    finally:
        if before is own:  # It had that of its class.
            object.__delattr__(layer, name)
        else:
            object.__setattr__(layer, name, before)


def product(layer, x, kernel):
    """Return x W of a layer, without bias and activation."""
    own = getattr(layer, "kernel_product", None)
    return _linear(layer)(x, kernel) if own is None else own(x, kernel)


def noisy_calls(layers, added, shared):
    """Return a scope in which layers add noise to x W.

    Args:
        layers: Dict from key to layer.
        added: Dict from key to the noise, of the shape of x W.
        shared: Dict from key to what `shared_products.find_shared` found.
    """
    return replaced_calls(
        {
            key: (layers[key], _noisy_call(layers[key], noise, shared.get(key)))
            for key, noise in added.items()
        }
    )


def _noisy_call(layer, noise, shared):
    def call(inputs, *args, **kwargs):
        if shared is not None:
            return finish(layer, shared.product + noise)
        x = tf.convert_to_tensor(inputs)
        kernel = ops.cast(layer.kernel.value, x.dtype)
        return finish(layer, product(layer, x, kernel) + noise)

    return call


def linear_layers(model):
    """Return the layers that are linear in their kernel, masked ones too.

    Not those with a regularizer of kernel or bias, nor those that are frozen.

    Args:
        model: Built Keras model.
    """
    found: list[keras.layers.Layer] = []
    for _, layer in tree.walk(model):
        if any(layer is other for other in found) or not layer.trainable_variables:
            continue
        regularizers = ("kernel_regularizer", "bias_regularizer")
        free = all(getattr(layer, name, None) is None for name in regularizers)
        if free and layer.built and _multiply(layer) is not None:
            found.append(layer)
    return found


def _multiply(layer):
    """Return the function (x, kernel) of a layer, which may be masked, or None."""
    if hasattr(layer, "kernel_product"):
        return layer.kernel_product
    return _linear(layer) if tree.has_masks(layer) else _product(layer)


def kernel_variable(layer):
    """Return the variable behind a kernel, of a masked layer its latent one."""
    return layer.masked_weights[0].kernel if tree.has_masks(layer) else layer.kernel


def calls_through(layers, function):
    """Return a scope in which calls of layers go through a function.

    Args:
        layers: List of layers that `linear_layers` returned.
        function: (layer, x, W, x W + b) -> what the activation is of.
    """

    def through(layer):
        def call(inputs, *args, **kwargs):
            x = tf.convert_to_tensor(inputs)
            kernel = tf.cast(ops.convert_to_tensor(layer.kernel), x.dtype)
            y = product(layer, x, kernel)
            bias, activation = bias_of(layer), getattr(layer, "activation", None)
            y = function(layer, x, kernel, y if bias is None else y + bias)
            return y if activation is None else activation(y)

        return call

    return replaced_calls({id(layer): (layer, through(layer)) for layer in layers})


def plain_layers(model):
    """Return the layers that multiply by their kernel, frozen ones too.

    Not those that say themselves how (`kernel_product`).

    Args:
        model: Built Keras model.
    """
    found: list[keras.layers.Layer] = []
    for _, layer in tree.walk(model):
        other = hasattr(layer, "kernel_product") or not layer.built
        other = other or getattr(layer, "quantization_mode", None) is not None
        if other or any(layer is known for known in found):
            continue
        if _multiply(layer) is not None:
            found.append(layer)
    return found


@contextlib.contextmanager
def products_through(layers, function):
    """Let products of some layers go through a function in this scope.

    Args:
        layers: List of layers that `plain_layers` returned.
        function: (multiply, x, W) -> multiply(x, W), where `multiply` is linear in
            both.
    """
    with contextlib.ExitStack() as stack:
        for layer in layers:
            own = functools.partial(function, _linear(layer))
            stack.enter_context(_replaced(layer, "kernel_product", own))
        stack.enter_context(calls_through(layers, lambda layer, x, kernel, y: y))
        yield


def perturbed_calls(layers, perturbations, factors, multipliers, shared):
    """Return a scope in which layers call with W + m * E.

    Biases and all other weights are read as they are in the scope around.

    Args:
        layers: Dict from key to layer.
        perturbations: Dict from key to its `FullRank` or `LowRank`.
        factors: Dict from key to the factors of its draw.
        multipliers: Dict from key to the member's multiplier, scalar or [columns].
        shared: Dict from key to what `shared_products.find_shared` found.
    """
    return replaced_calls(
        {
            key: (
                layer,
                _perturbed_call(
                    layer,
                    perturbations[key],
                    factors[key],
                    multipliers[key],
                    shared.get(key),
                ),
            )
            for key, layer in layers.items()
        }
    )


def _perturbed_call(layer, perturbation, factors, multiplier, shared):
    multiply = _product(layer)

    def call(inputs, *args, **kwargs):
        x = tf.convert_to_tensor(inputs) if shared is None else shared.x
        parts = [tf.cast(factor, x.dtype) for factor in factors]
        if shared is None:
            # One product of W and the first factor: fewer and wider columns.
            kernel = tf.convert_to_tensor(layer.kernel)
            both = multiply(x, tf.concat([kernel, parts[0]], axis=-1))
            columns = kernel.shape[-1]
            mean, first = both[..., :columns], both[..., columns:]
        else:
            mean, first = shared.product, multiply(x, parts[0])
        change = perturbation.product(first, parts)
        return finish(layer, mean + tf.cast(multiplier, x.dtype) * change)

    return call


def finish(layer, y):
    """Add the bias and apply the activation, as dense layers and convolutions do."""
    bias, activation = bias_of(layer), getattr(layer, "activation", None)
    y = y if bias is None else y + bias
    return y if activation is None else activation(y)


def bias_of(layer):
    """Return the bias of a layer, or None."""
    return layer.bias if getattr(layer, "use_bias", False) else None
